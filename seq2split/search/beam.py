"""Beam search: the likeliest translations of a batch of sentences, a few hypotheses of each followed at once.

An encoder runs once for each sentence. A step then is one call of one graph: it puts the decoder's state in the order
of the hypotheses that survived, predicts, and picks the next ones; only pieces and scores leave it. Which hypotheses
have ended, and which sentences are done, is kept track of with numpy.

At each step the `beam` likeliest continuations of a sentence are looked at: those that end are finished, and the
`beam` likeliest of those that don't are followed. A sentence is done when as many hypotheses are finished as the beam
is wide, or when none that is followed can still come to rank among those that are wanted; it then leaves the batch.
Finished hypotheses are ranked by the score of Wu et al. (2016), https://arxiv.org/abs/1609.08144, equation 14:

    log P(Y | X) / ((5 + |Y|) / 6) ** length_penalty  +  coverage * sum_i log(min(sum_j p_ij, 1))

where `p_ij` is the attention of target piece j on source piece i, and `|Y|` counts the end of the sentence. While a
hypothesis is followed, its log-probability alone counts, as all that it is compared with have its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seq2split.config.settings import SearchConfig
from seq2split.engine.part import Part, PartGraph
from seq2split.models import RecurrentDecoder
from seq2split.split.model import SplitModel
from seq2split.split.sequences import Sequences

Nest = Any
_unconverted = tf.autograph.experimental.do_not_convert
_ROWS = 8  # sentences leave the batch by so many: kernels are compiled for each number of rows
_LEAST_ATTENTION = 1e-9  # a piece without any has a penalty, and not an infinite one


class Hypothesis(NamedTuple):
    """A translation that was found.

    Attributes:
        pieces: Those before the end of the sentence, `[pieces]`, int32.
        score: What hypotheses are ranked by.
        log_probability: Of the pieces, and of the end of the sentence if it was reached, in nats.
    """

    pieces: np.ndarray
    score: float
    log_probability: float


class BeamSearch:
    """Searches with a model of encoders and a decoder.

    The encoders run in the part graphs of their buckets. The decoder's `start` and `step` become parts of their own,
    built once for any number of rows, any memory length and any beam. Of the decoder's state every leaf has rows as its
    first axis; of its memories likewise sentences, each of which serves as many rows as the beam is wide.

    Args:
        model: The model.
        encoders: The names of its encoders, in the order in which the decoder reads them.
        decoder: The layer of its decoder: anything with `bos`, `start` and `step` as `RecurrentDecoder` has them, and for
            coverage `step_with_weights`.
        eos: The piece that ends a sentence.
        limit: The most pieces of a hypothesis, its end included.

    Example:
        >>> import seq2split as s2s
        >>> from seq2split.models import RecurrentEncoder
        >>> encoder, decoder = RecurrentEncoder(50, 4, 8, name="encoder"), RecurrentDecoder(50, 8, 2, 4, 8, name="decoder")
        >>> model = s2s.SplitModel([
        ...     s2s.Node(s2s.Part(encoder), ["source"], s2s.Buckets([4])),
        ...     s2s.Node(s2s.Part(decoder), ["encoder", "target"], s2s.Buckets([6])),
        ... ])
        >>> search = BeamSearch(model, ["encoder"], decoder, eos=3, limit=6)
        >>> batch = {"source": Sequences(np.array([[7, 8, 3], [9, 3, 0]], np.int32), np.array([3, 2], np.int32))}
        >>> found = search(batch, SearchConfig(beam=4), n_best=2)
        >>> [len(hypotheses) for hypotheses in found], found[0][0].score >= found[0][1].score
        ([2, 2], True)
    """

    def __init__(self, model: SplitModel, encoders: Sequence[str], decoder: RecurrentDecoder, *, eos: int, limit: int):
        self._model, self._encoders, self._decoder = model, encoders, decoder
        self._eos, self._limit = eos, limit
        self._graphs: dict[bool, tuple[PartGraph, PartGraph]] = {}
        self._building = Lock()

    @property
    def traces(self) -> int:
        """How many times the Python code of its parts has been traced: twice, and again with coverage."""
        return sum(graph.part.traces for graphs in self._graphs.values() for graph in graphs)

    def __call__(
        self, batch: Mapping[str, Sequences], settings: SearchConfig | None = None, n_best: int = 1
    ) -> list[list[Hypothesis]]:
        """Searches for a batch.

        Args:
            batch: For each field that an encoder reads pieces `[rows, time]` and lengths `[rows]`, of any lengths that
                the encoder has buckets for.
            settings: How to search; by default as a configuration that says nothing of it. With a beam of 1 this is
                greedy search.
            n_best: The most hypotheses that are wanted of a sentence, at most the beam.

        Returns:
            For each row its hypotheses, no two of the same pieces, the best first: as many as are wanted, or as ended
            within the limit. Where none did they are those that it cut off.

        Raises:
            ValueError: The settings contradict themselves, or ask for weights that the decoder does not give.
        """
        settings = settings or SearchConfig()
        check(settings, n_best)
        encoded = [self._model.infer(batch, encoder) for encoder in self._encoders]
        start, step = self._built(settings.coverage > 0)
        memories, state = start.infer(*encoded)
        ledger = _Ledger(_lengths(batch), self._decoder.bos, self._limit, settings, n_best)
        while True:
            found = step.infer(memories, state, *ledger.inputs(), np.int32(settings.beam))
            state = found.state
            ledger.note(_Found(None, *(each.numpy() for each in found[1:])))
            if ledger.done.all():
                return ledger.results()
            if (kept := ledger.compact()) is not None:
                memories = tf.nest.map_structure(partial(tf.gather, indices=kept), memories)

    def _built(self, coverage: bool) -> tuple[PartGraph, PartGraph]:
        with self._building:  # searches may run in threads
            if coverage not in self._graphs:
                self._graphs[coverage] = self._build(coverage)
            return self._graphs[coverage]

    def _build(self, coverage: bool) -> tuple[PartGraph, PartGraph]:
        if coverage and not hasattr(self._decoder, "step_with_weights"):
            raise ValueError(
                f"coverage needs attention weights, but {type(self._decoder).__name__} has no step_with_weights that "
                "returns them; set coverage to 0."
            )
        start = Part(partial(self._start, coverage), name="start", variables=[])
        step = Part(partial(self._step, coverage), name="step", variables=[])
        starting = start.build(*map(self._model.output_specs, self._encoders), trace=("infer",))
        memories, state = tf.nest.map_structure(_any_rows, starting.output_specs)
        beams = [tf.TensorSpec([None, None], dtype) for dtype in (tf.int32, tf.int32, tf.float32)]
        others = tf.TensorSpec([None], tf.bool), tf.TensorSpec([], tf.int32)
        return starting, step.build(memories, state, *beams, *others, trace=("infer",))

    @_unconverted
    def _start(self, coverage: bool, *encoded: Nest) -> tuple[Nest, Nest]:
        """The memories, and the state: the decoder's, and what attention each position has got so far."""
        memories, state = self._decoder.start(*encoded)
        return memories, (state, tuple(_padding(each.memory) for each in encoded) if coverage else ())

    @_unconverted
    def _step(
        self,
        coverage: bool,
        memories: Nest,
        state: Nest,
        origins: tf.Tensor,
        pieces: tf.Tensor,
        scores: tf.Tensor,
        may_end: tf.Tensor,
        beam: tf.Tensor,
    ) -> _Found:
        """One step of all hypotheses.

        Args:
            coverage: Whether attention is added up.
            memories: Of each sentence.
            state: After the step before.
            origins: Which row of it each hypothesis continues, `[sentences, width]`.
            pieces: The last piece of each, likewise.
            scores: The log-probability of each, likewise.
            may_end: Which sentences may end with this piece, `[sentences]`.
            beam: How many hypotheses to look at.

        Returns:
            What was found.
        """
        state, attended = tf.nest.map_structure(partial(tf.gather, indices=tf.reshape(origins, [-1])), state)
        logits, state, attended = self._predict(memories, state, attended, tf.reshape(pieces, [-1]), coverage)
        # Of one hypothesis at most `beam` can be followed, and one end: more of its continuations need no look.
        count = tf.minimum(beam + 1, tf.shape(logits)[1])
        likeliest, continuations = tf.math.top_k(logits, count)
        likeliest -= tf.reduce_logsumexp(logits, -1, keepdims=True)
        width = tf.shape(scores)[1]
        totals = tf.reshape(scores, [-1, 1]) + tf.cast(likeliest, scores.dtype)
        totals, continuations = (tf.reshape(each, [-1, width * count]) for each in (totals, continuations))
        ends = continuations == self._eos
        totals = tf.where(ends & ~may_end[:, None], -np.inf, totals)
        beam = tf.minimum(beam, width * count)
        best, places = tf.math.top_k(totals, beam)
        ended = tf.where(tf.gather(ends, places, batch_dims=1), best, -np.inf)
        best, onward = tf.math.top_k(tf.where(ends, -np.inf, totals), beam)
        following = tf.gather(continuations, onward, batch_dims=1)
        penalties = tf.reshape(_penalties(attended, logits), [-1, width])
        return _Found((state, attended), following, onward // count, best, places // count, ended, penalties)

    def _predict(
        self, memories: Nest, state: Nest, attended: tuple[tf.Tensor, ...], pieces: tf.Tensor, coverage: bool
    ) -> tuple[tf.Tensor, Nest, tuple[tf.Tensor, ...]]:
        if not coverage:
            return *self._decoder.step(memories, state, pieces), ()
        logits, state, weights = self._decoder.step_with_weights(memories, state, pieces)
        return logits, state, tuple(a + tf.cast(w, a.dtype) for a, w in zip(attended, weights, strict=True))


class _Found(NamedTuple):
    """What a step finds.

    Attributes:
        state: After the step, a row for each hypothesis that it began with.
        pieces: The next piece of those that are followed, `[sentences, beam]`, the likeliest first.
        parents: Which hypothesis each of them continues, counted within its sentence, likewise.
        scores: Their log-probabilities, likewise; minus infinity where there are not so many.
        ended_parents: Which hypotheses the likeliest continuations continue, likewise.
        ended: The log-probabilities of those continuations that end, likewise; minus infinity of the others.
        penalties: Of the attention so far, for each hypothesis that the step began with, `[sentences, width]`.
    """

    state: Nest
    pieces: Any
    parents: Any
    scores: Any
    ended_parents: Any
    ended: Any
    penalties: Any


class _Frontier(NamedTuple):
    """The hypotheses that are followed, of each sentence that is still in the batch.

    Attributes:
        sentences: Which these are, `[rows]`.
        origins: Which row of the decoder's state each hypothesis continues, `[rows, width]`.
        pieces: Its last piece, likewise.
        scores: Its log-probability, likewise; minus infinity where there are not so many.
        prefixes: All its pieces, `[rows, width, length]`.
    """

    sentences: np.ndarray
    origins: np.ndarray
    pieces: np.ndarray
    scores: np.ndarray
    prefixes: np.ndarray


class _Ledger:
    """The hypotheses of a batch: those that are followed, and those that are finished.

    Args:
        lengths: Of each source, its end included, `[sentences]`.
        bos: The piece that stands before the first.
        limit: The most pieces of a hypothesis.
        settings: How to search.
        n_best: How many hypotheses of a sentence are wanted.

    Attributes:
        done: Which sentences need no further step, `[sentences]`.
    """

    def __init__(self, lengths: np.ndarray, bos: int, limit: int, settings: SearchConfig, n_best: int):
        self._settings, self._n_best, count = settings, n_best, len(lengths)
        self._least, self._most = bounds(lengths, limit, settings)
        self._finished: list[list[Hypothesis]] = [[] for _ in lengths]
        self.done = np.zeros(count, bool)
        begin = np.zeros([count, 1], np.int32)
        rows = np.arange(count, dtype=np.int32)
        self._frontier = _Frontier(
            rows, rows[:, None], begin + bos, begin.astype(np.float32), begin[..., None][..., :0]
        )

    def inputs(self) -> tuple[np.ndarray, ...]:
        """What the next step takes: origins, pieces, scores, and which sentences may end."""
        sentences, origins, pieces, scores, prefixes = self._frontier
        return origins, pieces, scores, prefixes.shape[-1] + 1 >= self._least[sentences]

    def note(self, found: _Found) -> None:
        """Takes what a step found."""
        sentences, _, _, _, prefixes = self._frontier
        rows, width = np.arange(len(sentences), dtype=np.int32)[:, None], found.penalties.shape[1]
        parents, length = found.ended_parents, prefixes.shape[-1] + 1
        self._finish(length, found.ended, prefixes[rows, parents], found.penalties[rows, parents])
        parents = found.parents
        prefixes = np.concatenate([prefixes[rows, parents], found.pieces[..., None]], -1)
        self._frontier = _Frontier(sentences, rows * width + parents, found.pieces, found.scores, prefixes)
        unended = (length == self._most[sentences]) & [not self._finished[sentence] for sentence in sentences]
        cut = np.where(unended[:, None], found.scores, -np.inf)
        self._finish(length, cut, prefixes, found.penalties[rows, parents])
        self.done[sentences] |= [self._is_done(*each) for each in zip(sentences, found.scores.max(1), strict=True)]

    def compact(self) -> np.ndarray | None:
        """Takes sentences that are done out of the batch; returns the rows of those that stay, if any leave."""
        done = self.done[self._frontier.sentences]
        size = -(-np.count_nonzero(~done) // _ROWS) * _ROWS
        if size >= len(done):
            return None
        kept = np.sort(np.argsort(done, kind="stable")[:size])
        self._frontier = _Frontier(*(each[kept] for each in self._frontier))
        return kept

    def results(self) -> list[list[Hypothesis]]:
        """The best finished hypotheses of each sentence, the best first."""
        return [sorted(each, key=lambda found: -found.score)[: self._n_best] for each in self._finished]

    def _finish(self, length: int, likelihoods: np.ndarray, pieces: np.ndarray, penalties: np.ndarray) -> None:
        """Adds hypotheses with a log-probability, `[rows, beam]`, to the finished ones of sentences not done."""
        sentences = self._frontier.sentences
        scores = likelihoods / length_penalty(length, self._settings) + self._settings.coverage * penalties
        for row, place in zip(*np.nonzero(np.isfinite(scores) & ~self.done[sentences, None]), strict=True):
            hypothesis = Hypothesis(pieces[row, place], float(scores[row, place]), float(likelihoods[row, place]))
            self._finished[sentences[row]].append(hypothesis)

    def _is_done(self, sentence: int, likeliest: float) -> bool:
        """Whether a sentence whose likeliest unfinished hypothesis is as likely as that needs no further step."""
        finished, length, most = self._finished[sentence], self._frontier.prefixes.shape[-1], self._most[sentence]
        if len(finished) >= self._settings.beam or length >= most:
            return True
        # No further piece makes it likelier, and none that is wanted can have a larger divisor.
        reachable = likeliest / length_penalty(most, self._settings)
        wanted = sorted((each.score for each in finished), reverse=True)[: self._n_best]
        return (wanted[-1] if len(wanted) == self._n_best else -np.inf) >= reachable


def length_penalty(length: int, settings: SearchConfig) -> float:
    """What the log-probability of a hypothesis of so many pieces, its end included, is divided by."""
    return ((5 + length) / 6) ** settings.length_penalty


def check(settings: SearchConfig, n_best: int = 1) -> None:
    """Checks what was asked of a search.

    Args:
        settings: How to search.
        n_best: How many hypotheses of a sentence are wanted.

    Raises:
        ValueError: No search is possible so; the message says what to change.
    """
    if settings.beam < 1:
        raise ValueError(f"a beam of {settings.beam} follows nothing; expected at least 1, which is greedy search.")
    if not 1 <= n_best <= settings.beam:
        raise ValueError(
            f"{n_best} translations of a sentence were asked for, of a beam of {settings.beam}; expected at least 1 "
            "and no more than the beam: ask for fewer, or widen the beam."
        )
    for name in ("length_penalty", "coverage", "min_length_ratio", "max_length_ratio"):
        value = getattr(settings, name)
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} is {value}; expected a number, at least 0.")
    if settings.max_length_ratio and settings.min_length_ratio > settings.max_length_ratio:
        raise ValueError(
            f"min_length_ratio is {settings.min_length_ratio}, above a max_length_ratio of "
            f"{settings.max_length_ratio}; lower the one or raise the other, or set max_length_ratio to 0 for no bound."
        )


def bounds(lengths: np.ndarray, limit: int, settings: SearchConfig) -> tuple[np.ndarray, np.ndarray]:
    """The fewest and the most pieces of a translation.

    Args:
        lengths: Of the sources, `[sentences]`; as all lengths here, with the end of the sentence.
        limit: The most pieces of any translation.
        settings: How to search.

    Returns:
        The fewest and the most of each, `[sentences]`, from 1 to `limit`.

    Example:
        >>> bounds(np.array([2, 10]), 12, SearchConfig(min_length_ratio=0.25, max_length_ratio=1.5))
        (array([1, 3]), array([ 3, 12]))
    """
    least, most = (
        np.round(ratio * lengths, 9) for ratio in (settings.min_length_ratio, settings.max_length_ratio or np.inf)
    )  # 1.1 * 50 is 55.00000000000001
    most = np.clip(np.floor(most), 1, limit).astype(int)
    return np.clip(np.ceil(least), 1, most).astype(int), most


def _lengths(batch: Mapping[str, Sequences]) -> np.ndarray:
    """The lengths of the sources; of several of a sentence the longest."""
    return np.max([sequences.lengths for sequences in batch.values()], axis=0)


def _any_rows(spec: tf.TensorSpec) -> tf.TensorSpec:
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)


def _padding(memory: Sequences) -> tf.Tensor:
    """One at each position that needs no attention, and zero elsewhere, `[rows, time]`."""
    return 1 - tf.sequence_mask(memory.lengths, tf.shape(memory.values)[1], tf.float32)


def _penalties(attended: tuple[tf.Tensor, ...], logits: tf.Tensor) -> tf.Tensor:
    """The sum over source positions of the logarithm of the attention that they got, at most 1, `[rows]`."""
    if not attended:
        return tf.zeros(tf.shape(logits)[:1])
    return tf.add_n([tf.reduce_sum(tf.math.log(tf.clip_by_value(each, _LEAST_ATTENTION, 1)), 1) for each in attended])
