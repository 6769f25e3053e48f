"""The end of the decoders: labels shifted, losses summed over real positions, a kernel of its own or tied."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import normal

from seq2split.models.output_projection import OutputProjection, shifted


@pytest.mark.parametrize("axis", [0, 1])
def test_shifted(axis):
    labels = np.array([[7, 8, 3], [5, 3, 0]])
    expected = np.array([[2, 7, 8], [2, 5, 3]])
    labels, expected = (each if axis else each.T for each in (labels, expected))
    np.testing.assert_array_equal(shifted(tf.constant(labels), 2, axis), expected)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_losses_are_those_of_the_logits(tied, training):
    """Of real positions alone; smoothed in training."""
    layer = keras.Layer(dtype="float64", autocast=False)
    embeddings = layer.add_weight(shape=(5, 3), initializer=lambda shape, dtype: normal(*shape, seed=1))
    projection = OutputProjection(layer, embeddings, 3, tied=tied, label_smoothing=0.2)
    assert (projection.kernel is embeddings) == tied
    projection.bias.assign(normal(5, seed=2))
    features, labels = normal(2, 3, 3, seed=3), np.array([[0, 4, 1], [2, 0, 0]])
    real = np.array([[True, True, True], [True, False, False]])
    likelihoods = tf.nn.log_softmax(projection.logits(tf.reshape(features, [-1, 3]))).numpy().reshape(2, 3, 5)[real]
    losses = projection.losses(features, tf.constant(labels), tf.constant(real), training)
    targets = np.eye(5)[labels[real]]
    np.testing.assert_allclose(losses.nll, -(targets * likelihoods).sum(), rtol=1e-12)
    targets = 0.8 * targets + 0.2 / 5 if training else targets
    np.testing.assert_allclose(losses.loss, -(targets * likelihoods).sum(), rtol=1e-12)
