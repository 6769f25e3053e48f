"""The projected cross-entropy against Keras and autodiff."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import assert_close, normal

from seq2split.layers import cross_entropy, projected_cross_entropy

CLASSES = 7


def label_loss(logits, labels, smoothing):
    """By Keras, from one-hot labels."""
    loss = keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing, reduction="none", dtype="float64")
    return loss(tf.one_hot(labels, CLASSES, dtype=logits.dtype), logits)


def in_graph(fn):
    return tf.function(fn, autograph=False)


def output_layer(positions=5, units=3):
    """Features, kernel and bias in float64."""
    return 3 * normal(positions, units), normal(CLASSES, units, seed=2), normal(CLASSES, seed=3)


def projected(parameters, labels, smoothing, dtype="float64"):
    return projected_cross_entropy(*parameters, labels, smoothing=smoothing, compute_dtype=dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("run", [lambda fn: fn, in_graph], ids=["eager", "graph"])
@pytest.mark.parametrize("label_dtype", ["int32", "int64"])
def test_projected_cross_entropy_equals_keras(smoothing, run, label_dtype):
    parameters, labels = output_layer(), tf.constant([0, 6, 3, 3, 1], label_dtype)
    weights = normal(5, seed=1)

    def ours(*parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            loss, nll = projected(parameters, labels, smoothing)
            total = tf.reduce_sum(weights * loss)
        return loss, nll, tape.gradient(total, parameters)

    with tf.GradientTape() as tape:
        tape.watch(parameters)
        features, kernel, bias = parameters
        logits = tf.matmul(features, kernel, transpose_b=True) + bias
        expected = label_loss(logits, labels, smoothing)
        total = tf.reduce_sum(weights * expected)
    loss, nll, gradients = run(ours)(*parameters)
    assert_close(loss, expected)
    assert_close(nll, label_loss(logits, labels, 0.0))
    for gradient, reference in zip(gradients, tape.gradient(total, parameters), strict=True):
        assert_close(gradient, reference)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("run", [lambda fn: fn, in_graph], ids=["eager", "graph"])
def test_nll_carries_no_gradient(smoothing, run):
    parameters, labels = output_layer(), tf.constant([0, 6, 3, 3, 1])

    def gradient(*of):
        def call(*parameters):
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                loss, nll = projected(parameters, labels, smoothing)
                total = tf.add_n([tf.reduce_sum({"loss": loss, "nll": nll}[name]) for name in of])
            return tape.gradient(total, parameters[0], unconnected_gradients="zero")

        return run(call)(*parameters)

    np.testing.assert_array_equal(gradient("nll"), np.zeros([5, 3]))
    np.testing.assert_array_equal(gradient("loss", "nll"), gradient("loss"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_unlikely_labels_have_their_full_loss(dtype):
    """Probabilities far below what a float holds."""
    kernel, features = tf.constant([[1e4], [-1e4], [0.0]]), tf.constant([[1.0], [-1.0]])
    kernel, features = (tf.cast(x, "float32" if dtype == "bfloat16" else dtype) for x in (kernel, features))
    bias = tf.zeros([3], features.dtype)
    loss, nll = projected((features, kernel, bias), tf.constant([0, 0]), 0.0, dtype)
    np.testing.assert_allclose(nll, [0.0, 2e4], rtol=1e-2)
    assert loss.dtype == features.dtype


def test_projected_cross_entropy_in_bfloat16_is_near_float32():
    parameters = [tf.cast(each, "float32") for each in output_layer(positions=200, units=16)]
    labels = tf.constant(np.random.default_rng(4).integers(0, CLASSES, 200))
    exact, rounded = (projected(parameters, labels, 0.1, dtype)[0] for dtype in ("float32", "bfloat16"))
    # To the precision of bfloat16: without AVX-512, TensorFlow's products round towards zero.
    assert abs(float(tf.reduce_mean(exact - rounded))) < 2**-8 * float(tf.reduce_mean(exact))
    assert float(tf.reduce_max(tf.abs(exact - rounded))) < 0.5


# In chunks of classes


def run_in_graph(parameters, labels, smoothing, dtype="float64"):
    """The losses with their gradients, and the number of columns of each product that is a whole chunk of logits."""

    @in_graph
    def run(*parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            loss, nll = projected(parameters, labels, smoothing, dtype)
            total = tf.reduce_sum(tf.cast(normal(*loss.shape, seed=1), loss.dtype) * loss)
        return loss, nll, tape.gradient(total, parameters)

    traced = run.get_concrete_function(*parameters)
    products = [
        each for each in traced.graph.get_operations() if each.type == "MatMul" and each.get_attr("transpose_b")
    ]
    return run(*parameters), [each.outputs[0].shape[1] for each in products]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("classes_at_once", "expected"), [(6, [4, 3]), (3, [3, 3, 1]), (1, [1] * CLASSES)])
def test_chunks_change_nothing(smoothing, classes_at_once, expected, monkeypatch):
    """Each chunk's logits are computed twice, and never all."""
    parameters, labels = output_layer(positions=50), tf.constant([*range(CLASSES)] * 7 + [3])
    whole, products = run_in_graph(parameters, labels, smoothing)
    assert products == [CLASSES]
    monkeypatch.setattr(cross_entropy, "_MOST_BYTES", classes_at_once * 50 * 8)
    found, products = run_in_graph(parameters, labels, smoothing)
    assert products == expected * 2
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(whole), strict=True):
        assert_close(one, other)


def test_chunks_change_nothing_for_any_number_of_positions(monkeypatch):
    parameters, labels = output_layer(positions=50), tf.constant([*range(CLASSES)] * 7 + [3])

    def run():
        @tf.function(input_signature=[tf.TensorSpec([None, each.shape[1]], each.dtype) for each in parameters[:1]])
        def traced(features):
            with tf.GradientTape() as tape:
                tape.watch([features, *parameters[1:]])
                loss, nll = projected([features, *parameters[1:]], labels, 0.1)
            return loss, nll, tape.gradient(loss, [features, *parameters[1:]])

        return traced(parameters[0])

    whole = run()
    monkeypatch.setattr(cross_entropy, "_MOST_BYTES", 3 * cross_entropy._USUAL * 8)
    for one, other in zip(tf.nest.flatten(run()), tf.nest.flatten(whole), strict=True):
        assert_close(one, other)


def test_chunks_in_bfloat16_are_near_float32(monkeypatch):
    parameters = [tf.cast(each, "float32") for each in output_layer(positions=50, units=16)]
    labels = tf.constant([*range(CLASSES)] * 7 + [3])
    exact, _ = run_in_graph(parameters, labels, 0.1, "float32")
    monkeypatch.setattr(cross_entropy, "_MOST_BYTES", 3 * 50 * 2)
    rounded, products = run_in_graph(parameters, labels, 0.1, "bfloat16")
    assert len(products) > 2
    for one, other in zip(tf.nest.flatten(rounded), tf.nest.flatten(exact), strict=True):
        assert one.dtype == other.dtype
        assert np.abs(one - other).mean() < 0.02 * np.abs(other).max()


@pytest.mark.parametrize("positions", [None, 2000])
def test_one_chunk_where_it_fits(positions):
    assert cross_entropy._chunks(8000, positions, 4) == [slice(0, 8000)]


def test_large_vocabularies_have_chunks_where_positions_are_unknown():
    assert len(cross_entropy._chunks(32_000, None, 4)) == 1
    assert cross_entropy._chunks(64_000, None, 4) == [slice(0, 32_000), slice(32_000, 64_000)]


def test_chunks_are_about_equal_and_cover_all_classes():
    chunks = cross_entropy._chunks(64_001, 1024, 4)
    assert [(each.start, each.stop) for each in chunks] == [(0, 32_001), (32_001, 64_001)]
