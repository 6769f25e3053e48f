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

from seq2split.buckets import merge_small
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
    """A way to divide the rows of a batch into groups.

    Args:
        overhead: The number of rows that one more group costs as much as.
    """

    def __init__(self, overhead: int):
        self._overhead = overhead

    def merged(self, padded: np.ndarray) -> np.ndarray:
        """Return the bucket that each row of a part runs in; see `merge_small`."""
        return merge_small(padded, self._overhead)

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
    """Groups of any number of rows, dealt out so that each thread gets as many padded positions.

    The rows, those of the longest bucket first, fill one thread after the other, and are cut where it has its share.

    Args:
        overhead: The number of rows that one more group costs as much as.
        threads: The number of groups that run at once.
        multiple: The number that the size of every group is a multiple of.
    """

    def __init__(self, overhead: int, threads: int, multiple: int):
        super().__init__(overhead)
        self._threads, self._multiple = threads, multiple

    def groups(self, name: str, padded: Mapping[str, np.ndarray], order: np.ndarray) -> list[Group]:
        """Return the groups of each bucket, as many as keep the threads busy."""
        lengths = padded[name][order]
        share = int(lengths.sum()) / self._threads
        groups, room = [], share  # the positions that the thread which is being filled still takes
        for length in np.unique(lengths)[::-1].tolist():
            rows, pieces = order[lengths == length], []
            while len(rows):
                count = self._cut(len(rows), room / length, is_empty=room == share)
                if count:
                    pieces.append(Group(length, rows[:count], self._rounded(count)))
                    rows, room = rows[count:], room - count * length
                room = room if count and room > 0 else share
            groups = pieces + groups
        return groups

    def _cut(self, rows: int, room: float, is_empty: bool) -> int:
        """Return how many of some rows a thread takes that has room for so many; an empty one takes some."""
        if rows <= room + self._multiple / 2:
            return rows
        return self._rounded(math.ceil(room)) if is_empty else round(room / self._multiple) * self._multiple

    def _rounded(self, count: int) -> int:
        return -(-count // self._multiple) * self._multiple


class FixedGrouping(Grouping):
    """Groups of a fixed number of rows, for part graphs that XLA compiles.

    Args:
        overhead: The number of rows that one more group costs as much as.
        rows: The number of rows of each, filler included.
        contexts: The padded lengths at which parts read others.
    """

    def __init__(self, overhead: int, rows: int, contexts: ContextLengths):
        super().__init__(overhead)
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
