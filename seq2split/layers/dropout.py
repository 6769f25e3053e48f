"""Dropout without a state: its masks are drawn from a seed, the pieces of the batch and the weights.

Keras's dropout counts its draws in a variable. Groups of a batch that run at once in threads race for it, so that no
run could be repeated. Here the masks of a group are a function of what the group is given: other rows have others, and
so have the same rows once an update has moved the weights; nothing has to be saved to resume.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import tensorflow as tf

_INTEGERS = {2: tf.int16, 4: tf.int32, 8: tf.int64}
_SCRAMBLE = 2654435761  # Knuth's multiplier (The Art of Computer Programming, volume 3, section 6.4)
_PRIME = 2**31 - 1


def dropout(rate: float, seed: int, pieces: tf.Tensor, weights: tf.Tensor) -> Callable[[tf.Tensor, int], tf.Tensor]:
    """Draws the masks of one group of rows.

    Args:
        rate: Share of the values that becomes zero; the others are scaled up to keep the sum on average.
        seed: Of all masks.
        pieces: The pieces of the group, integers of any shape.
        weights: Trainable weights, few but such as every update moves.

    Returns:
        A function of values and the number of the mask; another number is another mask.

    Example:
        >>> import tensorflow as tf
        >>> drop = dropout(0.5, 1, tf.constant([[4, 7]]), tf.zeros([3]))
        >>> dropped = drop(tf.ones([100]), 0)
        >>> sorted(set(dropped.numpy().tolist())), bool(tf.reduce_all(dropped == drop(tf.ones([100]), 0)))
        ([0.0, 2.0], True)
    """
    if not rate:
        return lambda values, _: values
    bits = tf.bitcast(weights, _INTEGERS[weights.dtype.size])
    drawn = (_digest(pieces) + _digest(bits)) % _PRIME
    return lambda values, mask: tf.nn.experimental.stateless_dropout(values, rate, tf.stack([seed + mask, drawn]))


def chosen_seed(given: int | None) -> int:
    """A seed: the one that is given, or a new one, which `random.seed` repeats."""
    return random.randrange(2**31) if given is None else given


def _digest(integers: tf.Tensor) -> tf.Tensor:
    """One number for all, of which each depends on its place."""
    flat = tf.cast(tf.reshape(integers, [-1]), tf.int64)
    places = (tf.range(1, tf.size(flat, tf.int64) + 1) * _SCRAMBLE) % _PRIME
    return tf.reduce_sum(flat * places % _PRIME)
