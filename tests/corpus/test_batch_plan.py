"""Plans of batches: nothing lost, nothing twice, within the budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2split.buckets import Buckets
from seq2split.corpus.batch_plan import MODES, BatchPlan

BUCKETS = {"source": Buckets([3, 6, 10]), "target": Buckets([2, 5, 12])}
every_mode = pytest.mark.parametrize("mode", MODES)


def make_lengths(pairs):
    """Return the lengths of each side of `(source, target)` pairs."""
    return dict(zip(("source", "target"), np.transpose(np.reshape(pairs, [-1, 2])), strict=True))


def random_lengths(rows, seed=0):
    random = np.random.default_rng(seed)
    return {"source": random.integers(1, 11, rows), "target": random.integers(1, 13, rows)}


def padded(lengths):
    """Return the padded lengths of each row, `[rows, 2]`, found without the plan's arithmetic."""
    sides = BUCKETS.items()
    rows = len(lengths["source"])
    return np.array(
        [[min(b for b in each.boundaries if b >= lengths[side][row]) for side, each in sides] for row in range(rows)]
    )


pairs = st.lists(st.tuples(st.integers(1, 10), st.integers(1, 12)), min_size=1, max_size=80)
plans = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(MODES),
        "tokens": st.integers(22, 200),
        "row_multiple": st.integers(1, 5),
        "seed": st.integers(0, 3),
    }
)


@settings(max_examples=150, deadline=None)
@given(pairs, plans, st.integers(0, 3))
def test_every_row_in_one_batch_within_the_budget(lengths, options, epoch):
    lengths = make_lengths(lengths)
    batches = BatchPlan(lengths, BUCKETS, **options).epoch(epoch)
    costs = padded(lengths).sum(axis=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(costs)))
    assert all(0 < costs[rows].sum() <= options["tokens"] for rows in batches)


@settings(max_examples=150, deadline=None)
@given(pairs, plans)
def test_homogeneous_batches_are_full(lengths, options):
    """Of each bucket pair all rows but a remainder stand in full batches of that pair alone."""
    plan = BatchPlan(make_lengths(lengths), BUCKETS, **options | {"mode": "homogeneous"})
    lengths = padded(make_lengths(lengths))
    batches = [lengths[rows] for rows in plan.epoch(0)]
    for pair in np.unique(lengths, axis=0):
        size = options["tokens"] // int(pair.sum())
        size = max(size // options["row_multiple"] * options["row_multiple"], min(size, options["row_multiple"]))
        rows = int((lengths == pair).all(axis=1).sum())
        full = sum(len(batch) == size and bool((batch == pair).all()) for batch in batches)
        assert full >= rows // size


@settings(max_examples=50, deadline=None)
@given(pairs, plans)
def test_left_over_rows_fill_batches(lengths, options):
    """Two batches that follow one another in the order that they were filled in never fit into one."""
    lengths = make_lengths(lengths)
    plan = BatchPlan(lengths, BUCKETS, **options | {"mode": "mixed"})
    costs = padded(lengths).sum(axis=1)
    for first, second in itertools.pairwise(plan.epoch(0)):
        assert costs[first].sum() + costs[second[0]] > options["tokens"]


@pytest.mark.parametrize(
    ("tokens", "multiple", "rows"), [(100, 1, 20), (100, 8, 16), (39, 8, 7), (40, 8, 8), (41, 1, 8), (5, 4, 1)]
)
def test_rows_of_full_batches(tokens, multiple, rows):
    lengths = make_lengths([(3, 2)] * (rows * 3 + 1))
    plan = BatchPlan(lengths, BUCKETS, tokens=tokens, row_multiple=multiple)
    assert sorted(len(batch) for batch in plan.epoch(0)) == [1, rows, rows, rows] or rows == 1


def test_left_over_rows_of_several_pairs_share_batches():
    lengths = make_lengths([(3, 2), (6, 5), (10, 12)])
    (batch,) = BatchPlan(lengths, BUCKETS, tokens=200, row_multiple=2).epoch(0)
    assert sorted(batch.tolist()) == [0, 1, 2]


def test_left_over_rows_stand_with_neighbours():
    """A row of each of 16 pairs, and batches of four rows of equal cost: shuffled they would mix all the pairs."""
    lengths = make_lengths(list(itertools.product([1, 2, 3, 4], [1, 2, 3, 4])))
    buckets = Buckets([1, 2, 3, 4])
    plan = BatchPlan(lengths, {"source": buckets, "target": buckets}, tokens=20, row_multiple=8)
    for rows in plan.epoch(0):
        sources, targets = ({int(lengths[side][row]) for row in rows} for side in ("source", "target"))
        assert len(sources) <= 2
        assert targets == set(range(min(targets), max(targets) + 1))  # neighbours, also from one source to the next


@every_mode
def test_plan_follows_from_seed_and_epoch(mode):
    lengths = random_lengths(60)

    def flat(seed, epoch):
        return [rows.tolist() for rows in BatchPlan(lengths, BUCKETS, mode=mode, tokens=60, seed=seed).epoch(epoch)]

    assert flat(1, 0) == flat(1, 0)
    assert flat(1, 0) != flat(1, 1)
    assert flat(1, 0) != flat(2, 0)
    assert {frozenset(rows) for rows in flat(1, 0)} != {frozenset(rows) for rows in flat(1, 1)}


def test_homogeneous_batches_come_in_random_order():
    """Neither by bucket pair nor with the mixed ones last."""
    batches = BatchPlan(random_lengths(400), BUCKETS, tokens=60).epoch(0)
    lengths = padded(random_lengths(400))
    mixed = [len(np.unique(lengths[rows], axis=0)) > 1 for rows in batches]
    assert not all(mixed[-sum(mixed) :])
    sums = [int(lengths[rows[0]].sum()) for rows in batches]
    assert abs(np.corrcoef(np.arange(len(sums)), sums)[0, 1]) < 0.5


def test_budget_below_a_row():
    with pytest.raises(ValueError, match=r"21.*22|22.*21"):
        BatchPlan(make_lengths([(1, 1), (10, 12)]), BUCKETS, tokens=21)
    BatchPlan(make_lengths([(1, 1), (10, 12)]), BUCKETS, tokens=22)


def test_a_row_beyond_the_last_bucket_names_its_side():
    with pytest.raises(ValueError, match="13") as caught:
        BatchPlan(make_lengths([(1, 1), (10, 13)]), BUCKETS, tokens=99)
    assert "in 'target'" in caught.value.__notes__


def test_no_such_mode():
    with pytest.raises(ValueError, match=r"mode.*shuffled.*homogeneous"):
        BatchPlan(make_lengths([(1, 1)]), BUCKETS, tokens=99, mode="shuffled")


def test_one_side_and_three():
    """The cost of a row is what all its sides cost together."""
    lengths, buckets = np.array([2, 3, 1]), Buckets([3])
    for sides in (1, 3):
        names = [f"side{number}" for number in range(sides)]
        plan = BatchPlan(dict.fromkeys(names, lengths), dict.fromkeys(names, buckets), tokens=6 * sides)
        assert sorted(map(len, plan.epoch(0))) == [1, 2]
