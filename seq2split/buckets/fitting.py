"""The boundaries that pad given lengths the least, exactly.

They are the optimal partition of sorted values into contiguous groups by dynamic programming: W. D. Fisher, "On
grouping for maximum homogeneity", Journal of the American Statistical Association 53(284), 1958; the recurrence is that
of H. Wang and M. Song, "Ckmeans.1d.dp: optimal k-means clustering in one dimension by dynamic programming", The R
Journal 3(2), 2011, with padded tokens in place of squared distances. The best cut never moves left as the prefix grows
(A. Aggarwal et al., "Geometric applications of a matrix-searching algorithm", Algorithmica 2, 1987), so a layer costs
O(n log n) time and O(n) memory for n distinct lengths.
"""

import numpy as np


def least_padding(distinct: np.ndarray, tallies: np.ndarray, count: int) -> np.ndarray:
    """Return the best boundaries for `tallies[i]` sequences of the increasing lengths `distinct[i]`."""
    if count >= len(distinct):
        return distinct
    totals = np.concatenate([[0], np.cumsum(tallies)])  # totals[j]: sequences of the j shortest distinct lengths
    lengths = np.concatenate([[0], distinct])
    cost = totals * lengths  # cost[j]: padded tokens of those sequences, here in one bucket
    layers = []
    for _ in range(count - 1):
        cuts = _best_cuts(cost, totals, lengths)
        cost = cost[cuts] + (totals - totals[cuts]) * lengths
        layers.append(cuts)
    # One more bucket always saves tokens while lengths share one, so no cut below is 0: there are `count` ends.
    ends = [len(distinct)]
    for cuts in reversed(layers):
        ends.append(cuts[ends[-1]])
    return lengths[ends[::-1]]


def _best_cuts(cost: np.ndarray, totals: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return, for each prefix j, the least i < j that minimizes cost[i] + (totals[j] - totals[i]) * lengths[j].

    The cuts increase with j, so those of j - stride and j + stride bound that of j. Halving the stride solves half of
    the open prefixes at once. (The full [j, i] matrix is shorter to write, but 30 GB at 60,000 distinct lengths.)
    """
    n = len(cost) - 1
    stride = 1 << n.bit_length()
    cuts = np.full(2 * stride, n, np.int64)  # beyond n: no bound
    cuts[0] = 0
    while stride := stride // 2:
        j = np.arange(stride, n + 1, 2 * stride)
        low, high = cuts[j - stride], np.minimum(cuts[j + stride], j - 1)
        widths = high - low + 1
        starts = np.cumsum(widths) - widths
        i = np.arange(widths.sum()) + np.repeat(low - starts, widths)
        owner = np.repeat(j, widths)
        candidates = cost[i] + (totals[owner] - totals[i]) * lengths[owner]
        best = np.repeat(np.minimum.reduceat(candidates, starts), widths)
        cuts[j] = np.minimum.reduceat(np.where(candidates == best, i, n), starts)
    return cuts[: n + 1]
