"""Greedy search: the likeliest piece at each step, for a batch of sentences at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np
import tensorflow as tf

from seq2split.carry import Sequences
from seq2split.model import SplitModel
from seq2split.models import Decoder
from seq2split.partition import Part


class GreedySearch:
    """Searches with a model of encoders and a decoder.

    An encoder runs once for each sentence, in the part graph of its bucket; the decoder's `start` and `step` are parts
    of their own, built once for any number of rows and any memory length.

    Args:
        model: The model.
        encoders: The names of its encoders, in the order in which the decoder reads them.
        decoder: The layer of its decoder.
        eos: The piece that ends a sentence.
        limit: The most pieces of a result.
    """

    def __init__(self, model: SplitModel, encoders: Sequence[str], decoder: Decoder, *, eos: int, limit: int):
        self._model, self._encoders, self._bos, self._eos, self._limit = model, encoders, decoder.bos, eos, limit
        self._start, self._step = Part(decoder.start), Part(decoder.step)
        self._graphs: tuple | None = None
        self._building = Lock()

    def __call__(self, batch: Mapping[str, Sequences]) -> list[np.ndarray]:
        """Searches for a batch.

        Args:
            batch: For each field that an encoder reads pieces `[rows, time]` and lengths `[rows]`, of any lengths that
                the encoder has buckets for.

        Returns:
            For each row the pieces before the end-of-sentence piece, int32; all `limit` of them where none came.
        """
        encoded = [self._model.infer(batch, encoder) for encoder in self._encoders]
        start, step = self._built()
        memories, state = start.infer(*encoded)
        pieces = np.full([len(next(iter(batch.values())).lengths)], self._bos, np.int32)
        found, running = [], np.ones(len(pieces), bool)
        while running.any() and len(found) < self._limit:
            logits, state = step.infer(memories, state, pieces)
            pieces = tf.argmax(logits, axis=-1, output_type=tf.int32).numpy()
            found.append(pieces)
            running &= pieces != self._eos
        return [self._cut(row) for row in np.stack(found, axis=1)]

    def _built(self) -> tuple:
        with self._building:  # searches may run in threads
            if self._graphs is None:
                start = self._start.build(*map(self._model.boundary, self._encoders), trace=("infer",))
                memories, state = start.output_specs
                step = self._step.build(memories, state, tf.TensorSpec([None], tf.int32), trace=("infer",))
                self._graphs = start, step
        return self._graphs

    def _cut(self, row: np.ndarray) -> np.ndarray:
        ends = np.flatnonzero(row == self._eos)
        return row[: ends[0]] if len(ends) else row
