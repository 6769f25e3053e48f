"""Clipping against TensorFlow's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from seq2split.split.threads import Workers
from seq2split.training.clipping import clip_scale, global_norm


def make_gradients():
    random = np.random.default_rng(1)
    return [tf.constant(random.normal(size=shape)) for shape in ((3, 4), (5,), ())]


@pytest.mark.parametrize("most", [0.5, 4.0, 100.0])
def test_equals_tensorflows(most):
    gradients = make_gradients()
    expected, expected_norm = tf.clip_by_global_norm(gradients, most)
    norm = global_norm([None, *gradients, None], Workers(2).each)
    assert float(norm) == pytest.approx(float(expected_norm), rel=1e-14)
    for gradient, clipped in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient * clip_scale(norm, most), clipped, rtol=1e-14)


def test_no_bound():
    assert float(clip_scale(tf.constant(1e30), 0.0)) == 1.0


def test_no_gradients():
    assert float(global_norm([])) == float(global_norm([None])) == 0.0


def test_gradients_of_different_dtypes():
    assert float(global_norm([tf.constant([3.0]), tf.constant([4.0], tf.float64)])) == 5.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(bad):
    norm = global_norm([tf.constant([1.0, bad])])
    assert not math.isfinite(float(norm))
