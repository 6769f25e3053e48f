"""The bookkeeping of live and finished hypotheses."""

from __future__ import annotations

import numpy as np
import pytest

from seq2split.search import SearchOptions
from seq2split.search.decoder_graphs import StepResult
from seq2split.search.hypotheses import FinishedHypotheses, Hypotheses, LiveHypotheses
from seq2split.search.ranking import Continuations

BOS = 2


def test_continued_hypotheses():
    """The pieces follow their parents, and so do the rows of the state."""
    live = LiveHypotheses.first(2, BOS)
    assert (live.length, live.state_rows.tolist(), live.pieces.tolist()) == (0, [[0], [1]], [[[BOS]], [[BOS]]])
    zeros, totals = np.zeros([2, 2], np.int32), np.zeros([2, 2], np.float32)
    live = live.continued(zeros, np.array([[5, 6], [7, 8]], np.int32), totals)
    live = live.continued(np.array([[1, 0], [1, 1]], np.int32), np.array([[9, 9], [4, 5]], np.int32), totals)
    assert live.length == 2
    assert live.state_rows.tolist() == [[1, 0], [3, 3]]
    assert live.pieces[..., 1:].tolist() == [[[6, 9], [5, 9]], [[8, 4], [8, 5]]]
    assert live.kept(np.array([1])).pieces.tolist() == live.pieces[1:].tolist()


def test_finished_hypotheses():
    finished = FinishedHypotheses(3, n_best=2, options=SearchOptions(length_penalty=1.0, coverage=0.5))
    pieces = np.array([[[BOS, 5], [BOS, 6]], [[BOS, 7], [BOS, 8]]], np.int32)
    likelihoods, penalties = np.array([[-3.0, -2.0], [-np.inf, -1.0]]), np.array([[-1.0, -4.0], [np.nan, 0.0]])
    finished.add(np.array([2, 0]), pieces, 7, likelihoods, penalties)  # of 7 pieces: a divisor of 2
    assert [finished.count(sentence) for sentence in range(3)] == [1, 0, 2]
    assert [finished.score_to_beat(sentence) for sentence in range(3)] == [-np.inf, -np.inf, -3.0]
    found = [[(each.pieces.tolist(), each.score, each.log_probability) for each in best] for best in finished.best()]
    assert found == [[([8], -0.5, -1.0)], [], [([5], -2.0, -3.0), ([6], -3.0, -2.0)]]


def add_one(finished, piece, score):
    """Add one hypothesis of one piece to the only sentence."""
    finished.add(np.array([0]), np.array([[[BOS, piece]]], np.int32), 1, np.array([[score]]), np.zeros([1, 1]))


def test_of_those_that_are_the_same_the_best_is_kept():
    """Here they are by the remainder of their piece. All count for the beam; different ones are wanted."""
    options = SearchOptions(beam=2, length_penalty=0.0)
    finished = FinishedHypotheses(1, 2, options, lambda pieces: int(pieces[0]) % 10)
    for piece, score in ((15, -3.0), (25, -2.0), (35, -4.0)):
        assert not finished.is_full(0)
        add_one(finished, piece, score)
    assert (finished.count(0), finished.is_full(0), finished.score_to_beat(0)) == (3, False, -np.inf)
    assert [each.pieces.tolist() for each in finished.best()[0]] == [[25]]
    add_one(finished, 6, -5.0)
    assert (finished.is_full(0), finished.score_to_beat(0)) == (True, -5.0)
    assert [each.pieces.tolist() for each in finished.best()[0]] == [[25], [6]]


def test_the_best_does_not_depend_on_how_many_are_wanted():
    """With a full beam a sentence goes on only for want of different ones; one that is better then comes too late."""
    for n_best in (1, 2):
        finished = FinishedHypotheses(1, n_best, SearchOptions(beam=2, length_penalty=0.0), lambda _: 0)
        add_one(finished, 5, -3.0)
        add_one(finished, 6, -2.0)
        add_one(finished, 7, -1.0)
        assert [each.pieces.tolist() for each in finished.best()[0]] == [[6]]


def step_of(ended, sentences, beam=1):
    """A result in which some rows end, with a log-probability that no longer hypothesis can reach."""
    zeros = np.zeros([sentences, beam])
    found = Continuations(
        np.full([sentences, beam], 5, np.int32), zeros.astype(int), zeros - 9, zeros.astype(int), zeros - np.inf
    )
    found.ended_log_probabilities[ended] = -0.1
    return StepResult((), found, zeros, zeros)


def test_sentences_leave_by_eights():
    """Those that are done go first; what stays keeps its order."""
    hypotheses = Hypotheses(np.full(20, 3), BOS, 4, 1, SearchOptions(beam=1))
    hypotheses.update(step_of([], 20))
    assert hypotheses.drop_done() is None
    hypotheses.update(step_of([0, 3, 19], 20))
    assert hypotheses.drop_done() is None, "17 that stay take 24 rows"
    hypotheses.update(step_of([7], 20))
    rows = hypotheses.drop_done()
    assert rows.tolist() == [at for at in range(20) if at not in (0, 3, 7, 19)]
    assert not hypotheses.done
    assert [each.shape[0] for each in hypotheses.step_inputs()] == [16] * 4
    hypotheses.update(step_of([], 16))  # as long as allowed: the rest is cut off
    assert hypotheses.done
    best = hypotheses.best()
    assert [len(best[sentence][0].pieces) for sentence in (0, 3, 19, 7, 1, 18)] == [1, 1, 1, 2, 4, 4]
    assert {len(each) for each in best} == {1}


def test_a_sentence_that_is_done_may_diverge():
    """It stays in the batch until eight can leave, but nobody asks for more of it."""
    hypotheses = Hypotheses(np.full(2, 3), BOS, 4, 1, SearchOptions(beam=1))
    hypotheses.update(step_of([0], 2))
    result = step_of([], 2)
    result.normalizers[0] = np.nan
    hypotheses.update(result)
    result.normalizers[1] = np.nan
    with pytest.raises(FloatingPointError, match=r"the decoder's logits for 1 of 2 sentences .* after 2 pieces"):
        hypotheses.update(result)
