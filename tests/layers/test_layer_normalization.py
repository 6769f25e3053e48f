"""Layer normalization against Keras."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from seq2split.layers import LayerNormalization


def test_normalization_equals_keras():
    rng = np.random.default_rng(0)
    ours, theirs = LayerNormalization(dtype="float64"), keras.layers.LayerNormalization(epsilon=1e-6, dtype="float64")
    values, weights = (tf.constant(rng.normal(size=[3, 4, 5])) for _ in range(2))
    results = []
    for layer in (ours, theirs):
        layer.build((None, None, 5))
        for place, variable in enumerate(layer.trainable_variables):
            variable.assign(np.random.default_rng(place).normal(size=5))
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = tf.reduce_sum(layer(values) * weights)
        sources = [values, *(variable.value for variable in layer.trainable_variables)]
        results.append([loss, *tape.gradient(loss, sources)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
