"""How many buckets pay: fitted for each of several numbers, and chosen by what a training with them would cost.

More buckets save padding. But they leave more rows over, which run in smaller groups, and each is one more part graph
to build. All is counted in padded positions, which take about as long wherever they stand: a group counts as some rows
more (`buckets.merge_small`), a part graph as those that are trained on while it is built.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seq2split.buckets import Buckets, merge_small
from seq2split.corpus.batch_plan import BatchPlan

COUNTS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
"""The numbers of buckets a side that are tried."""
_GRAPH = 20_000
"""The positions that are trained on while one part graph is built: 14,000 (an LSTM) and 12,400 (a Transformer) with
AVX-512; more where products are faster."""
_ROWS = 200_000
"""The rows that are looked at of a larger corpus."""


def choose_buckets(
    lengths: Mapping[str, np.ndarray],
    *,
    steps: int,
    tokens: int = 4096,
    mode: str = "homogeneous",
    row_multiple: int = 1,
    group_overhead: int = 0,
    given: Mapping[str, Buckets] | None = None,
) -> dict[str, Buckets]:
    """Fit buckets to the rows of a corpus, as many a side as let a training end soonest.

    Args:
        lengths: For each side, such as `source` and `target`, the length of each row, `[rows]`.
        steps: The steps of the training; graphs that are built once pay in a long one.
        tokens: The most padded positions of a batch; see `Batches`.
        mode: See `Batches`.
        row_multiple: See `SplitModel`.
        group_overhead: See `SplitModel`.
        given: The buckets of sides that have theirs.

    Returns:
        The buckets of each side.

    Raises:
        ValueError: There are no rows, the sides have not as many of them, the budget doesn't hold the longest one, or
            a number is out of range.

    Example:
        >>> lengths = np.random.default_rng(1).integers(2, 30, 3000)
        >>> few, many = (choose_buckets({"source": lengths}, steps=steps)["source"] for steps in (10, 100_000))
        >>> len(few), len(many)
        (1, 28)
    """
    _check(lengths, steps, group_overhead)
    given = dict(given or {})
    fitted = [side for side in lengths if side not in given]
    options = {"tokens": tokens, "mode": mode, "row_multiple": row_multiple}
    sample = _sample(lengths)
    best, least = given, np.inf
    for count in COUNTS if fitted else ():
        buckets = given | {side: Buckets.fit(lengths[side], count) for side in fitted}
        graphs = sum(len(each) for each in buckets.values())
        if graphs * _GRAPH > least:
            break
        rate = _positions_per_token(BatchPlan(sample, buckets, **options), sample, buckets, group_overhead)
        cost = graphs * _GRAPH + steps * tokens * rate
        if cost < least:
            best, least = buckets, cost
    return {side: best[side] for side in lengths}


def _check(lengths: Mapping[str, np.ndarray], steps: int, group_overhead: int) -> None:
    rows = {side: len(each) for side, each in lengths.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(
            f"choose_buckets was given the lengths of {rows} rows; expected at least one side, each of the same rows."
        )
    if steps < 0 or group_overhead < 0:
        raise ValueError(f"choose_buckets was given {steps=} and {group_overhead=}; expected 0 or more of either.")


def _sample(lengths: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return some rows of a large corpus, always the same; of an epoch of more, less would be left over."""
    count = len(next(iter(lengths.values())))
    rows = np.random.default_rng(0).permutation(count)[:_ROWS] if count > _ROWS else np.arange(count)
    return {side: each[rows] for side, each in lengths.items()}


def _positions_per_token(
    plan: BatchPlan, lengths: Mapping[str, np.ndarray], buckets: Mapping[str, Buckets], overhead: int
) -> float:
    """Return the positions that an epoch costs for each real one, groups counted in."""
    padded = {side: buckets[side].padded(each) for side, each in lengths.items()}
    cost = 0
    for rows in plan.epoch(0):
        for each in padded.values():
            merged = merge_small(each[rows], overhead)
            cost += int(merged.sum()) + overhead * int(np.unique(merged).sum())
    return cost / sum(int(each.sum()) for each in lengths.values())
