"""The ranking of continuations: against a sort of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from seq2split.search.ranking import rank_continuations

EOS = 1


def ranked(logits, log_probabilities, may_end, beam):
    found = rank_continuations(
        tf.constant(logits.reshape(-1, logits.shape[-1])),
        tf.constant(log_probabilities),
        tf.constant(may_end),
        tf.constant(beam),
        EOS,
    )
    return type(found)(*(each.numpy() for each in found))


def sorted_continuations(logits, log_probabilities, may_end):
    """Log-probability, parent and piece of each possible continuation of one sentence, the likeliest first."""
    likelihoods = logits - np.log(np.exp(logits).sum(-1, keepdims=True)) + log_probabilities[:, None]
    every = [(likelihoods[place], *place) for place in np.ndindex(likelihoods.shape)]
    return sorted((each for each in every if np.isfinite(each[0]) and (may_end or each[2] != EOS)), reverse=True)


@pytest.mark.parametrize("beam", [1, 3, 50])
def test_ranking_equals_a_sort(beam):
    """Also at places that hold no hypothesis, and where a sentence may not end yet."""
    draw = np.random.default_rng(2)
    logits = draw.normal(size=[4, 3, 6]).astype(np.float32)
    logits[..., EOS] += 1
    so_far = -draw.random([4, 3]).astype(np.float32)
    so_far[1, 1] = so_far[2, :2] = -np.inf
    logits[1, 1] = np.nan
    may_end = np.array([True, True, True, False])
    found = ranked(logits, so_far, may_end, beam)
    assert np.isfinite(found.ended_log_probabilities).any()
    for row in range(4):
        with np.errstate(invalid="ignore"):
            expected = sorted_continuations(logits[row], so_far[row], may_end[row])
        following = [each for each in expected if each[2] != EOS][:beam]
        count = len(following)
        np.testing.assert_allclose(found.log_probabilities[row, :count], [each[0] for each in following], rtol=1e-5)
        assert np.all(found.log_probabilities[row, count:] == -np.inf)
        assert found.parents[row, :count].tolist() == [parent for _, parent, _ in following]
        assert found.pieces[row, :count].tolist() == [piece for _, _, piece in following]
        ended = [(parent, total) for total, parent, piece in expected[:beam] if piece == EOS]
        places = np.isfinite(found.ended_log_probabilities[row])
        assert found.ended_parents[row, places].tolist() == [parent for parent, _ in ended]
        totals = found.ended_log_probabilities[row, places]
        np.testing.assert_allclose(totals, [total for _, total in ended], rtol=1e-5)
