"""Multi-head attention against Keras, masks included."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2split.layers import MultiHeadAttention
from seq2split.layers.masks import causal_mask, padding_mask


@pytest.mark.parametrize("encoded_dim", [None, 6])
def test_attention_equals_keras(encoded_dim):
    """With the same weights, masks included."""
    rng = np.random.default_rng(1)
    ours = MultiHeadAttention(8, 2, encoded_dim, dtype="float64")
    ours.build((None, None, 8))
    theirs = keras.layers.MultiHeadAttention(2, 4, dtype="float64")
    theirs.build((None, 3, 8), (None, 5, encoded_dim or 8))
    for variable in ours.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    projections = [ours.query, ours.key_value] if encoded_dim else [ours.query_key_value]
    counts = (1, 2) if encoded_dim else (3,)
    kernels, biases = (
        [each for dense, count in zip(projections, counts, strict=True) for each in np.split(of(dense), count, -1)]
        for of in (lambda dense: dense.kernel.numpy(), lambda dense: dense.bias.numpy())
    )
    for dense, kernel, bias in zip(
        (theirs.query_dense, theirs.key_dense, theirs.value_dense), kernels, biases, strict=True
    ):
        dense.kernel.assign(kernel.reshape(-1, 2, 4))
        dense.bias.assign(bias.reshape(2, 4))
    theirs.output_dense.kernel.assign(ours.output_projection.kernel.numpy().reshape(2, 4, 8))
    theirs.output_dense.bias.assign(ours.output_projection.bias.numpy())
    inputs, lengths = tf.constant(rng.normal(size=[2, 3, 8])), tf.constant([2, 3])
    if encoded_dim:
        encoded, mask = tf.constant(rng.normal(size=[2, 5, 6])), padding_mask(lengths, 5, "float64")
        found, weights = ours(ours.project_queries(inputs), ours.project_encoded(encoded), mask)
        expected, scores = theirs(
            inputs, encoded, attention_mask=tf.sequence_mask(lengths, 5)[:, None], return_attention_scores=True
        )
    else:
        found, weights = ours(*ours.project(inputs), causal_mask(3, "float64"))
        expected, scores = theirs(inputs, inputs, use_causal_mask=True, return_attention_scores=True)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(weights, scores, atol=1e-12)


def test_the_dropout_is_of_the_weights_that_are_read():
    """Those that are returned are whole."""
    layer = MultiHeadAttention(8, 2)
    layer.build((None, None, 8))
    projected = layer.project(tf.random.stateless_normal([2, 3, 8], [1, 2]))
    outputs, weights = layer(*projected, drop=tf.zeros_like)
    np.testing.assert_array_equal(outputs, np.zeros([2, 3, 8]))  # the bias is zero
    np.testing.assert_array_equal(weights, layer(*projected)[1])
