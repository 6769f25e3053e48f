"""Random arrays and weights, and how results are compared, for the tests of layers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

FLOATS = ["float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"]


def normal(*shape, seed=0, dtype="float64"):
    return tf.cast(np.random.default_rng(seed).normal(size=shape), dtype)


def randomize(layer):
    """Make biases random too, so that none hides behind zeros."""
    for seed, variable in enumerate(layer.trainable_variables):
        variable.assign(normal(*variable.shape, seed=100 + seed, dtype=variable.dtype) * 0.5)
    return layer


def assert_close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max(initial=0)))
