"""The boundaries with the least padding: edges by table, the rest by property."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2split.buckets import Buckets

POSITIVE_LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def padded_tokens(boundaries, lengths):
    """The definition of what `fit` minimizes, in plain Python."""
    return sum(min(b for b in boundaries if b >= length) for length in lengths)


def cheapest_tokens(lengths, count):
    """Brute force: over all sets of boundaries, whether or not a sequence has such a length."""
    longest = max(lengths)
    choices = (c for k in range(count) for c in itertools.combinations(range(1, longest), k))
    return min(padded_tokens((*c, longest), lengths) for c in choices)


def quantile_boundaries(lengths, count):
    return sorted(set(np.quantile(lengths, np.arange(1, count + 1) / count, method="higher").tolist()))


@pytest.mark.parametrize(
    ("lengths", "count", "boundaries"),
    [
        ([7], 1, [7]),
        ([7, 7, 7], 3, [7]),
        ([1, 2, 3], 1, [3]),
        ([1, 2, 3], 3, [1, 2, 3]),
        ([3, 1, 2], 9, [1, 2, 3]),
        ([1, 2, 3], 2, [1, 3]),  # {1} {2 3} and {1 2} {3} both cost 7: the shorter boundary wins
        ([1] * 9 + [10] + [11] * 9, 2, [1, 11]),
        ([[4, 9], [4, 30]], 2, [9, 30]),
        (np.array([4, 9], np.uint8), 1, [9]),
    ],
)
def test_fit_edges(lengths, count, boundaries):
    assert Buckets.fit(lengths, count) == Buckets(boundaries)


@pytest.mark.parametrize(
    ("lengths", "count", "error", "message"),
    [
        ([], 2, ValueError, "no lengths"),
        ([3, 0], 2, ValueError, "position 1 is 0; expected 1"),
        ([3, -4, 5], 2, ValueError, "position 1 is -4"),
        ([[3, 4], [5, 0]], 2, ValueError, r"position \(1, 1\) is 0"),
        ([3.0], 2, TypeError, "float64; expected integers"),
        ([True], 2, TypeError, "bool; expected integers"),
        (["3"], 2, TypeError, "expected integers"),
        ([[3], [3, 4]], 2, ValueError, "ragged"),
        ([3], 0, ValueError, "count is 0; expected at least 1"),
        ([3], 2.0, TypeError, "count is 2.0"),
        ([3], True, TypeError, "count is True"),
        ([2**62, 1], 1, ValueError, "more tokens than int64"),
        (np.array([2**63], np.uint64), 1, ValueError, "position 0 is 9223372036854775808"),
    ],
)
def test_fit_refuses(lengths, count, error, message):
    with pytest.raises(error, match=message):
        Buckets.fit(lengths, count)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=20), st.integers(1, 6))
def test_fit_equals_brute_force(lengths, count):
    buckets = Buckets.fit(lengths, count)
    assert len(buckets) == min(count, len(set(lengths)))
    assert padded_tokens(buckets.boundaries, lengths) == cheapest_tokens(lengths, count)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=20), st.integers(1, 6))
def test_fit_breaks_ties_by_the_shortest_boundaries_from_the_right(lengths, count):
    distinct = sorted(set(lengths))
    choices = itertools.combinations(distinct[:-1], min(count, len(distinct)) - 1)
    best = min(choices, key=lambda c: (padded_tokens((*c, distinct[-1]), lengths), c[::-1]))
    assert Buckets.fit(lengths, count) == Buckets((*best, distinct[-1]))


@pytest.mark.parametrize("count", [2, 7, 32])
@pytest.mark.parametrize("distinct", [63, 64, 65, 300])
def test_fit_equals_the_quadratic_program(distinct, count):
    random = np.random.default_rng(distinct * count)
    sizes = np.sort(random.choice(np.arange(1, 1000), distinct, replace=False))
    lengths = np.repeat(sizes, random.geometric(0.02, distinct))
    prefix = [0, *np.searchsorted(lengths, sizes, side="right").tolist()]
    costs = [0] + [math.inf] * distinct
    for _ in range(count):
        costs = [0] + [
            min(costs[i] + (prefix[j] - prefix[i]) * int(sizes[j - 1]) for i in range(j))
            for j in range(1, distinct + 1)
        ]
    assert Buckets.fit(lengths, count).padded(lengths).sum() == costs[-1]


@settings(deadline=None)
@given(POSITIVE_LENGTHS, st.integers(1, 12))
def test_fit_is_never_worse_than_quantiles(lengths, count):
    fitted = padded_tokens(Buckets.fit(lengths, count).boundaries, lengths)
    assert fitted <= padded_tokens(quantile_boundaries(lengths, count), lengths)


@settings(deadline=None)
@given(POSITIVE_LENGTHS, st.integers(1, 12))
def test_more_buckets_never_cost_more(lengths, count):
    fewer, more = (padded_tokens(Buckets.fit(lengths, c).boundaries, lengths) for c in (count, count + 1))
    assert more < fewer or more == fewer == sum(lengths)


@settings(deadline=None)
@given(POSITIVE_LENGTHS, st.integers(1, 12), st.randoms())
def test_fit_ignores_the_order_of_lengths(lengths, count, random):
    shuffled = random.sample(lengths, len(lengths))
    assert Buckets.fit(shuffled, count) == Buckets.fit(lengths, count)


def test_fit_memory_is_linear_in_distinct_lengths():
    buckets = Buckets.fit(np.arange(1, 60_001), 3)  # a [j, i] matrix would take 29 GB
    assert buckets == Buckets([20_000, 40_000, 60_000])
