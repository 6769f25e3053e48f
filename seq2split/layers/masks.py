"""Masks that are added to attention scores: zero where attention is allowed, a large negative number elsewhere."""

from __future__ import annotations

import tensorflow as tf

_MASKED = -1e9  # a score whose softmax is exactly zero; finite, for rows that have no real position at all


def additive_mask(allowed: tf.Tensor, dtype: str) -> tf.Tensor:
    """Return zero where attention is allowed, and elsewhere a large negative number.

    Args:
        allowed: Booleans of any shape.
        dtype: The dtype of the scores.

    Example:
        >>> import tensorflow as tf
        >>> additive_mask(tf.constant([True, False]), "float32").numpy().tolist()
        [0.0, -1000000000.0]
    """
    masked = max(_MASKED, float(tf.as_dtype(dtype).min) / 2)  # float16 ends at -65504, and a score is added yet
    return tf.where(allowed, tf.zeros([], dtype), tf.constant(masked, dtype))


def padding_mask(lengths: tf.Tensor, time: int | tf.Tensor, dtype: str) -> tf.Tensor:
    """Return the mask that keeps padding from being attended to.

    Args:
        lengths: The real positions of each row, `[rows]`, integers.
        time: The padded length.
        dtype: The dtype of the scores.

    Returns:
        `[rows, 1, 1, time]`, for scores `[rows, heads, queries, time]`.
    """
    return additive_mask(tf.sequence_mask(lengths, time)[:, None, None], dtype)


def causal_mask(time: int | tf.Tensor, dtype: str) -> tf.Tensor:
    """Return the mask `[time, time]` that keeps a position from attending to later ones."""
    positions = tf.range(time)
    return additive_mask(positions[:, None] >= positions, dtype)
