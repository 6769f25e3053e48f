"""What hypotheses are ranked by, and how long they may be.

A finished hypothesis `Y` of a source `X` is ranked by the score of Wu et al. (2016), https://arxiv.org/abs/1609.08144,
equation 14:

    log P(Y | X) / ((5 + |Y|) / 6) ** length_penalty  +  coverage * sum_i log(min(sum_j p_ij, 1))

where `p_ij` is the attention of target piece j on source position i, and `|Y|` counts the end of the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from seq2split.search.options import SearchOptions

_LEAST_ATTENTION = 1e-9  # a position without any has a penalty, and not an infinite one


def length_divisor(length: int, options: SearchOptions) -> float:
    """Return what the log-probability of a hypothesis is divided by.

    Args:
        length: The number of its pieces, its end included.
        options: How to search.

    Returns:
        The divisor, from 1 upwards: it never shrinks with the length.

    Example:
        >>> length_divisor(7, SearchOptions(length_penalty=1.0))
        2.0
    """
    return ((5 + length) / 6) ** options.length_penalty


def coverage_penalties(attention: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the sum over source positions of the logarithm of the attention that they got, at most 1.

    Args:
        attention: For each encoder the attention that its positions got so far, `[rows, time]`, float32; 1 at padding.

    Returns:
        The penalties, at most 0, `[rows]`, float32.
    """
    return tf.add_n([tf.reduce_sum(tf.math.log(tf.clip_by_value(each, _LEAST_ATTENTION, 1)), 1) for each in attention])


def length_bounds(source_lengths: np.ndarray, max_length: int, options: SearchOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return the fewest and the most pieces of each sentence's hypotheses.

    Args:
        source_lengths: The lengths of the sources, `[sentences]`; as all lengths here, with the end of the sentence.
        max_length: The most pieces of any hypothesis.
        options: How to search.

    Returns:
        The fewest and the most, each `[sentences]`, from 1 to `max_length`.

    Example:
        >>> length_bounds(np.array([2, 10]), 12, SearchOptions(min_length_ratio=0.25, max_length_ratio=1.5))
        (array([1, 3]), array([ 3, 12]))
    """
    least, most = (
        np.round(ratio * source_lengths, 9) for ratio in (options.min_length_ratio, options.max_length_ratio or np.inf)
    )  # 1.1 * 50 is 55.00000000000001
    most = np.clip(np.floor(most), 1, max_length).astype(int)
    return np.clip(np.ceil(least), 1, most).astype(int), most
