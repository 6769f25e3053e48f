"""Groups of the rows of a batch, each of which one part graph takes together.

Every grouping takes the rows in an order in which those that travel together stand together, and keeps it within a
bucket.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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
        size: The number of rows that the part graph gets, filler of length zero included.
        context: The padded lengths at which it reads other parts, where compiled part graphs have a choice.
    """

    length: int
    rows: np.ndarray
    size: int
    context: tuple[int, ...] = ()


class Grouping(ABC):
    """A way to divide the rows of a batch into groups."""

    @abstractmethod
    def groups(self, name: str, padded: Mapping[str, np.ndarray], order: np.ndarray) -> list[Group]:
        """Return the groups of a part that reads a field.

        Args:
            name: The part.
            padded: For each part that reads a field the bucket of each row as its padded length, `[rows]`.
            order: The rows in the order in which they should stand in groups, `[rows]`.

        Returns:
            The groups, by bucket.
        """


class FlexibleGrouping(Grouping):
    """Groups of any number of rows: those of a bucket, none with more than one thread's share of padded positions.

    Args:
        threads: The number of groups that run at once.
        multiple: The number that the size of every group is a multiple of.
    """

    def __init__(self, threads: int, multiple: int):
        self._threads, self._multiple = threads, multiple

    def groups(self, name: str, padded: Mapping[str, np.ndarray], order: np.ndarray) -> list[Group]:
        """Return the groups of each bucket, as many as keep the threads busy."""
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


class FixedGrouping(Grouping):
    """Groups of a fixed number of rows, for part graphs that XLA compiles.

    Args:
        rows: The number of rows of each, filler included.
        contexts: The padded lengths at which parts read others.
    """

    def __init__(self, rows: int, contexts: ContextLengths):
        self._rows, self._contexts = rows, contexts

    def groups(self, name: str, padded: Mapping[str, np.ndarray], order: np.ndarray) -> list[Group]:
        """Return the groups of each bucket and each choice of contexts."""
        keys = np.column_stack([padded[name], self._contexts.of_rows(name, padded)])[order]
        groups = []
        for length, *context in np.unique(keys, axis=0).tolist():
            rows = order[(keys == [length, *context]).all(1)]
            for start in range(0, len(rows), self._rows):
                groups.append(Group(length, rows[start : start + self._rows], self._rows, tuple(context)))
        return groups
