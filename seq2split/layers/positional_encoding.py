"""Positional encodings: what tells a Transformer the order of its inputs.

Source: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, sections 3.4 and 3.5.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.layers.embeddings import add_embeddings


class PositionalEncoding(NamedTuple):
    """The encodings of positions, learned or sinusoidal.

    Attributes:
        table: The learned ones, `[max_length, units]`; `None` for sinusoids.
    """

    table: keras.Variable | None

    @classmethod
    def of(cls, layer: keras.Layer, kind: str, max_length: int, units: int) -> PositionalEncoding:
        """Make the encoding of a layer, and add its weight to the layer.

        Args:
            layer: The layer.
            kind: `sinusoidal` or `learned`.
            max_length: The number of positions that can be learned.
            units: The size of an encoding.

        Returns:
            The encoding.

        Raises:
            ValueError: There is no such kind.
        """
        check_choice(f"{type(layer).__name__}: positions", kind, ("sinusoidal", "learned"))
        learned = kind == "learned"
        return cls(add_embeddings(layer, max_length, units, "position_embeddings") if learned else None)

    def embed(self, embeddings: tf.Tensor, pieces: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Add the encodings of positions to the scaled embeddings of pieces.

        Args:
            embeddings: The embeddings of all pieces, `[vocabulary, units]`.
            pieces: The pieces, `[rows, time]`, integers.
            positions: Their positions, `[time]`, integers.

        Returns:
            `[rows, time, units]`, in the dtype of the embeddings.
        """
        units = embeddings.shape[1]
        values = tf.gather(embeddings, pieces) * tf.constant(units**0.5, embeddings.dtype)
        if self.table is None:
            return values + sinusoids(positions, units, embeddings.dtype)
        scale = tf.constant(units**0.5, embeddings.dtype)
        return values + tf.gather(self.table.value, positions) * scale


def sinusoids(positions: tf.Tensor, units: int, dtype: str) -> tf.Tensor:
    """Return the sinusoidal encodings of positions, all sines first, then all cosines, as in tensor2tensor.

    Args:
        positions: `[positions]`, integers.
        units: The size of an encoding.
        dtype: The dtype of the result.

    Returns:
        `[positions, units]`.

    Example:
        >>> import tensorflow as tf
        >>> sinusoids(tf.constant([0]), 4, "float32").numpy().tolist()
        [[0.0, 0.0, 1.0, 1.0]]
    """
    half = (units + 1) // 2
    rates = tf.exp(tf.range(half, dtype=dtype) * tf.constant(-9.210340371976184 / max(1, half - 1), dtype))
    angles = tf.cast(positions, dtype)[:, None] * rates
    return tf.concat([tf.sin(angles), tf.cos(angles)], 1)[:, :units]
