"""Which rows form the batches of each epoch: planned with numpy.

The plan of an epoch depends on the seed and the epoch's number alone. So the position in the data is two integers, and
an interrupted run resumes with exactly the batches that it would have seen; a shuffle buffer would have to be saved
instead, and would forget the order of the rows in it. Each row stands in exactly one batch of an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seq2split.buckets import Buckets, batch_rows
from seq2split.common.choices import check_choice

MODES = ("homogeneous", "mixed")
ORDER = 2
"""The revision of how an epoch follows from seed and number: a run that was begun with another goes on elsewhere."""


class BatchPlan:
    """Which rows form the batches of each epoch.

    Args:
        lengths: For each side, such as `source` and `target`, the length of each row, `[rows]`.
        buckets: The buckets of each side.
        mode: `homogeneous` fills batches with rows of one cell (one bucket of each side), and makes mixed batches of
            those that are left over, similar ones together; `mixed` shuffles all uniformly.
        tokens: The most padded positions of a batch, all sides added up.
        row_multiple: The number that the rows of a homogeneous batch are a multiple of where the budget allows it.
        seed: The seed of the shuffling.

    Raises:
        OverlongError: A row is longer than the last bucket of its side.
        ValueError: There are no rows, the budget doesn't hold the longest one, or there is no such mode.

    Example:
        >>> lengths = np.array([2, 5, 3, 6, 1])
        >>> buckets = {"source": Buckets([3, 6]), "target": Buckets([3, 6])}
        >>> plan = BatchPlan({"source": lengths, "target": lengths}, buckets, tokens=24)
        >>> sorted(sorted(batch.tolist()) for batch in plan.epoch(0))
        [[0, 2, 4], [1, 3]]
    """

    def __init__(
        self,
        lengths: Mapping[str, np.ndarray],
        buckets: Mapping[str, Buckets],
        *,
        mode: str = "homogeneous",
        tokens: int,
        row_multiple: int = 1,
        seed: int = 0,
    ):
        check_choice("mode", mode, MODES)
        if seed < 0:
            raise ValueError(f"seed is {seed}; expected a whole number, at least 0.")
        assigned = {side: _assign(each, buckets[side], side) for side, each in lengths.items()}
        self._costs = sum(np.array(buckets[side].boundaries)[each] for side, each in assigned.items())
        self._cells = _snake([(each, len(buckets[side])) for side, each in assigned.items()])
        self._mode, self._tokens, self._row_multiple, self._seed = mode, tokens, row_multiple, seed
        if not len(self._costs):
            raise ValueError("there are no rows to make batches of; expected one or more.")
        batch_rows(tokens, int(self._costs.max()))  # a budget below one row is an error now, not in mid-epoch

    def epoch(self, number: int) -> list[np.ndarray]:
        """Return the batches of an epoch, each an array of row numbers; every row stands in one."""
        random = np.random.default_rng([self._seed, number])
        order = random.permutation(len(self._costs))
        if self._mode == "mixed":
            return self._fill(order)
        full, left = self._homogeneous(order)
        batches = full + self._fill(left)
        return [batches[at] for at in random.permutation(len(batches))]

    def _homogeneous(self, order: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the full batches of each cell, and the rows that are left over, in the order of the cells.

        So a batch of what is left over spans neighbouring cells, and runs in few graphs.
        """
        order = order[np.argsort(self._cells[order], kind="stable")]
        ends = np.flatnonzero(np.diff(self._cells[order])) + 1
        batches, left = [], []
        for rows in np.split(order, ends):
            size = batch_rows(self._tokens, int(self._costs[rows[0]]), self._row_multiple)
            count = len(rows) // size
            batches += np.split(rows[: count * size], count) if count else []
            left.append(rows[count * size :])
        return batches, np.concatenate(left)

    def _fill(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut rows, in order, into batches within the budget."""
        ends = np.cumsum(self._costs[order])
        batches, start = [], 0
        while start < len(order):
            before = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, before + self._tokens, side="right"))
            batches.append(order[start:stop])
            start = stop
        return batches


def _snake(sides: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Return the cell of each row, numbered such that cells that follow one another are neighbours.

    The last side goes up and down in turns, as the one before it moves on, like the furrows of a field.

    Args:
        sides: For each side the bucket of each row, `[rows]`, and the number of buckets.
    """
    cells = np.zeros(len(sides[0][0]), np.int64)
    for bucket, count in sides:
        cells = cells * count + np.where(cells % 2, count - 1 - bucket, bucket)
    return cells


def _assign(lengths: np.ndarray, buckets: Buckets, side: str) -> np.ndarray:
    try:
        return buckets.assign(lengths)
    except ValueError as error:
        error.add_note(f"in {side!r}")
        raise
