"""The hypotheses of a batch of sentences: which are live, which are finished, and which sentences are done."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np

from seq2split.search.decoder_graphs import StepResult
from seq2split.search.options import SearchOptions
from seq2split.search.scoring import length_bounds, length_divisor

_ROWS = 8  # sentences leave the batch by so many: kernels are compiled for each number of rows


class Hypothesis(NamedTuple):
    """An output that was found.

    Attributes:
        pieces: The pieces before the end of the sentence, `[pieces]`, int32.
        score: What hypotheses are ranked by, the higher the better.
        log_probability: The log-probability of the pieces, and of the end of the sentence if it was reached, in nats.
    """

    pieces: np.ndarray
    score: float
    log_probability: float


class LiveHypotheses(NamedTuple):
    """The hypotheses that are followed, of each sentence that is still in the batch.

    Attributes:
        sentences: The numbers of these sentences, `[rows]`.
        state_rows: For each hypothesis the row of the decoder's state that it continues, `[rows, width]`, int32.
        pieces: Its pieces, the first of them the one that stands before all, `[rows, width, 1 + length]`, int32.
        log_probabilities: Its log-probability, `[rows, width]`, float32; minus infinity at a place that holds none.
    """

    sentences: np.ndarray
    state_rows: np.ndarray
    pieces: np.ndarray
    log_probabilities: np.ndarray

    @classmethod
    def first(cls, sentences: int, bos: int) -> LiveHypotheses:
        """Return one empty hypothesis for each of so many sentences."""
        rows = np.arange(sentences, dtype=np.int32)
        return cls(rows, rows[:, None], np.full([sentences, 1, 1], bos, np.int32), np.zeros([sentences, 1], np.float32))

    @property
    def length(self) -> int:
        """The number of pieces that each has."""
        return self.pieces.shape[-1] - 1

    def pieces_of(self, parents: np.ndarray) -> np.ndarray:
        """Return the pieces of chosen hypotheses, counted within their sentences, `[rows, beam, 1 + length]`."""
        return np.take_along_axis(self.pieces, parents[..., None], 1)

    def continued(self, parents: np.ndarray, pieces: np.ndarray, log_probabilities: np.ndarray) -> LiveHypotheses:
        """Return hypotheses one piece longer; `ranking.Continuations` explains the arguments."""
        first_rows = np.arange(len(self.sentences), dtype=np.int32)[:, None] * self.pieces.shape[1]
        longer = np.concatenate([self.pieces_of(parents), pieces[..., None]], -1)
        return LiveHypotheses(self.sentences, first_rows + parents, longer, log_probabilities)

    def kept(self, rows: np.ndarray) -> LiveHypotheses:
        """Return those of chosen rows alone."""
        return LiveHypotheses(*(each[rows] for each in self))


Identity = Callable[[np.ndarray], Hashable]


class FinishedHypotheses:
    """The finished hypotheses of each sentence, of those that are the same to the user the best.

    Args:
        sentences: The number of sentences.
        n_best: The number of hypotheses that are wanted of each.
        options: How to search.
        identity: A function of pieces; two hypotheses with the same result are the same to the user.
    """

    def __init__(self, sentences: int, n_best: int, options: SearchOptions, identity: Identity = np.ndarray.tobytes):
        self._found: list[dict[Hashable, Hypothesis]] = [{} for _ in range(sentences)]
        self._counts = np.zeros(sentences, int)
        self._n_best, self._options, self._identity = n_best, options, identity

    def add(
        self,
        sentences: np.ndarray,
        pieces: np.ndarray,
        length: int,
        log_probabilities: np.ndarray,
        penalties: np.ndarray,
    ) -> None:
        """Add hypotheses.

        A sentence that has as many as the beam is wide goes on only for want of different ones. Its best is settled
        then, so that it doesn't depend on how many are wanted: a better one comes too late.

        Args:
            sentences: The sentence of each row, `[rows]`.
            pieces: As in `LiveHypotheses`, without the end of the sentence, `[rows, beam, 1 + pieces]`.
            length: The number of pieces, the end included where it was reached.
            log_probabilities: Their log-probabilities, `[rows, beam]`; minus infinity at a place that holds none.
            penalties: Their coverage penalties, `[rows, beam]`.
        """
        scores = log_probabilities / length_divisor(length, self._options) + self._options.coverage * penalties
        limits = [self._best_score(each) if self._counts[each] >= self._options.beam else np.inf for each in sentences]
        for row, place in zip(*np.nonzero(np.isfinite(log_probabilities)), strict=True):
            if scores[row, place] <= limits[row]:
                found = pieces[row, place, 1:], float(scores[row, place]), float(log_probabilities[row, place])
                self._keep(sentences[row], Hypothesis(*found))

    def _keep(self, sentence: int, hypothesis: Hypothesis) -> None:
        self._counts[sentence] += 1
        kept, key = self._found[sentence], self._identity(hypothesis.pieces)
        if key not in kept or hypothesis.score > kept[key].score:
            kept[key] = hypothesis

    def count(self, sentence: int) -> int:
        """Return how many a sentence has, those among them that are the same to the user."""
        return int(self._counts[sentence])

    def is_full(self, sentence: int) -> bool:
        """Return whether a sentence has as many as the beam is wide, and as many different ones as are wanted."""
        return self.count(sentence) >= self._options.beam and len(self._found[sentence]) >= self._n_best

    def score_to_beat(self, sentence: int) -> float:
        """Return the score of the worst of the n best; minus infinity while there are fewer."""
        scores = sorted((each.score for each in self._found[sentence].values()), reverse=True)
        return scores[self._n_best - 1] if len(scores) >= self._n_best else -np.inf

    def best(self) -> list[list[Hypothesis]]:
        """Return the n best of each sentence, the best first."""
        return [sorted(each.values(), key=lambda found: -found.score)[: self._n_best] for each in self._found]

    def _best_score(self, sentence: int) -> float:
        return max(each.score for each in self._found[sentence].values())


class Hypotheses:
    """All hypotheses of a batch, from step to step.

    A sentence is done when as many of its hypotheses are finished as the beam is wide and as many different ones as are
    wanted, or when no live one can still enter the n-best.

    Args:
        source_lengths: The lengths of the sources, their ends included, `[sentences]`.
        bos: The piece that stands before the first.
        max_length: The most pieces of a hypothesis, its end included.
        n_best: The number of hypotheses that are wanted of each sentence.
        options: How to search.
        identity: See `FinishedHypotheses`.
    """

    def __init__(
        self,
        source_lengths: np.ndarray,
        bos: int,
        max_length: int,
        n_best: int,
        options: SearchOptions,
        identity: Identity = np.ndarray.tobytes,
    ):
        self._options = options
        self._least, self._most = length_bounds(source_lengths, max_length, options)
        self._live = LiveHypotheses.first(len(source_lengths), bos)
        self._finished = FinishedHypotheses(len(source_lengths), n_best, options, identity)
        self._done = np.zeros(len(source_lengths), bool)

    @property
    def done(self) -> bool:
        """True if no sentence needs another step."""
        return bool(self._done.all())

    def step_inputs(self) -> tuple[np.ndarray, ...]:
        """Return what the next step takes after context and state, as `DecoderGraphs.step` does, but for the beam."""
        live = self._live
        may_end = live.length + 1 >= self._least[live.sentences]
        return live.state_rows, live.pieces[..., -1], live.log_probabilities, may_end

    def update(self, result: StepResult) -> None:
        """Take what a step found.

        Args:
            result: What it returned, the tensors as numpy arrays; its state is not read.

        Raises:
            FloatingPointError: The decoder's logits or weights are not finite.
        """
        self._check_finite("logits", result.normalizers)
        self._check_finite("attention weights", result.coverage_penalties)
        before, found, length = self._live, result.continuations, self._live.length + 1
        sentences, following = before.sentences, found.log_probabilities
        self._live = before.continued(found.parents, found.pieces, following)

        ended = np.where(self._done[sentences, None], -np.inf, found.ended_log_probabilities)
        penalties = np.take_along_axis(result.coverage_penalties, found.ended_parents, 1)
        self._finished.add(sentences, before.pieces_of(found.ended_parents), length, ended, penalties)

        none_ended = [self._finished.count(sentence) == 0 for sentence in sentences]
        cut_off = (length == self._most[sentences]) & none_ended
        penalties = np.take_along_axis(result.coverage_penalties, found.parents, 1)
        cut = np.where(cut_off[:, None], following, -np.inf)
        self._finished.add(sentences, self._live.pieces, length, cut, penalties)

        self._done[sentences] |= [self._is_done(*each) for each in zip(sentences, following.max(1), strict=True)]

    def drop_done(self) -> np.ndarray | None:
        """Take sentences that are done out of the batch; return the rows of those that stay, if any leave."""
        done = self._done[self._live.sentences]
        size = -(-np.count_nonzero(~done) // _ROWS) * _ROWS
        if size >= len(done):
            return None
        rows = np.sort(np.argsort(done, kind="stable")[:size])
        self._live = self._live.kept(rows)
        return rows

    def best(self) -> list[list[Hypothesis]]:
        """Return the n best finished hypotheses of each sentence, the best first.

        Raises:
            ValueError: A sentence has none, as the decoder gives no sequence a probability.
        """
        best = self._finished.best()
        missing = [sentence for sentence, found in enumerate(best) if not found]
        if missing:
            raise ValueError(
                f"nothing was found for {len(missing)} of {len(best)} sentences: the decoder gives no probability to "
                f"any hypothesis of {self._least[missing[0]]} to {self._most[missing[0]]} pieces, the bounds of the "
                "first of them. Let its logits forbid less, or change the bounds."
            )
        return best

    def _is_done(self, sentence: int, likeliest: float) -> bool:
        """True if no live hypothesis, the likeliest of which has this log-probability, can still enter the n-best."""
        length, most = self._live.length, self._most[sentence]
        if self._finished.is_full(sentence) or length >= most:
            return True
        # No further piece makes it likelier, and none that is wanted can have a larger divisor.
        reachable = likeliest / length_divisor(most, self._options)
        return self._finished.score_to_beat(sentence) >= reachable

    def _check_finite(self, what: str, values: np.ndarray) -> None:
        """Check values of each live hypothesis, `[rows, width]`: nothing can be ranked by NaN."""
        live = self._live
        followed = np.isfinite(live.log_probabilities) & ~self._done[live.sentences, None]
        wrong = np.any(followed & ~np.isfinite(values), 1)
        if wrong.any():
            raise FloatingPointError(
                f"the decoder's {what} for {np.count_nonzero(wrong)} of {len(wrong)} sentences are not finite after "
                f"{live.length} pieces: NaN, infinity, or minus infinity for every piece. Weights that diverged in "
                "training give such; restore earlier ones, or mend the decoder."
            )
