"""In which groups the rows of a batch run."""

from __future__ import annotations

import numpy as np
import pytest

import seq2split as s2s
from seq2split.split.context_lengths import ContextLengths
from seq2split.split.grouping import FixedGrouping, FlexibleGrouping
from seq2split.split.wiring import Wiring


@pytest.mark.parametrize(
    ("rows", "threads", "multiple", "expected"),
    [
        ({8: 10}, 1, 1, {8: [10]}),
        ({8: 10}, 2, 1, {8: [5, 5]}),
        ({8: 10}, 2, 4, {8: [8, 2]}),
        ({8: 157}, 2, 8, {8: [80, 77]}),
        ({8: 3}, 8, 1, {8: [1, 1, 1]}),
        ({8: 3}, 8, 8, {8: [3]}),
        ({4: 20, 8: 10}, 2, 1, {4: [20], 8: [10]}),  # each is one thread's share
        ({4: 20, 8: 11}, 2, 1, {4: [20], 8: [11]}),
        ({4: 40, 8: 30}, 2, 1, {4: [40], 8: [25, 5]}),  # the second thread takes what is left of the long ones, too
        ({4: 40, 8: 30}, 2, 8, {4: [40], 8: [30]}),
        ({4: 9, 8: 48, 9: 33}, 2, 8, {4: [9], 8: [8, 40], 9: [33]}),
        ({4: 2, 8: 2, 16: 9}, 3, 1, {4: [2], 8: [2], 16: [4, 4, 1]}),
    ],
)
def test_groups_are_shared_by_threads(rows, threads, multiple, expected):
    padded = np.repeat(list(rows), list(rows.values()))
    order = np.random.default_rng(1).permutation(len(padded))
    found = {}
    for group in FlexibleGrouping(0, threads, multiple).groups("part", {"part": padded}, order):
        found.setdefault(group.length, []).append(group)
    assert {length: [len(group.rows) for group in groups] for length, groups in found.items()} == expected
    for length, groups in found.items():
        together = np.concatenate([group.rows for group in groups])
        np.testing.assert_array_equal(together, order[padded[order] == length])
        assert [group.size for group in groups] == [-(-len(group.rows) // multiple) * multiple for group in groups]


def test_groups_have_a_fixed_number_of_rows():
    nodes = [
        s2s.Node(lambda x: x, "source", s2s.Buckets([2, 4, 6]), name="encoder"),
        s2s.Node(lambda x, y: y, ["encoder", "target"], s2s.Buckets([2, 4, 6]), loss=True, name="decoder"),
    ]
    padded = {"encoder": np.array([2] * 7 + [4] * 4), "decoder": np.array([2] * 9 + [6] * 2)}
    groups = FixedGrouping(0, 5, ContextLengths(Wiring(nodes), 2)).groups("decoder", padded, np.arange(11)[::-1])
    assert [(each.length, each.context, each.size) for each in groups] == [
        (2, (2,), 5),
        (2, (2,), 5),
        (2, (6,), 5),
        (6, (6,), 5),
    ]
    assert [each.rows.tolist() for each in groups] == [[6, 5, 4, 3, 2], [1, 0], [8, 7], [10, 9]]
