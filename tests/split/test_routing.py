"""Carrying between groupings against a brute-force numpy reference, and when it must not touch a tensor at all."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2split.split import routing
from seq2split.split.routing import Route, carry, plan_routes, time_leaves
from seq2split.split.sequences import Sequences

Pair = namedtuple("Pair", ["first", "second"])
GARBAGE = 999.0  # what stands in the filler rows of a source group


# Nests, as functions of a leaf with a time axis and of leaves with one entry for each row.
NESTS = {
    "tensor": lambda timed, row: row(0),
    "sequences": lambda timed, row: timed(0),
    "dict": lambda timed, row: {"z": row(0), "a": timed(1), "m": None},
    "ordered": lambda timed, row: OrderedDict([("z", timed(0)), ("a", row(1))]),
    "tuple": lambda timed, row: (timed(0), (row(1), None), [timed(2)]),
    "namedtuple": lambda timed, row: Pair(row(0), {"inner": Pair(timed(1), None)}),
    "nest in sequences": lambda timed, row: Sequences({"b": timed(0).values, "a": timed(1).values}, timed(0).lengths),
}


@st.composite
def groupings(draw):
    """Row numbers `[groups][rows]` of one grouping of `count` rows, in any order."""
    count = draw(st.integers(1, 9))

    def grouping():
        rows = draw(st.permutations(range(count)))
        cuts = sorted(draw(st.sets(st.integers(1, count - 1), max_size=3))) if count > 1 else []
        return [np.array(rows[start:stop]) for start, stop in zip([0, *cuts], [*cuts, count], strict=True)]

    sources, targets = grouping(), grouping()
    filler = st.integers(0, 3)
    sizes = [[len(rows) + draw(filler) for rows in groups] for groups in (sources, targets)]
    times = [draw(st.integers(0, 4)) for _ in sources]
    return sources, targets, *sizes, times


def row_value(row: int, index: int) -> np.ndarray:
    """What leaf `index` holds for a row, `[2]`; never zero."""
    return np.array([1 + row + 100 * index, -1 - row - 100 * index], np.float64)


def timed_value(row: int, index: int, time: int) -> np.ndarray:
    """`[time, 2]`."""
    return row_value(row, index) + np.arange(time)[:, None] / 8


def group_nest(make, rows, size, time, filler=GARBAGE, tensors=True):
    """One group's nest: the rows' own values, and `filler` behind them."""

    def fill(values, *shape):
        full = np.full([size, *shape], filler)
        for place, value in enumerate(values):
            full[place] = value
        return tf.constant(full) if tensors else full

    def timed(index):
        lengths = np.zeros(size, np.int32)
        lengths[: len(rows)] = 1 + np.array(rows)
        values = fill([timed_value(row, index, time) for row in rows], time, 2)
        return Sequences(values, tf.constant(lengths) if tensors else lengths)

    return make(timed, lambda index: fill([row_value(row, index) for row in rows], 2))


def cut_rows(nest, count):
    return tf.nest.map_structure(lambda leaf: None if leaf is None else leaf[:count], nest)


def assert_nests_equal(found, expected):
    tf.nest.assert_same_structure(found, expected)
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        if right is None:
            assert left is None
        else:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def brute_force(make, sources, target, size, times):
    """The nest of one target group, row by row: each row's values from wherever it stands, zeros elsewhere."""
    source_of = {int(row): group for group, rows in enumerate(sources) for row in rows}
    longest = max(times[source_of[int(row)]] for row in target)

    def timed(index):
        values, lengths = np.zeros([size, longest, 2]), np.zeros(size, np.int32)
        for place, row in enumerate(target):
            time = times[source_of[int(row)]]
            values[place, :time] = timed_value(int(row), index, time)
            lengths[place] = 1 + row
        return Sequences(values, lengths)

    def row(index):
        values = np.zeros([size, 2])
        for place, number in enumerate(target):
            values[place] = row_value(int(number), index)
        return values

    return make(timed, row)


@settings(deadline=None, max_examples=60)
@given(groupings(), st.sampled_from(sorted(NESTS)))
def test_follow_equals_brute_force(grouping, name):
    sources, targets, source_sizes, target_sizes, times = grouping
    make = NESTS[name]
    groups = [group_nest(make, *each) for each in zip(sources, source_sizes, times, strict=True)]
    routes = plan_routes(sources, targets, target_sizes)
    for route, rows, size in zip(routes, targets, target_sizes, strict=True):
        assert_nests_equal(carry(route, groups), brute_force(make, sources, rows, size, times))


@settings(deadline=None, max_examples=60)
@given(groupings(), st.sampled_from(sorted(NESTS)))
def test_there_and_back_is_the_identity(grouping, name):
    """On real rows; filler comes back as zeros, and times as those of `like`."""
    sources, targets, source_sizes, target_sizes, times = grouping
    make = NESTS[name]
    groups = [group_nest(make, *each) for each in zip(sources, source_sizes, times, strict=True)]
    there = [carry(route, groups) for route in plan_routes(sources, targets, target_sizes)]
    back = plan_routes(targets, sources, source_sizes)
    for route, rows, size, time, group in zip(back, sources, source_sizes, times, groups, strict=True):
        found = carry(route, there, like=group)
        assert_nests_equal(found, group_nest(make, rows, size, time, filler=0.0, tensors=False))
        assert_nests_equal(cut_rows(found, len(rows)), cut_rows(group, len(rows)))


@settings(deadline=None, max_examples=100)
@given(groupings())
def test_routes_take_every_row_once(grouping):
    sources, targets, _, target_sizes, _ = grouping
    taken = [
        (group, int(place))
        for route in plan_routes(sources, targets, target_sizes)
        for group, places in route.pieces
        for place in places
    ]
    assert sorted(taken) == [(group, place) for group, rows in enumerate(sources) for place in range(len(rows))]


def test_targets_may_leave_rows_out():
    (route,) = plan_routes([np.array([3, 1]), np.array([0, 2])], [np.array([2, 3])], [2])
    found = carry(route, [tf.constant([30.0, 10.0]), tf.constant([0.0, 20.0])])
    np.testing.assert_array_equal(found, [20.0, 30.0])


@pytest.mark.parametrize("time", [1, 3, 6])
def test_times_are_those_of_like(time):
    values = np.arange(1.0, 13.0).reshape(2, 3, 2)
    group = Sequences(tf.constant(values), tf.constant([3, 1]))
    like = Sequences(tf.zeros([5, time, 2], tf.float64), tf.constant([0] * 5))
    (route,) = plan_routes([np.array([0, 1])], [np.array([0, 1])], [2])
    found = carry(route, [group], like=like)
    expected = np.zeros([2, time, 2])
    expected[:, : min(3, time)] = values[:, :time]
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(found.lengths, [3, 1])


def test_only_the_groups_that_are_read_decide_the_time():
    groups = [Sequences(tf.ones([1, time]), tf.constant([1])) for time in (2, 7)]
    (route,) = plan_routes([np.array([0]), np.array([1])], [np.array([0])], [1])
    assert carry(route, groups).values.shape == (1, 2)


def test_none_in_every_group_stays_none():
    groups = [Sequences(tf.ones([1, 2]), None), Sequences(tf.ones([1, 3]), None)]
    (route,) = plan_routes([np.array([0]), np.array([1])], [np.array([1, 0])], [2])
    found = carry(route, groups)
    assert found.lengths is None
    np.testing.assert_array_equal(found.values, [[1, 1, 1], [1, 1, 0]])


def test_none_of_all_values_stays_none():
    """A cotangent may be None where the outputs, given as `like`, have values."""
    (route,) = plan_routes([np.array([0, 1])], [np.array([1, 0])], [4])
    like = Sequences(tf.ones([4, 2]), tf.zeros([4], tf.int32))
    assert carry(route, [Sequences(None, None)], like=like) == Sequences(None, None)


def test_none_in_some_groups_counts_as_zeros():
    """The part graph of one bucket may have a path that another's lacks."""
    groups = [Sequences(None, None), Sequences(tf.ones([2, 3]), None)]
    (route,) = plan_routes([np.array([0]), np.array([1, 2])], [np.array([2, 0, 1])], [4])
    like = Sequences(tf.ones([4, 2]), tf.zeros([4], tf.int32))
    found = carry(route, groups, like=like)
    np.testing.assert_array_equal(found.values, [[1, 1], [0, 0], [1, 1], [0, 0]])
    assert found.lengths is None


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64, tf.int64, tf.bool, tf.complex64])
def test_dtypes_are_kept(dtype):
    groups = [tf.cast([[1, 0], [0, 1]], dtype), tf.cast([[1, 1]], dtype)]
    (route,) = plan_routes([np.array([2, 0]), np.array([1])], [np.array([0, 1, 2])], [4])
    found = carry(route, groups)
    assert found.dtype == dtype
    np.testing.assert_array_equal(tf.cast(found, tf.int32), [[0, 1], [1, 1], [1, 0], [0, 0]])


def test_one_group_on_either_side_is_passed_through_untouched():
    nest = {"states": Sequences(tf.ones([3, 2, 4]), tf.constant([2, 1, 0])), "summary": (tf.ones([3, 4]), None)}
    rows = np.array([2, 0, 1])
    (route,) = plan_routes([rows], [rows], [3])
    found = carry(route, [nest])
    tf.nest.assert_same_structure(found, nest)
    assert all(new is old for new, old in zip(tf.nest.flatten(found), tf.nest.flatten(nest), strict=True))


def refusing(**operations):
    """TensorFlow as `carry` sees it, with operations that must not be called."""

    def refuse(name):
        def call(*args, **kwargs):
            raise AssertionError(f"carry called tf.{name}")

        return call

    return SimpleNamespace(
        **{**vars(tf), "nest": tf.nest, "pad": tf.pad, **{name: refuse(name) for name in operations}}
    )


@pytest.mark.parametrize("places", [[2, 4], [4, 3], [3, 3]])
def test_rows_apart_are_gathered(monkeypatch, places):
    tensor = tf.range(6)
    np.testing.assert_array_equal(routing._take(tensor, np.array(places)), places)
    monkeypatch.setattr(routing, "tf", refusing(gather=True))
    with pytest.raises(AssertionError, match=r"tf\.gather"):
        routing._take(tensor, np.array(places))


def test_rows_side_by_side_are_a_slice(monkeypatch):
    """Rows sorted by the other side's bucket, as SplitModel sorts them, need no gather and no order."""
    monkeypatch.setattr(routing, "tf", refusing(gather=True))
    # Rows 0..5 with (source, target) buckets (0,0) (0,1) (0,1) (1,0) (1,1) (0,0).
    sources = [np.array([0, 5, 1, 2]), np.array([3, 4])]
    targets = [np.array([0, 5, 3]), np.array([1, 2, 4])]
    values = [tf.constant(rows) for rows in sources]
    routes = plan_routes(sources, targets, [4, 3])
    assert all(route.order is None for route in routes)
    np.testing.assert_array_equal(carry(routes[0], values), [0, 5, 3, 0])
    np.testing.assert_array_equal(carry(routes[1], values), [1, 2, 4])
    back = plan_routes(targets, sources, [4, 2])
    assert all(route.order is None for route in back)
    carried = [carry(route, values) for route in routes]
    for route, rows in zip(back, sources, strict=True):
        np.testing.assert_array_equal(carry(route, carried), rows)


def test_a_row_dimension_alone_is_not_time():
    """Lengths and other leaves are never padded or cut along their second axis."""
    groups = [(Sequences(tf.ones([1, 2, 3]), tf.constant([2])), tf.ones([1, 9])) for _ in range(2)]
    (route,) = plan_routes([np.array([0]), np.array([1])], [np.array([0, 1])], [2])
    like = (Sequences(tf.ones([2, 5, 3]), tf.constant([2, 2])), tf.ones([2, 4]))
    sequences, other = carry(route, groups, like=like)
    assert sequences.values.shape == (2, 5, 3)
    assert other.shape == (2, 9)


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (1, [False]),
        (None, [False]),
        ((), []),
        (Sequences(1, 2), [True, False]),
        ({"b": Sequences(1, 2), "a": 3}, [False, True, False]),
        (Pair([Sequences({"y": 1, "x": 2}, 3)], None), [True, True, False, False]),
    ],
)
def test_time_leaves(structure, expected):
    assert time_leaves(structure) == expected


def test_route_is_planned_once_for_all_leaves():
    (route,) = plan_routes([np.array([1, 0])], [np.array([0, 1])], [2])
    assert isinstance(route, Route)
    np.testing.assert_array_equal(carry(route, [tf.constant([1, 0])]), [0, 1])
    np.testing.assert_array_equal(carry(route, [tf.constant([[5.0], [4.0]])]), [[4.0], [5.0]])
