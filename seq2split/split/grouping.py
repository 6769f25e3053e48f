"""Groups of the rows of a batch, each of which one part graph takes together.

Internal to `model`. Both kinds of grouping take the rows in an order in which those that travel together stand
together, and keep it within a bucket.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seq2split.split.context_lengths import ContextLengths


@dataclass(frozen=True)
class Group:
    """The rows of a batch that one part graph takes together.

    Attributes:
        length: The bucket, as its padded length.
        rows: Their numbers in the batch, `[n]`.
        size: How many rows the part graph gets, filler of length zero included.
        memory: The lengths at which it reads other parts, where compiled part graphs have a choice.
    """

    length: int
    rows: np.ndarray
    size: int
    memory: tuple[int, ...] = ()


class FlexibleGrouping:
    """Groups of any number of rows: those of a bucket, none with more than one thread's share of padded positions.

    Args:
        threads: How many groups run at once.
        multiple: Of which the size of a group is one.
    """

    def __init__(self, threads: int, multiple: int):
        self._threads, self._multiple = threads, multiple

    def groups(self, name: str, padded: Mapping[str, np.ndarray], order: np.ndarray) -> list[Group]:
        """The groups of a part that reads a field.

        Args:
            name: The part.
            padded: For each part that reads a field the bucket of each row as its padded length, `[rows]`.
            order: The rows in the order in which they should stand in groups.

        Returns:
            The groups, by bucket.
        """
        lengths = padded[name][order]
        total, groups = int(lengths.sum()), []
        for length in np.unique(lengths).tolist():
            rows = order[lengths == length]
            pieces = math.ceil(self._threads * length * len(rows) / total - 1e-6)
            size = self._rounded(math.ceil(len(rows) / pieces))
            for start in range(0, len(rows), size):
                piece = rows[start : start + size]
                groups.append(Group(length, piece, self._rounded(len(piece))))
        return groups

    def _rounded(self, count: int) -> int:
        return -(-count // self._multiple) * self._multiple


class FixedGrouping:
    """Groups of a fixed number of rows, for part graphs that XLA compiles.

    Args:
        rows: How many, filler included.
        memory: The lengths at which parts read others.
    """

    def __init__(self, rows: int, memory: ContextLengths):
        self._rows, self._memory = rows, memory

    def groups(self, name: str, padded: Mapping[str, np.ndarray], order: np.ndarray) -> list[Group]:
        """As of `FlexibleGrouping`; by bucket and memory."""
        keys = np.column_stack([padded[name], self._memory.of_rows(name, padded)])[order]
        groups = []
        for length, *memory in np.unique(keys, axis=0).tolist():
            rows = order[(keys == [length, *memory]).all(1)]
            for start in range(0, len(rows), self._rows):
                groups.append(Group(length, rows[start : start + self._rows], self._rows, tuple(memory)))
        return groups
