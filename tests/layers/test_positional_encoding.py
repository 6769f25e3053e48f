"""Positional encodings against their formula."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2split.layers.positional_encoding import PositionalEncoding, sinusoids


def test_sinusoids_are_those_of_the_paper():
    """Sines of place / 10000^(i / (units / 2 - 1)), then cosines, as in tensor2tensor."""
    found = sinusoids(tf.constant([0, 3, 50]), 6, "float64").numpy()
    for row, place in enumerate((0, 3, 50)):
        angles = [place / 10000 ** (i / 2) for i in range(3)]
        np.testing.assert_allclose(found[row], [*np.sin(angles), *np.cos(angles)], atol=1e-12)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_encodings_are_added_to_scaled_embeddings(kind):
    layer = keras.Layer()
    encoding, table = PositionalEncoding.of(layer, kind, 9, 4), tf.reshape(tf.range(12.0), [3, 4])
    found = encoding.embed(table, tf.constant([[2, 0]]), tf.constant([5, 6]))
    learned = kind == "learned"
    assert len(layer.trainable_variables) == learned
    added = encoding.table.numpy()[[5, 6]] * 2 if learned else sinusoids(tf.constant([5, 6]), 4, "float32")
    np.testing.assert_allclose(found[0], table.numpy()[[2, 0]] * 2 + added, rtol=1e-6)
