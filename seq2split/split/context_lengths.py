"""The padded lengths at which compiled part graphs read what other parts hand over.

A part graph that XLA compiles has static shapes, also of what it reads of other parts: the outputs of another part are
padded in time to one of a few *context lengths*, which are among that part's buckets. With one, its longest bucket,
each part graph is compiled once; each further one saves padding and costs a compilation for each bucket of whoever
reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np

from seq2split.buckets import Buckets
from seq2split.split.wiring import Wiring


class ContextLengths:
    """The context lengths of a model's parts.

    What crosses between parts of one root (`Wiring`) stays in its bucket; the rest is padded to a context length of the
    root.

    Args:
        wiring: The parts.
        count: The number of context lengths of each part that another reads.

    Raises:
        ValueError: A part that another reads has fewer buckets than `count`.
    """

    def __init__(self, wiring: Wiring, count: int):
        self._wiring, self._roots = wiring, wiring.roots
        read = {root for name in wiring.parts for root in self._read_roots(name)}
        self._boundaries = {root: self._thinned(root, count) for root in wiring.parts if root in read}
        self._has_choice = count > 1

    def choices(self, name: str) -> list[tuple[int, ...]]:
        """Return all choices of context lengths of a part, one for each other root; empty without a choice."""
        return list(product(*(self._boundaries[root].boundaries for root in self._chosen_roots(name))))

    def longest(self, name: str) -> tuple[int, ...]:
        """Return the longest of `choices`."""
        return self.choices(name)[-1]

    def of_rows(self, name: str, lengths: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the context lengths of each row of a batch.

        Args:
            name: The part.
            lengths: For each part that reads a field the bucket of each row as its padded length, `[rows]`.

        Returns:
            int64 `[rows, roots]`.
        """
        rows = len(lengths[self._roots[name]])
        columns = [self._boundaries[root].padded(lengths[root]) for root in self._chosen_roots(name)]
        return np.stack(columns, 1) if columns else np.zeros([rows, 0], np.int64)

    def source(self, name: str, read: str, length: int, context: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Return the part graph of a part that hands over as much as another reads.

        Args:
            name: The part that reads.
            read: The part that is read.
            length: The bucket of the one that reads.
            context: One of `choices(name)`.

        Returns:
            The bucket and the context lengths of the part that is read.
        """
        root = self._roots[read]
        if root == self._roots[name]:
            return length, context
        at = dict(zip(self._chosen_roots(name), context, strict=True))
        return at.get(root, self._boundaries[root].boundaries[-1]), self.longest(read)

    def _chosen_roots(self, name: str) -> list[str]:
        return self._read_roots(self._roots[name]) if self._has_choice else []

    def _read_roots(self, name: str) -> list[str]:
        """The roots, other than its own, of what a part reads."""
        roots = dict.fromkeys(self._roots[read] for read in self._wiring.parts_read(name))
        return [root for root in roots if root != self._roots[name]]

    def _thinned(self, root: str, count: int) -> Buckets:
        buckets = self._wiring.parts[root].buckets
        if count > len(buckets):
            raise ValueError(
                f"context_buckets = {count}, but part {root!r}, whose outputs another part reads, has only "
                f"{len(buckets)} buckets: {list(buckets.boundaries)}. Give at most {len(buckets)}."
            )
        return buckets.thinned(count)


def check_compilation(jit_compile: bool, rows: int | None, context_buckets: int, row_multiple: int) -> None:
    """Check the arguments of a `SplitModel` that XLA compiles, or doesn't.

    Raises:
        ValueError: They are out of range, or have no meaning without XLA.
    """
    if not jit_compile and (rows is not None or context_buckets != 1):
        raise ValueError(
            f"SplitModel was given rows = {rows} and context_buckets = {context_buckets}, which fix the shapes of part "
            "graphs that XLA compiles; give jit_compile=True as well, or leave them out."
        )
    if jit_compile and (rows is None or rows < 1 or row_multiple != 1):
        raise ValueError(
            f"SplitModel(jit_compile=True) was given rows = {rows} and row_multiple = {row_multiple}; XLA compiles a "
            "part graph for a fixed number of rows: give it as rows=32, about what a bucket holds of a batch, and "
            "leave row_multiple out."
        )
    if context_buckets < 1:
        raise ValueError(
            f"context_buckets = {context_buckets}; expected 1 or more: what a part reads is padded to them."
        )
