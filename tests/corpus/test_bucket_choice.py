"""As many buckets as let a training end soonest."""

from __future__ import annotations

import numpy as np
import pytest

from seq2split.buckets import Buckets
from seq2split.corpus import choose_buckets
from seq2split.corpus.bucket_choice import COUNTS
from seq2split.split.grouping import FlexibleGrouping


def corpus(rows=4000):
    draw = np.random.default_rng(0)
    source = np.clip(draw.normal(16, 6, rows).astype(int), 2, 60)
    return {"source": source, "target": np.clip(source + draw.integers(-3, 4, rows), 2, 60)}


def counts(lengths, **options):
    return tuple(len(each) for each in choose_buckets(lengths, group_overhead=8, row_multiple=8, **options).values())


def test_long_trainings_have_more():
    found = [counts(corpus(), steps=steps) for steps in (0, 100, 1000, 10_000, 1_000_000)]
    assert found[0] == (1, 1)
    assert found == sorted(found)
    assert found[-1][0] >= 16


def test_the_count_is_the_best_of_all_that_are_tried():
    """By an account of its own: the groups that a model would make of each batch."""
    from seq2split.corpus.batch_plan import BatchPlan

    lengths, steps, tokens, overhead = corpus(1500), 3000, 2048, 8
    grouping = FlexibleGrouping(overhead, threads=1, multiple=1)

    def cost(count):
        buckets = {side: Buckets.fit(each, count) for side, each in lengths.items()}
        total = 0
        for rows in BatchPlan(lengths, buckets, tokens=tokens, row_multiple=8).epoch(0):
            for side, each in lengths.items():
                padded = grouping.merged(buckets[side].padded(each[rows]))
                groups = grouping.groups(side, {side: padded}, np.arange(len(rows)))
                total += sum(group.length * (group.size + overhead) for group in groups)
        graphs = sum(map(len, buckets.values()))
        return 20_000 * graphs + steps * tokens * total / sum(each.sum() for each in lengths.values())

    chosen = choose_buckets(lengths, steps=steps, tokens=tokens, row_multiple=8, group_overhead=overhead)
    best = min(COUNTS, key=cost)
    assert chosen == {side: Buckets.fit(each, best) for side, each in lengths.items()}


def test_given_buckets_stay():
    own = Buckets([10, 60])
    chosen = choose_buckets(corpus(), steps=10_000, given={"source": own})
    assert chosen["source"] == own
    assert len(chosen["target"]) > 2
    assert list(chosen) == ["source", "target"]
    assert choose_buckets(corpus(), steps=1, given={"source": own, "target": own}) == {"source": own, "target": own}


def test_a_budget_that_holds_no_row_is_refused():
    with pytest.raises(ValueError, match="holds not one row"):
        choose_buckets(corpus(), steps=1000, tokens=50)


def test_large_corpora_are_sampled(monkeypatch):
    from seq2split.corpus import bucket_choice

    monkeypatch.setattr(bucket_choice, "_ROWS", 500)
    chosen = choose_buckets(corpus(), steps=1000, row_multiple=8, group_overhead=8)
    assert chosen == choose_buckets(corpus(), steps=1000, row_multiple=8, group_overhead=8)
    assert chosen["source"].boundaries[-1] == corpus()["source"].max()  # fitted to all of it


@pytest.mark.parametrize(
    ("lengths", "options", "told"),
    [
        ({}, {}, "of {} rows; expected at least one side"),
        ({"source": [1, 2], "target": [1]}, {}, r"of {'source': 2, 'target': 1} rows; .*each of the same rows"),
        ({"source": [1, 2]}, {"steps": -1}, "steps=-1 and group_overhead=0; expected 0 or more"),
        ({"source": [1, 2]}, {"group_overhead": -8}, "group_overhead=-8; expected 0 or more"),
    ],
)
def test_what_makes_no_sense_is_told(lengths, options, told):
    lengths = {side: np.array(each) for side, each in lengths.items()}
    with pytest.raises(ValueError, match=told):
        choose_buckets(lengths, **{"steps": 10} | options)
