"""Rows that go up to a longer bucket: never to a shorter one, and the best way of all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2split.buckets import merge_small


def cost(padded, overhead):
    """Return what groups of these padded lengths cost, in positions."""
    lengths, tallies = np.unique(padded, return_counts=True)
    return int(((tallies + overhead) * lengths).sum())


def least_cost(padded, overhead):
    """Return the least cost of all ways to raise buckets, each to any longer one that occurs; by trying all."""
    lengths = np.unique(padded)
    ways = itertools.product(*(lengths[lengths >= length] for length in lengths))
    return min(cost(np.array(way)[np.searchsorted(lengths, padded)], overhead) for way in ways)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(0, 12))
def test_no_other_way_costs_less(padded, overhead):
    padded = np.array(padded)
    merged = merge_small(padded, overhead)
    assert (merged >= padded).all()
    assert set(merged) <= set(padded)
    assert cost(merged, overhead) == least_cost(padded, overhead)


@pytest.mark.parametrize(
    ("padded", "overhead", "expected"),
    [
        ([3, 9, 3], 0, [3, 9, 3]),
        ([7, 7], 100, [7, 7]),
        ([8, 9], 8, [9, 9]),
        ([9] * 5 + [8] * 70, 8, [9] * 5 + [8] * 70),  # 70 positions against eight rows of eight
        ([9] * 5 + [8] * 60, 8, [9] * 65),
        ([], 8, []),
    ],
)
def test_small_groups_go_up(padded, overhead, expected):
    assert merge_small(np.array(padded, int), overhead).tolist() == expected
