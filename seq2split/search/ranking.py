"""Ranks the continuations of hypotheses, as TensorFlow operations of a step's graph.

Of each sentence the `beam` likeliest continuations are looked at: those that end are finished, and the `beam` likeliest
of those that don't are followed. All that are compared have the same length, so their log-probabilities alone count.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Continuations(NamedTuple):
    """The likeliest continuations of each sentence's hypotheses, by one piece.

    Attributes:
        pieces: The next pieces of those that are followed, `[sentences, beam]`, int32, the likeliest first.
        parents: The hypotheses that they continue, counted within the sentence, `[sentences, beam]`, int32.
        log_probabilities: Their log-probabilities, `[sentences, beam]`, float32; minus infinity where there are fewer.
        ended_parents: The hypotheses that the likeliest continuations of all continue, `[sentences, beam]`, int32.
        ended_log_probabilities: The log-probabilities of those that end, `[sentences, beam]`, float32; minus infinity
            of those that don't.
    """

    pieces: Any
    parents: Any
    log_probabilities: Any
    ended_parents: Any
    ended_log_probabilities: Any


def rank_continuations(
    logits: tf.Tensor, log_probabilities: tf.Tensor, may_end: tf.Tensor, beam: tf.Tensor, eos: int
) -> Continuations:
    """Pick the likeliest continuations of each sentence's hypotheses.

    Args:
        logits: The logits of each hypothesis's next piece, `[sentences * width, vocabulary]`.
        log_probabilities: The log-probabilities of the hypotheses, `[sentences, width]`, float32; minus infinity at a
            place that holds none.
        may_end: True for the sentences that may end with this piece, `[sentences]`.
        beam: The number of continuations to pick, int32.
        eos: The piece that ends a sentence.

    Returns:
        The continuations; fewer than `beam` where there are not so many.
    """
    width, so_far = tf.shape(log_probabilities)[1], tf.reshape(log_probabilities, [-1, 1])
    # At most `beam` continuations of one hypothesis can be followed, and one ends: the others need no look.
    count = tf.minimum(beam + 1, tf.shape(logits)[1])
    likeliest, pieces = tf.math.top_k(logits, count)
    likeliest -= tf.reduce_logsumexp(logits, -1, keepdims=True)
    totals = so_far + tf.cast(likeliest, so_far.dtype)
    totals = tf.where(so_far == -np.inf, -np.inf, totals)  # predictions where there is no hypothesis may be NaN
    totals, pieces = (tf.reshape(each, [-1, width * count]) for each in (totals, pieces))
    ends = pieces == eos
    totals = tf.where(ends & ~may_end[:, None], -np.inf, totals)
    beam = tf.minimum(beam, width * count)
    best, places = tf.math.top_k(totals, beam)
    ended = tf.where(tf.gather(ends, places, batch_dims=1), best, -np.inf)
    following, onward = tf.math.top_k(tf.where(ends, -np.inf, totals), beam)
    return Continuations(tf.gather(pieces, onward, batch_dims=1), onward // count, following, places // count, ended)
