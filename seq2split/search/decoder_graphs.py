"""The part graphs of a decoder in a search: its start, and one step of all hypotheses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from seq2split.engine.part import Part
from seq2split.engine.signature import describe
from seq2split.models import attended_positions, require
from seq2split.search.ranking import Continuations, rank_continuations
from seq2split.search.scoring import coverage_penalties

Nest = Any
_unconverted = tf.autograph.experimental.do_not_convert


class StepResult(NamedTuple):
    """What a step returns.

    Attributes:
        state: The state after the step, with a row for each hypothesis that it began with.
        continuations: The likeliest continuations of these hypotheses.
        normalizers: The logarithms of the sums of their exponentiated logits, `[sentences, width]`, float32.
        coverage_penalties: The penalties of the attention so far, `[sentences, width]`, float32; zeros where none is
            added up.
    """

    state: Nest
    continuations: Continuations
    normalizers: Any
    coverage_penalties: Any


class DecoderGraphs:
    """The part graphs of a decoder's start and step, for any number of sentences, any source length and any beam.

    Args:
        decoder: The decoder.
        encoded: The specs of what each encoder returns, by the encoder's name, in the order in which the decoder reads
            them.
        eos: The piece that ends a sentence.
        coverage: Whether attention is added up.

    Attributes:
        start: Takes what the encoders returned; returns the decoder's context, and its state with the attention that
            source positions got so far.
        step: Takes the context; the state; the state's rows, last pieces and log-probabilities of the hypotheses to
            continue, each `[sentences, width]`; which sentences may end, `[sentences]`; and the beam. Returns a
            `StepResult`.

    Raises:
        ValueError: The decoder lacks a method, or does not return what it should; or no encoder's padding is known.
    """

    def __init__(self, decoder: Any, encoded: Mapping[str, Nest], *, eos: int, coverage: bool):
        self._decoder, self._encoders, self._eos, self._coverage = decoder, list(encoded), eos, coverage
        for name in ("bos", "start", "step"):
            require(decoder, name, "a search")
        if coverage:
            require(decoder, "step_with_weights", "coverage")
        self.start = Part(self._start, name="start", variables=[]).build(*encoded.values(), trace=("infer",))
        context, state = (self._any_rows(each) for each in self.start.output_specs)
        hypotheses = [tf.TensorSpec([None, None], dtype) for dtype in (tf.int32, tf.int32, tf.float32)]
        others = tf.TensorSpec([None], tf.bool), tf.TensorSpec([], tf.int32)
        step = Part(self._step, name="step", variables=[])
        self.step = step.build(context, state, *hypotheses, *others, trace=("infer",))

    @property
    def traces(self) -> int:
        """The number of times that the Python code of both has been traced."""
        return self.start.traces + self.step.traces

    @_unconverted
    def _start(self, *encoded: Nest, training: bool = False) -> tuple[Nest, Nest]:  # false: a search trains nothing
        context, state = self._decoder.start(*encoded)
        attention = tuple(map(_padding, self._encoders, encoded)) if self._coverage else ()
        return context, (state, attention)

    @_unconverted
    def _step(
        self,
        context: Nest,
        state: Nest,
        state_rows: tf.Tensor,
        pieces: tf.Tensor,
        log_probabilities: tf.Tensor,
        may_end: tf.Tensor,
        beam: tf.Tensor,
        training: bool = False,
    ) -> StepResult:
        rows = tf.reshape(state_rows, [-1])
        state, attention = tf.nest.map_structure(partial(tf.gather, indices=rows), state)
        logits, state, attention = self._predict(context, state, attention, tf.reshape(pieces, [-1]))
        continuations = rank_continuations(logits, log_probabilities, may_end, beam, self._eos)
        normalizers = tf.cast(tf.reduce_logsumexp(logits, -1), tf.float32)
        penalties = coverage_penalties(attention) if self._coverage else tf.zeros_like(normalizers)
        by_sentence = (tf.reshape(each, tf.shape(pieces)) for each in (normalizers, penalties))
        return StepResult((state, attention), continuations, *by_sentence)

    def _predict(
        self, context: Nest, state: Nest, attention: tuple[tf.Tensor, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, Nest, tuple[tf.Tensor, ...]]:
        """Return the logits of the next pieces, the state, and the attention with this step's added."""
        if not self._coverage:
            logits, state = self._decoder.step(context, state, pieces)
            self._check_logits(logits, "step")
            return logits, state, ()
        logits, state, weights = self._decoder.step_with_weights(context, state, pieces)
        self._check_logits(logits, "step_with_weights")
        self._check_weights(weights)
        return logits, state, tuple(a + tf.cast(w, a.dtype) for a, w in zip(attention, weights, strict=True))

    def _check_logits(self, logits: tf.Tensor, method: str) -> None:
        shape = logits.shape
        if shape.rank not in (None, 2):
            raise ValueError(
                f"{type(self._decoder).__name__}.{method} returned logits of shape {shape.as_list()}; expected "
                "[rows, vocabulary], those of one next piece for each row."
            )
        if shape.rank and shape[1] is not None and not 0 <= self._eos < shape[1]:
            raise ValueError(
                f"{type(self._decoder).__name__}.{method} returned logits of {shape[1]} pieces, numbered from 0, but "
                f"the end of a sentence is piece {self._eos}: no hypothesis could end. Give the eos of its vocabulary."
            )

    def _check_weights(self, weights: Sequence[tf.Tensor]) -> None:
        if len(weights) != len(self._encoders) or any(each.shape.rank not in (None, 2) for each in weights):
            raise ValueError(
                f"{type(self._decoder).__name__}.step_with_weights returned weights {describe(weights)}; expected for "
                f"each of {self._encoders} one tensor [rows, time]."
            )

    def _any_rows(self, specs: Nest) -> Nest:
        for spec in tf.nest.flatten(specs):
            if not spec.shape.rank:
                raise ValueError(
                    f"{type(self._decoder).__name__}.start returned {describe(specs)}; expected a context and a state "
                    "whose every tensor has rows as its first axis: repeat what is the same for all rows."
                )
        return tf.nest.map_structure(lambda spec: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype), specs)


def _padding(name: str, encoded: Nest) -> tf.Tensor:
    """Return the attention before the first step: one at padding, which needs none, `[rows, time]`, float32."""
    try:
        sequences = attended_positions(encoded)
    except ValueError as error:
        message = f"coverage needs the lengths of what encoder {name!r} returned; or set coverage to 0. {error}"
        raise ValueError(message) from error
    time = tf.shape(tf.nest.flatten(sequences.values)[0])[1]
    return 1 - tf.sequence_mask(sequences.lengths, time, tf.float32)
