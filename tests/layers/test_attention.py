"""Luong's and Bahdanau's attention against numpy; padding never matters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from arrays import FLOATS, assert_close, normal, randomize

from seq2split.layers import BahdanauAttention, LuongAttention

ATTENTIONS = {"luong": LuongAttention, "bahdanau": BahdanauAttention}
TIME, FEATURES, UNITS = 5, 4, 3
LENGTHS = np.array([5, 3, 1, 2], np.int32)
every_attention = pytest.mark.parametrize("attention", ATTENTIONS)


def softmax(scores):
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def attention_reference(attention, layer, queries, values, lengths):
    """Row by row and query by query, over the real positions alone."""
    weights = {variable.name: variable.numpy() for variable in layer.trainable_variables}
    contexts = np.zeros([*queries.shape[:2], values.shape[2]])
    for row, query in itertools.product(range(queries.shape[0]), range(queries.shape[1])):
        real = values[row, : lengths[row]]
        if attention == "luong":
            scores = real @ weights["kernel"] @ queries[row, query]
        else:
            hidden = queries[row, query] @ weights["query_kernel"] + real @ weights["kernel"] + weights["bias"]
            scores = np.tanh(hidden) @ weights["score"][:, 0]
        contexts[row, query] = softmax(scores) @ real
    return contexts


def make_attention(attention, dtype="float64"):
    layer = ATTENTIONS[attention](UNITS, dtype=dtype)
    layer.build((None, None, FEATURES))
    return randomize(layer)


@every_attention
def test_attention_equals_numpy(attention):
    layer = make_attention(attention)
    queries, values = normal(4, 2, UNITS, seed=1), normal(4, TIME, FEATURES, seed=2)
    found, _ = layer(queries, layer.prepare(values, LENGTHS))
    assert_close(found, attention_reference(attention, layer, queries.numpy(), values.numpy(), LENGTHS))


def attend(layer, queries, values, lengths):
    with tf.GradientTape() as tape:
        tape.watch([queries, values])
        contexts, _ = layer(queries, layer.prepare(values, lengths))
        loss = tf.reduce_sum(contexts * normal(*contexts.shape, seed=3, dtype=contexts.dtype))
    sources = [queries, values, *[variable.value for variable in layer.trainable_variables]]
    return contexts, tape.gradient(loss, sources)


@every_attention
@pytest.mark.parametrize("size", [0.0, 1e3])
def test_attention_ignores_padding(attention, size):
    layer = make_attention(attention)
    queries, values = normal(4, 2, UNITS, seed=1), normal(4, TIME, FEATURES, seed=2)
    real = (np.arange(TIME) < LENGTHS[:, None])[:, :, None]
    contexts, gradients = attend(layer, queries, values, LENGTHS)
    others, other_gradients = attend(layer, queries, tf.where(real, values, size * values), LENGTHS)
    np.testing.assert_array_equal(others, contexts)
    for found, expected in zip(other_gradients, gradients, strict=True):
        assert_close(found, expected)
    np.testing.assert_array_equal(gradients[1] * ~real, np.zeros(values.shape))


@every_attention
def test_attention_ignores_the_amount_of_padding(attention):
    layer = make_attention(attention)
    queries, values = normal(4, 2, UNITS, seed=1), normal(4, TIME, FEATURES, seed=2)
    contexts, gradients = attend(layer, queries, values, LENGTHS)
    wider = tf.pad(values, [[0, 0], [0, 4], [0, 0]])
    others, other_gradients = attend(layer, queries, wider, LENGTHS)
    assert_close(others, contexts)
    other_gradients[1] = other_gradients[1][:, :TIME]
    for found, expected in zip(other_gradients, gradients, strict=True):
        assert_close(found, expected)


@every_attention
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_of_padding_alone_stay_finite(attention, dtype):
    layer = make_attention(attention, dtype)
    queries = normal(2, 1, UNITS, seed=1, dtype=layer.variable_dtype)
    values = normal(2, TIME, FEATURES, seed=2, dtype=layer.variable_dtype)
    contexts, gradients = attend(layer, queries, values, np.array([0, 2], np.int32))
    for tensor in [contexts, *gradients]:
        assert np.all(np.isfinite(tf.cast(tensor, "float64")))
    alone, _ = attend(layer, queries[1:], values[1:, :2], np.array([2], np.int32))
    np.testing.assert_allclose(tf.cast(contexts[1:], "float64"), tf.cast(alone, "float64"), rtol=2e-2, atol=2e-2)


@every_attention
def test_mixed_bfloat16_attention_is_near_float32(attention):
    queries, values = normal(4, 2, UNITS, seed=1, dtype="float32"), normal(4, TIME, FEATURES, seed=2, dtype="float32")
    contexts = {}
    for dtype in ("mixed_bfloat16", "float32"):
        layer = make_attention(attention, dtype)
        contexts[dtype], _ = layer(queries, layer.prepare(values, LENGTHS))
        assert contexts[dtype].dtype == tf.float32
    np.testing.assert_allclose(contexts["mixed_bfloat16"], contexts["float32"], atol=3e-2)


@every_attention
def test_it_is_built_by_what_it_prepares(attention):
    """For the size of what it attends to, which its queries don't tell."""
    layer = ATTENTIONS[attention](UNITS)
    contexts, _ = layer(tf.ones([2, 1, UNITS]), layer.prepare(tf.ones([2, TIME, FEATURES]), tf.constant([5, 3])))
    assert contexts.shape == (2, 1, FEATURES)
