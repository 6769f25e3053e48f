"""Several sentence pairs in one row of fixed length: what one would do instead of buckets, with a Transformer.

Pairs stand one after another in a row; a piece attends to its own sentence alone, and positions begin anew in each. So
one graph of static lengths takes any batch with next to no padding, for attention over the whole row. Source: Krell et
al. (2021), https://arxiv.org/abs/2107.02027.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from efficiency.batches import Batch
from efficiency.layouts import row_lengths
from efficiency.setting import Setting
from efficiency.subjects import Gradients, Model, Subject, add_shards, gradients_of
from efficiency.workloads import SIDES
from seq2split.layers.masks import additive_mask
from seq2split.layers.positional_encoding import sinusoids
from seq2split.models import TransformerDecoder, TransformerEncoder
from seq2split.models.output_projection import shifted
from seq2split.split.threads import Workers


class Rows(NamedTuple):
    """One side of packed rows.

    Attributes:
        pieces: `[rows, time]`, int32.
        segments: The number of each piece's sentence within its row, from 1; 0 for padding, likewise.
        positions: The place of each piece in its sentence, likewise.
    """

    pieces: Any
    segments: Any
    positions: Any


class Packed(Subject):
    """A Transformer over packed rows, in one graph."""

    def __init__(self, setting: Setting, model: Model | None = None):
        super().__init__(setting, model)
        self._times = row_lengths(*setting.longest)
        self._workers = Workers(setting.threads)

    def loss_and_gradients(self, batch: Batch) -> tuple[tf.Tensor, Gradients]:
        """See the base."""
        sides = pack(batch, self._times)
        rows = len(sides[0].pieces)
        size, graph = math.ceil(rows / self.setting.threads), self._graph
        shards = [[_some(side, start, start + size) for side in sides] for start in range(0, rows, size)]
        share = tf.constant(1.0 / int(batch["target"].lengths.sum()), tf.float32)
        return add_shards(self._workers, lambda shard: graph(*shard, share), shards, share)

    def build(self) -> None:
        """See the base."""
        one = [Rows(*(tf.ones([1, time], tf.int32) for _ in Rows._fields)) for time in self._times]
        self._graph(*one, tf.constant(1.0))

    @property
    def graphs(self) -> int:
        """See the base."""
        return int("_graph" in vars(self))

    @cached_property
    def _graph(self) -> Any:
        specs = [Rows(*(tf.TensorSpec([None, time], tf.int32) for _ in Rows._fields)) for time in self._times]
        return tf.function(self._joint, autograph=False).get_concrete_function(*specs, tf.TensorSpec([]))

    def _joint(self, source: Rows, target: Rows, share: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        encoder, decoder = self.layers.values()
        with tf.GradientTape() as tape:
            loss = _loss(decoder, _encoded(encoder, source), source, target)
        return loss, gradients_of(tape, loss, self.variables, share)


def pack(batch: Batch, times: tuple[int, int]) -> list[Rows]:
    """Put sentence pairs into rows, each into the last one while it has room on both sides.

    Args:
        batch: The pairs, in the order in which they are put.
        times: The length of a row on either side.

    Returns:
        The source and the target side, with the same sentences in each row.

    Example:
        >>> from seq2split.split.sequences import Sequences
        >>> field = Sequences(np.array([[7, 8], [9, 0]]), np.array([2, 1]))
        >>> [side.tolist() for side in pack({"source": field, "target": field}, (4, 4))[0]]
        [[[7, 8, 9, 0]], [[1, 1, 2, 0]], [[0, 1, 0, 0]]]
    """
    places = _places([batch[side].lengths.tolist() for side in SIDES], times)
    return [
        _put(*batch[side], places[:, [0, 1, 2 + at]], time)
        for at, (side, time) in enumerate(zip(SIDES, times, strict=True))
    ]


def _places(lengths: list[list[int]], times: tuple[int, int]) -> np.ndarray:
    """For each pair its row, its number in it from 1, and where it begins on either side, `[pairs, 4]`."""
    found, row, number, used = [], 0, 0, (0, 0)
    for pair in zip(*lengths, strict=True):
        if any(start + length > time for start, length, time in zip(used, pair, times, strict=True)):
            row, number, used = row + 1, 0, (0, 0)
        number += 1
        found.append((row, number, *used))
        used = tuple(start + length for start, length in zip(used, pair, strict=True))
    return np.array(found)


def _put(values: np.ndarray, lengths: np.ndarray, places: np.ndarray, time: int) -> Rows:
    """One side; `places [pairs, 3]` tells the row of each sentence, its number there, and its first position."""
    pair = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    row, number, start = places[pair].T
    side = Rows(*np.zeros([len(Rows._fields), places[-1, 0] + 1, time], np.int32))
    for array, found in zip(side, (values[pair, position], number, position), strict=True):
        array[row, start + position] = found
    return side


def _some(side: Rows, start: int, stop: int) -> Rows:
    return Rows(*(tf.constant(each[start:stop]) for each in side))


def _encoded(encoder: TransformerEncoder, source: Rows) -> tf.Tensor:
    """The encoder's outputs, `[rows, time, units]`."""
    values, mask = _embedded(encoder, source.pieces, source.positions), _mask(encoder, source, source)
    for layer in encoder.stack:
        values = layer(values, mask).values
    return encoder.final_norm(values)


def _loss(decoder: TransformerDecoder, encoded: tf.Tensor, source: Rows, target: Rows) -> tf.Tensor:
    """The sum of the losses of all target pieces."""
    first = target.positions == 0
    previous = tf.where(first, decoder.bos, shifted(target.pieces, decoder.bos, axis=1))
    values, across = _embedded(decoder, previous, target.positions), _mask(decoder, target, source)
    places = tf.range(target.pieces.shape[1])
    earlier = additive_mask(places[:, None] >= places, decoder.variable_dtype)
    mask = tf.minimum(_mask(decoder, target, target), earlier)
    for layer in decoder.stack:
        values = layer(values, mask, [(layer.cross_attentions[0].project_encoded(encoded), across)]).values
    features = decoder.final_norm(values)
    return decoder.output_projection.losses(features, target.pieces, target.segments > 0, False).loss


def _embedded(layer: TransformerEncoder | TransformerDecoder, pieces: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """As `PositionalEncoding.embed`, where each row has positions of its own."""
    embeddings, time = layer.embeddings.value, pieces.shape[1]
    table = sinusoids(tf.range(time), layer.units, embeddings.dtype)
    return tf.gather(embeddings, pieces) * layer.units**0.5 + tf.gather(table, positions)


def _mask(layer: TransformerEncoder | TransformerDecoder, queries: Rows, keys: Rows) -> tf.Tensor:
    """The mask `[rows, 1, queries, keys]` that keeps a piece from attending to other sentences."""
    return additive_mask(queries.segments[:, :, None] == keys.segments[:, None], layer.variable_dtype)[:, None]
