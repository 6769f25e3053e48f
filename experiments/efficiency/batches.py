"""Padded batches: looked up, made up, and dealt out to threads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from efficiency.layouts import ROW_MULTIPLE
from efficiency.workloads import SIDES
from seq2split.buckets import batch_rows, pad_rows
from seq2split.corpus.corpus import Corpus
from seq2split.split.sequences import Sequences

Batch = dict[str, Sequences]
Shard = tuple[np.ndarray, int, int]
"""Row numbers of a batch, and the source and the target length that they are padded to."""


def batch_of(corpus: Corpus, rows: Sequence[int]) -> Batch:
    """The pieces of some rows, padded to the longest of them."""
    fields = {side: [each[row] for row in rows] for side, each in corpus.fields.items()}
    lengths = {side: np.array([len(row) for row in field], np.int32) for side, field in fields.items()}
    return {side: Sequences(pad_rows(field, int(lengths[side].max())), lengths[side]) for side, field in fields.items()}


def full_batch(source: int, target: int, tokens: int, vocabulary: int) -> Batch:
    """A batch of random pieces without padding, of as many rows as the budget holds."""
    random = np.random.default_rng(0)
    rows = batch_rows(tokens, source + target, ROW_MULTIPLE)
    return {
        side: Sequences(random.integers(4, vocabulary, [rows, time]).astype(np.int32), np.full(rows, time, np.int32))
        for side, time in zip(SIDES, (source, target), strict=True)
    }


def one_row(source: int, target: int) -> Batch:
    """A batch of one row of full length."""
    return {
        side: Sequences(np.full([1, time], 4, np.int32), np.array([time], np.int32))
        for side, time in zip(SIDES, (source, target), strict=True)
    }


def tokens_of(batch: Batch) -> int:
    """Real pieces of both sides."""
    return int(sum(field.lengths.sum() for field in batch.values()))


def deal(source: np.ndarray, target: np.ndarray, threads: int) -> list[Shard]:
    """Group the rows of a batch by their padded lengths, and cuts what is more than one thread's share.

    So all subjects have as much to run at once as `SplitModel`, which deals out the rows of a batch likewise.

    Args:
        source: The padded source length of each row, `[rows]`.
        target: Likewise.
        threads: How many run at once.

    Returns:
        The shards, the dearest first.

    Example:
        >>> shards = deal(np.full(24, 3), np.full(24, 4), threads=2)
        >>> [(len(rows), source, target) for rows, source, target in shards]
        [(12, 3, 4), (12, 3, 4)]
    """
    total, shards = int(source.sum() + target.sum()), []
    for pair in sorted(set(zip(source.tolist(), target.tolist(), strict=True))):
        rows = np.flatnonzero((source == pair[0]) & (target == pair[1]))
        pieces = math.ceil(threads * sum(pair) * len(rows) / total - 1e-6)
        size = math.ceil(len(rows) / pieces / ROW_MULTIPLE) * ROW_MULTIPLE
        shards += [(rows[start : start + size], *pair) for start in range(0, len(rows), size)]
    return sorted(shards, key=lambda shard: -len(shard[0]) * (shard[1] + shard[2]))


def padded(batch: Batch, rows: np.ndarray, source: int, target: int) -> tuple[Sequences, Sequences]:
    """Some rows of a batch, padded to given lengths, as tensors."""
    fields = []
    for side, time in zip(SIDES, (source, target), strict=True):
        values, lengths = batch[side]
        wide = np.zeros([len(rows), time], np.int32)
        width = min(time, values.shape[1])
        wide[:, :width] = values[rows, :width]
        fields.append(Sequences(tf.constant(wide), tf.constant(lengths[rows])))
    return tuple(fields)
