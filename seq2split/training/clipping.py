"""Scaling gradients down to a global norm (Pascanu et al., 2013, https://arxiv.org/abs/1211.5063)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def global_norm(gradients: Sequence[tf.Tensor | None], each: Callable = map) -> tf.Tensor:
    """Return the root of the sum of all squares.

    Args:
        gradients: Dense gradients; `None` counts for nothing.
        each: A function that calls another for each item, as `map` does.

    Returns:
        A scalar.

    Example:
        >>> float(global_norm([tf.constant([3.0]), None, tf.constant([[4.0]])]))
        5.0
    """
    present = [gradient for gradient in gradients if gradient is not None]
    squares = list(each(tf.nn.l2_loss, present)) or [tf.zeros([])]
    return tf.sqrt(2.0 * tf.add_n([tf.cast(square, squares[0].dtype) for square in squares]))


def clip_scale(norm: tf.Tensor, most: float) -> tf.Tensor:
    """Return what gradients of a global norm are multiplied by so that it is at most `most`; 0 is no bound.

    Example:
        >>> float(clip_scale(tf.constant(5.0), 1.0)), float(clip_scale(tf.constant(5.0), 0.0))
        (0.20000000298023224, 1.0)
    """
    return most / tf.maximum(norm, most) if most else tf.ones_like(norm)
