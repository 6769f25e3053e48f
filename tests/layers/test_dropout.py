"""Dropout without a state: its shares, its seeds, its gradient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from seq2split.layers.dropout import NO_DROPOUT, DropoutRates, dropout, dropout_masks


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.99])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    """Also of every fourth value, and of neighbours alike: four masks come out of one random number."""
    drop = dropout(rate, 1, tf.constant([[4, 5]]), tf.ones([2]))
    found = drop(tf.ones([200, 501]), 0).numpy()
    zeros, spread = (found == 0).ravel(), 5 * (rate * (1 - rate) / found.size) ** 0.5
    assert abs(zeros.mean() - rate) < spread
    assert all(abs(zeros[start::4].mean() - rate) < 2 * spread for start in range(4))
    assert abs((zeros[1:] & zeros[:-1]).mean() - rate**2) < 2 * spread
    np.testing.assert_allclose(found[found > 0], 1 / (1 - rate), rtol=1e-3)


@pytest.mark.parametrize(("rate", "zeros"), [(0.0, 0), (1e-9, 0), (1 - 1e-9, 1)])
def test_dropout_of_next_to_nothing_and_of_next_to_all(rate, zeros):
    found = dropout(rate, 1, tf.constant([[4, 5]]), tf.ones([2]))(tf.ones([100]), 0).numpy()
    assert (found == 0).mean() == zeros
    assert np.isfinite(found).all()


def test_dropout_has_the_same_mask_in_both_passes():
    values = tf.constant(np.random.default_rng(0).normal(size=(7, 3)), tf.bfloat16)
    drop = dropout(0.4, 1, tf.constant([[4, 5]]), tf.ones([2]))
    with tf.GradientTape() as tape:
        tape.watch(values)
        dropped = drop(values, 0)
    np.testing.assert_array_equal(dropped, values * tape.gradient(dropped, values))
    assert drop(tf.zeros([0, 3]), 0).shape == (0, 3)


def test_dropout_depends_on_everything_that_it_is_given():
    given = {"seed": 1, "pieces": tf.constant([[4, 5]]), "weights": tf.ones([2])}
    others = [
        {"seed": 2},
        {"pieces": tf.constant([[5, 4]])},
        {"pieces": tf.constant([[4, 6]])},
        {"weights": tf.constant([1.0, 1.0000001])},
    ]
    values = tf.ones([1000])
    first = dropout(0.5, **given)(values, 0).numpy()
    np.testing.assert_array_equal(dropout(0.5, **given)(values, 0), first)
    for other in others:
        assert np.mean(dropout(0.5, **given | other)(values, 0).numpy() != first) > 0.4
    assert np.mean(dropout(0.5, **given)(values, 1).numpy() != first) > 0.4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dropout_takes_weights_of_every_float_type(dtype):
    drop = dropout(0.5, 1, tf.constant([4]), tf.ones([3], dtype))
    assert 300 < float(tf.reduce_sum(tf.cast(drop(tf.ones([1000], dtype), 0) > 0, tf.float32))) < 700


def test_masks_of_a_transformer_differ_from_call_to_call():
    """And are repeated with the same seed; nothing is dropped by default, nor at a rate of 0."""

    def draw():
        masks = dropout_masks(DropoutRates(0.5, 0.5), 1, tf.constant([[4, 5]]), tf.ones([2]))
        return [drop(tf.ones([1000])).numpy() for drop in (masks.residual, masks.residual, masks.attention)]

    found = draw()
    for one, other in itertools.combinations(found, 2):
        assert np.mean(one != other) > 0.4
    np.testing.assert_array_equal(draw(), found)
    rateless = dropout_masks(DropoutRates(0.5), 1, tf.constant([[4, 5]]), tf.ones([2])).activation
    for drop in (rateless, NO_DROPOUT.residual, NO_DROPOUT.attention, NO_DROPOUT.activation):
        np.testing.assert_array_equal(drop(tf.ones([1000])), np.ones(1000))
