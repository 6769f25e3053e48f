"""Plans of batches, and the stream that looks them up: nothing lost, nothing twice, resumable anywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2split.buckets import Buckets
from seq2split.corpus.batches import Batch, BatchPlan, ParallelCorpus, stream
from seq2split.split.sequences import Sequences

BUCKETS = {"source": Buckets([3, 6, 10]), "target": Buckets([2, 5, 12])}
MODES = ("homogeneous", "mixed")
every_mode = pytest.mark.parametrize("mode", MODES)


def make_corpus(lengths):
    """Rows of the given `(source, target)` lengths; no piece stands in two places."""
    numbers = itertools.count(1)

    def make_side(side):
        return [np.array([next(numbers) for _ in range(length)], np.int32) for length in side]

    sides = zip(("source", "target"), zip(*lengths, strict=True), strict=True)
    return ParallelCorpus({side: make_side(each) for side, each in sides})


def random_corpus(rows, seed=0):
    random = np.random.default_rng(seed)
    return make_corpus(list(zip(random.integers(1, 11, rows), random.integers(1, 13, rows), strict=True)))


def padded(corpus):
    """The padded lengths of each row, `[rows, 2]`, found without the plan's arithmetic."""
    return np.array(
        [
            [min(b for b in BUCKETS[side].boundaries if b >= len(row)) for side, row in zip(BUCKETS, pair, strict=True)]
            for pair in zip(*corpus.sides.values(), strict=True)
        ]
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
    corpus = make_corpus(lengths)
    batches = BatchPlan(corpus, BUCKETS, **options).epoch(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(corpus)))
    costs = padded(corpus).sum(axis=1)
    assert all(0 < costs[rows].sum() <= options["tokens"] for rows in batches)


@settings(max_examples=150, deadline=None)
@given(pairs, plans)
def test_homogeneous_batches_are_full(lengths, options):
    """Of each bucket pair all rows but a remainder stand in full batches of that pair alone."""
    corpus, options = make_corpus(lengths), options | {"mode": "homogeneous"}
    lengths = padded(corpus)
    batches = [lengths[rows] for rows in BatchPlan(corpus, BUCKETS, **options).epoch(0)]
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
    corpus = make_corpus(lengths)
    plan = BatchPlan(corpus, BUCKETS, **options | {"mode": "mixed"})
    costs = padded(corpus).sum(axis=1)
    for first, second in itertools.pairwise(plan.epoch(0)):
        assert costs[first].sum() + costs[second[0]] > options["tokens"]


@pytest.mark.parametrize(
    ("tokens", "multiple", "rows"), [(100, 1, 20), (100, 8, 16), (39, 8, 7), (40, 8, 8), (41, 1, 8), (5, 4, 1)]
)
def test_rows_of_full_batches(tokens, multiple, rows):
    corpus = make_corpus([(3, 2)] * (rows * 3 + 1))
    plan = BatchPlan(corpus, BUCKETS, tokens=tokens, row_multiple=multiple)
    assert sorted(len(batch) for batch in plan.epoch(0)) == [1, rows, rows, rows] or rows == 1


def test_left_over_rows_of_several_pairs_share_batches():
    corpus = make_corpus([(3, 2), (6, 5), (10, 12)])
    (batch,) = BatchPlan(corpus, BUCKETS, tokens=200, row_multiple=2).epoch(0)
    assert sorted(batch.tolist()) == [0, 1, 2]


def test_left_over_rows_stay_with_their_pair():
    """A row of each of 16 pairs, and batches of four rows of equal cost: shuffled they would mix all the pairs."""
    corpus = make_corpus(list(itertools.product([1, 2, 3, 4], [1, 2, 3, 4])))
    buckets = Buckets([1, 2, 3, 4])
    plan = BatchPlan(corpus, {"source": buckets, "target": buckets}, tokens=20, row_multiple=8)
    for rows in plan.epoch(0):
        assert sorted(rows) == list(range(min(rows), max(rows) + 1))
        assert len({corpus.lengths("source")[row] for row in rows}) <= 2


@every_mode
def test_plan_follows_from_seed_and_epoch(mode):
    corpus = random_corpus(60)

    def flat(seed, epoch):
        return [rows.tolist() for rows in BatchPlan(corpus, BUCKETS, mode=mode, tokens=60, seed=seed).epoch(epoch)]

    assert flat(1, 0) == flat(1, 0)
    assert flat(1, 0) != flat(1, 1)
    assert flat(1, 0) != flat(2, 0)
    assert {frozenset(rows) for rows in flat(1, 0)} != {frozenset(rows) for rows in flat(1, 1)}


def test_homogeneous_batches_come_in_random_order():
    """Neither by bucket pair nor with the mixed ones last."""
    corpus = random_corpus(400)
    lengths = padded(corpus)
    batches = BatchPlan(corpus, BUCKETS, tokens=60).epoch(0)
    mixed = [len(np.unique(lengths[rows], axis=0)) > 1 for rows in batches]
    assert not all(mixed[-sum(mixed) :])
    sums = [int(lengths[rows[0]].sum()) for rows in batches]
    assert abs(np.corrcoef(np.arange(len(sums)), sums)[0, 1]) < 0.5


def test_budget_below_a_row():
    with pytest.raises(ValueError, match=r"21.*22|22.*21"):
        BatchPlan(make_corpus([(1, 1), (10, 12)]), BUCKETS, tokens=21)
    BatchPlan(make_corpus([(1, 1), (10, 12)]), BUCKETS, tokens=22)


# The stream


def take(corpus, plan, count, *position):
    return list(itertools.islice(stream(corpus, plan, *position), count))


def plain(batch):
    return (
        batch.epoch,
        batch.index,
        batch.epoch_batches,
        {side: [array.tolist() for array in field] for side, field in batch.fields.items()},
    )


@every_mode
def test_stream_resumes_anywhere(mode):
    corpus = random_corpus(16)
    plan = BatchPlan(corpus, BUCKETS, mode=mode, tokens=90, seed=3)
    count = 2 * len(plan.epoch(0))
    whole = [plain(batch) for batch in take(corpus, plan, count)]
    assert whole[-1][0] >= 1, "the stream should cross an epoch here"
    for start, (epoch, index, *_) in enumerate(whole):
        assert [plain(batch) for batch in take(corpus, plan, count - start, epoch, index)] == whole[start:]


@every_mode
def test_stream_looks_up_the_plan(mode):
    corpus = random_corpus(30)
    plan = BatchPlan(corpus, BUCKETS, mode=mode, tokens=70)
    expected = [(epoch, index, rows) for epoch in range(2) for index, rows in enumerate(plan.epoch(epoch))]
    for batch, (epoch, index, rows) in zip(stream(corpus, plan), expected, strict=False):
        assert (batch.epoch, batch.index, batch.epoch_batches) == (epoch, index, len(plan.epoch(epoch)))
        for side, field in batch.fields.items():
            real = [corpus.sides[side][row] for row in rows]
            assert field.values.dtype == np.int32
            assert field.values.shape == (len(rows), max(map(len, real)))
            assert field.lengths.tolist() == [len(row) for row in real]
            for values, row in zip(field.values, real, strict=True):
                assert values[: len(row)].tolist() == row.tolist()
                assert not values[len(row) :].any()


@pytest.mark.parametrize("lengths", [[(2, 4)], [(2, 4)] * 3])
def test_stream_of_rows_of_one_length(lengths):
    corpus = make_corpus(lengths)
    (batch,) = take(corpus, BatchPlan(corpus, BUCKETS, tokens=50), 1)
    assert batch.fields["source"].values.shape == (len(lengths), 2)
    assert batch.fields["target"].values.shape == (len(lengths), 4)


def test_counts_of_a_batch():
    source = Sequences(np.zeros([2, 4], np.int32), np.array([2, 4]))
    target = Sequences(np.zeros([2, 3], np.int32), np.array([3, 1]))
    batch = Batch(0, 0, 1, {"source": source, "target": target})
    assert batch.targets == 4
    assert batch.tokens == 10
    assert batch.positions(BUCKETS) == (3 + 6) + (5 + 2)
