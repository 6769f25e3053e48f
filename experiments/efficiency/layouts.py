"""The ways of cutting a corpus into padded batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from efficiency import workloads
from efficiency.workloads import SIDES
from seq2split.buckets import Buckets, batch_rows, merge_small
from seq2split.corpus.batch_plan import BatchPlan
from seq2split.corpus.corpus import Corpus

ROW_MULTIPLE = 2
GROUP_OVERHEAD = 8
_ROW = 64  # the shortest packed row


@dataclass(frozen=True)
class Layout:
    """The padded lengths that a way of batching gives to each sentence pair, and its batches.

    Attributes:
        source: The padded source length of each pair, `[pairs]`.
        target: Likewise.
        batches: The row numbers of each batch of one epoch.
    """

    source: np.ndarray
    target: np.ndarray
    batches: list[np.ndarray]

    def padding(self, corpus: Corpus) -> float:
        """The share of the padded positions of an epoch that hold no piece."""
        real = sum(int(corpus.lengths[side].sum()) for side in SIDES)
        return 1.0 - real / int(self.source.sum() + self.target.sum())

    def sample(self, count: int) -> tuple[list[np.ndarray], list[float]]:
        """Batches that stand for the epoch: a systematic sample of those of one padded size, and one of the others.

        Args:
            count: How many, at least one of either kind; all, where there are no more.

        Returns:
            The batches, and how many of the epoch each stands for.
        """
        pure = [rows for rows in self.batches if self._is_pure(rows)]
        mixed = [rows for rows in self.batches if not self._is_pure(rows)]
        share = round(count * len(mixed) / len(self.batches))
        few = min(max(share, bool(mixed)), max(1, count - bool(pure)))
        kinds = [(pure, max(1, count - few)), (mixed, few)]
        drawn = [(each, self._middles(each, number)) for each, number in kinds if each]
        weights = [len(each) / len(middles) for each, middles in drawn for _ in middles]
        return [rows for _, middles in drawn for rows in middles], weights

    def _middles(self, batches: list[np.ndarray], count: int) -> list[np.ndarray]:
        """The middles of `count` equal stretches of the batches in the order of their padded size."""
        order = sorted(batches, key=lambda rows: (self._size(rows), int(self.source[rows].sum()), rows[0]))
        return [order[int((at + 0.5) * len(order) / count)] for at in range(count)] if count < len(order) else order

    def _is_pure(self, rows: np.ndarray) -> bool:
        return all(np.ptp(lengths[rows]) == 0 for lengths in (self.source, self.target))

    def _size(self, rows: np.ndarray) -> float:
        """Padded positions of a row on average; batches have about as many positions, and the longer fewer rows."""
        return float(self.source[rows].mean() + self.target[rows].mean())


def lay_out(name: str, workload: str, count: int, tokens: int) -> Layout:
    """Cut a workload into batches.

    Args:
        name: A key of `LAYOUTS`.
        workload: A name that `workloads.load` knows.
        count: Buckets of a side.
        tokens: Budget of a batch in padded positions of both sides.

    Returns:
        An epoch of it.
    """
    return LAYOUTS[name](workload, count, tokens)


def diagonal_pairs(workload: str, count: int) -> list[tuple[int, int]]:
    """Buckets that bound both sides at once, each as long on either side as its longest sentence there."""
    source, target = (workloads.load(workload).lengths[side] for side in SIDES)
    member = _diagonal_members(source, target, count)
    return [(int(source[member == at].max()), int(target[member == at].max())) for at in range(member.max() + 1)]


def _diagonal_members(source: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    longest = np.maximum(source, target)
    return Buckets.fit(longest, count).assign(longest)


def _bucketed(mode: str) -> Callable[[str, int, int], Layout]:
    def cut(workload: str, count: int, tokens: int) -> Layout:
        corpus, buckets = workloads.load(workload), workloads.fit(workload, count)
        batches = BatchPlan(corpus.lengths, buckets, mode=mode, tokens=tokens, row_multiple=ROW_MULTIPLE).epoch(0)
        padded = [buckets[side].padded(corpus.lengths[side]) for side in SIDES]
        for rows in batches:
            for each in padded:
                each[rows] = merge_small(each[rows], GROUP_OVERHEAD)
        return Layout(*padded, batches)

    return cut


def _diagonal(workload: str, count: int, tokens: int) -> Layout:
    corpus = workloads.load(workload)
    member = _diagonal_members(*(corpus.lengths[side] for side in SIDES), count)
    source, target = np.array(diagonal_pairs(workload, count)).T
    return _cut(source[member], target[member], member, tokens)


def _padded(workload: str, count: int, tokens: int) -> Layout:
    corpus = workloads.load(workload)
    source, target = (np.full(len(corpus), corpus.lengths[side].max()) for side in SIDES)
    return _cut(source, target, np.zeros(len(corpus), int), tokens)


def _sorted(workload: str, count: int, tokens: int) -> Layout:
    """Neighbours by (target, source) length, each batch padded to its own longest."""
    corpus = workloads.load(workload)
    lengths = {side: corpus.lengths[side] for side in SIDES}
    order, batches, start = np.lexsort((lengths["source"], lengths["target"])), [], 0
    source, target = (np.empty(len(corpus), int) for _ in SIDES)
    while start < len(order):
        longest = [np.maximum.accumulate(lengths[side][order[start : start + tokens]]) for side in SIDES]
        costs = np.arange(1, len(longest[0]) + 1) * (longest[0] + longest[1])
        rows = order[start : start + max(1, int(np.searchsorted(costs, tokens, side="right")))]
        source[rows], target[rows] = (lengths[side][rows].max() for side in SIDES)
        batches.append(rows)
        start += len(rows)
    return Layout(source, target, batches)


def row_lengths(longest_source: int, longest_target: int) -> tuple[int, int]:
    """The lengths of a packed row, which hold the longest sentences and no less than `_ROW`."""
    return tuple(max(_ROW, -(-longest // 16) * 16) for longest in (longest_source, longest_target))


def _packed(workload: str, count: int, tokens: int) -> Layout:
    """Rows of several sentence pairs each, filled by the first fit of decreasing lengths."""
    corpus = workloads.load(workload)
    lengths = np.stack([corpus.lengths[side] for side in SIDES], 1)
    times = np.array(row_lengths(*lengths.max(0)))
    row = _first_fit(lengths, times)
    padded, unused = lengths.copy(), np.tile(times, (row.max() + 1, 1))
    np.subtract.at(unused, row, lengths)
    _, firsts = np.unique(row, return_index=True)
    padded[firsts] += unused  # the padding of a row counts for its first pair
    order, size = np.random.default_rng(0).permutation(len(unused)), max(1, tokens // int(times.sum()))
    members = np.split(np.argsort(row, kind="stable"), np.cumsum(np.bincount(row))[:-1])
    batches = [
        np.concatenate([members[each] for each in order[start : start + size]]) for start in range(0, len(order), size)
    ]
    return Layout(*padded.T, batches)


def _first_fit(lengths: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The row of each pair of `lengths [pairs, 2]`, the longest placed first, each into the first row with room."""
    free, row = np.tile(times, (len(lengths), 1)), np.empty(len(lengths), int)
    for pair in np.argsort(-(lengths / times).max(1), kind="stable"):
        row[pair] = np.argmax((free >= lengths[pair]).all(1))
        free[row[pair]] -= lengths[pair]
    return row


def _cut(source: np.ndarray, target: np.ndarray, member: np.ndarray, tokens: int) -> Layout:
    """Shuffled batches of rows of one bucket each."""
    order, batches = np.random.default_rng(0).permutation(len(source)), []
    for bucket in np.unique(member):
        rows = order[member[order] == bucket]
        size = batch_rows(tokens, int(source[rows[0]] + target[rows[0]]), ROW_MULTIPLE)
        batches += [rows[start : start + size] for start in range(0, len(rows), size)]
    return Layout(source, target, batches)


LAYOUTS: dict[str, Callable[[str, int, int], Layout]] = {
    "homogeneous": _bucketed("homogeneous"),
    "mixed": _bucketed("mixed"),
    "diagonal": _diagonal,
    "sorted": _sorted,
    "padded": _padded,
    "packed": _packed,
}
"""Batches of one bucket pair; of any; of one diagonal bucket; of neighbours in length; all padded to the longest; of
rows that hold several pairs."""

_OTHERS = {
    "split-mixed": "mixed",
    "joint-pairs-mixed": "mixed",
    "diagonal": "diagonal",
    "dynamic": "sorted",
    "torch": "sorted",
    "padded": "padded",
    "packed": "packed",
    "torch-compile": "sorted",
    "torch-passive": "sorted",
    "torch-active": "sorted",
    "torch-compile-dynamic": "sorted",
}


def layout_of(subject: str) -> str:
    """The layout of a subject's batches, a key of `LAYOUTS`."""
    return _OTHERS.get(subject, "homogeneous")
