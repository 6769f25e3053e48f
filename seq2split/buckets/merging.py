"""Rows of a batch that go up to a longer bucket, since a group of few rows costs more than their padding."""

from __future__ import annotations

import numpy as np


def merge_small(padded: np.ndarray, overhead: int) -> np.ndarray:
    """Let the rows of small groups go up to longer buckets where that costs less.

    Of all ways to put the buckets that occur in a batch together, each into a longer one of them, it takes the one with
    the least positions, where each group that remains counts as `overhead` rows more. Like fitting boundaries, that is
    the optimal partition of sorted values into contiguous groups (W. D. Fisher, "On grouping for maximum homogeneity",
    Journal of the American Statistical Association 53(284), 1958), here with a price for a group in place of a number
    of them.

    Args:
        padded: The padded length of each row in its own bucket, `[rows]`.
        overhead: The number of rows that a group costs on top of its own; with 0 each row stays in its bucket.

    Returns:
        The padded length of each row now, `[rows]`; never less than before, and each one of those that were there.

    Example:
        >>> merge_small(np.array([4, 5, 5, 5, 5, 9, 9, 9]), overhead=2)
        array([5, 5, 5, 5, 5, 9, 9, 9])
    """
    if not overhead:
        return padded
    lengths, bucket, tallies = np.unique(padded, return_inverse=True, return_counts=True)
    totals = np.concatenate([[0], np.cumsum(tallies)])
    cost, starts = np.zeros(len(totals)), np.zeros(len(totals), int)  # of the shortest buckets, so many of them
    for end in range(1, len(totals)):
        candidates = cost[:end] + (totals[end] - totals[:end] + overhead) * lengths[end - 1]
        starts[end] = np.argmin(candidates)
        cost[end] = candidates[starts[end]]
    raised, end = lengths.copy(), len(lengths)
    while end:
        raised[starts[end] : end] = lengths[end - 1]
        end = starts[end]
    return raised[bucket]
