"""Masks that are added to attention scores."""

from __future__ import annotations

import tensorflow as tf

_MASKED = -1e9  # a score whose softmax is exactly zero; finite, for rows that have no real position at all


def additive_mask(allowed: tf.Tensor, dtype: str) -> tf.Tensor:
    """What is added to scores: zero where attention is allowed, and elsewhere a large negative number.

    Args:
        allowed: Booleans of any shape.
        dtype: Of the scores.

    Example:
        >>> import tensorflow as tf
        >>> additive_mask(tf.constant([True, False]), "float32").numpy().tolist()
        [0.0, -1000000000.0]
    """
    masked = max(_MASKED, float(tf.as_dtype(dtype).min) / 2)  # float16 ends at -65504, and a score is added yet
    return tf.where(allowed, tf.zeros([], dtype), tf.constant(masked, dtype))
