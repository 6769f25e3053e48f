"""Batches of a corpus for a model: looked up as planned, resumable anywhere, from whatever holds examples."""

from __future__ import annotations

import itertools
import json
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import BUCKETS, PIECES, TinyDecoder, TinyEncoder, make_model, make_rows

import seq2split as s2s
from seq2split.corpus import Batch, Batches, Corpus
from seq2split.corpus.batch_plan import MODES, BatchPlan
from seq2split.split import Sequences

every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def model():
    return make_model()


def take(batches, count, *position):
    return list(itertools.islice(batches.stream(*position), count))


def plain(batch):
    fields = {side: [array.tolist() for array in field] for side, field in batch.fields.items()}
    return batch.epoch, batch.index, batch.epoch_batches, batch.positions, fields


# The stream


@every_mode
def test_stream_resumes_anywhere(model, mode):
    batches = Batches(make_rows(16), model, mode=mode, tokens=40, seed=3)
    count = 2 * len(batches)
    whole = [plain(batch) for batch in take(batches, count)]
    assert whole[-1][0] >= 1, "the stream should cross an epoch here"
    for start, (epoch, index, *_) in enumerate(whole):
        assert [plain(batch) for batch in take(batches, count - start, epoch, index)] == whole[start:]


def test_positions_are_those_of_the_buckets_that_rows_run_in():
    encoder = s2s.Node(lambda x: x.values, "source", s2s.Buckets([2, 4, 9]), name="encoder")
    decoder = s2s.Node(lambda x, y: tf.reduce_sum(y.values), [encoder, "target"], s2s.Buckets([9]), loss=True)
    model = s2s.SplitModel([encoder, decoder], group_overhead=3)
    rows = {"source": [[1]] * 9 + [[1] * 4] + [[1] * 9] * 9, "target": [[1]] * 19}
    (batch,) = Batches(rows, model, tokens=1000)
    assert batch.positions == 9 * 2 + 10 * 9 + 19 * 9  # the row of four steps runs with those of nine


@every_mode
def test_stream_looks_up_the_plan(model, mode):
    rows = make_rows(30)
    batches = Batches(rows, model, mode=mode, tokens=50, seed=5)
    lengths = {side: np.array([*map(len, each)]) for side, each in rows.items()}
    plan = BatchPlan(lengths, BUCKETS, mode=mode, tokens=50, seed=5)
    expected = [(epoch, index, taken) for epoch in range(2) for index, taken in enumerate(plan.epoch(epoch))]
    for batch, (epoch, index, taken) in zip(batches.stream(), expected, strict=False):
        assert (batch.epoch, batch.index, batch.epoch_batches) == (epoch, index, len(plan.epoch(epoch)))
        assert batch.positions == sum(BUCKETS[side].padded(lengths[side][taken]).sum() for side in BUCKETS)
        for side, field in batch.items():
            real = [rows[side][row] for row in taken]
            assert field.values.dtype == np.int32
            assert field.values.shape == (len(taken), max(map(len, real)))
            assert field.lengths.tolist() == [len(row) for row in real]
            for values, row in zip(field.values, real, strict=True):
                assert values[: len(row)].tolist() == row.tolist()
                assert not values[len(row) :].any()


@pytest.mark.parametrize("count", [1, 3])
def test_stream_of_rows_of_one_length(model, count):
    batches = Batches({"source": [[1, 2]] * count, "target": [[1, 2, 3, 4]] * count}, model, tokens=50)
    (batch,) = take(batches, 1)
    assert batch["source"].values.shape == (count, 2)
    assert batch["target"].values.shape == (count, 4)


def test_counts_of_a_batch():
    source = Sequences(np.zeros([2, 4], np.int32), np.array([2, 4]))
    target = Sequences(np.zeros([2, 3], np.int32), np.array([3, 1]))
    batch = Batch(0, 0, 1, {"source": source, "target": target}, tokens=10, positions=16)
    assert batch.tokens == 10
    assert (list(batch), len(batch), "target" in batch, "other" in batch) == (["source", "target"], 2, True, False)
    assert batch["target"] is target


def test_going_over_batches_is_one_epoch(model):
    """As often as one likes, and always the first: a validation sees the same batches each time."""
    batches = Batches(make_rows(20), model, tokens=40)
    once, again = ([plain(batch) for batch in batches] for _ in range(2))
    assert once == again
    assert len(once) == len(batches) > 2
    assert sum(len(batch["source"].lengths) for batch in batches) == 20
    assert {batch.epoch for batch in batches} == {0}


def test_a_model_takes_them(model):
    (batch,) = Batches(make_rows(5), model, tokens=500)
    rows = make_rows(5)
    np.testing.assert_allclose(model.losses(batch).loss, model.losses(rows).loss, rtol=1e-12)


def test_rows_of_full_batches_are_a_multiple_of_the_models():
    model = make_model(row_multiple=4)
    rows = {"source": [[1, 2]] * 9, "target": [[1]] * 9}
    assert sorted(len(batch["source"].lengths) for batch in Batches(rows, model, tokens=30)) == [1, 4, 4]


# What the fingerprint tells apart


def test_fingerprint(model):
    """What decides about the batches, and nothing else, as JSON can hold it."""
    rows = make_rows(8)
    found = Batches(rows, model, tokens=40, seed=1).fingerprint()
    assert json.loads(json.dumps(found)) == found
    examples = [dict(zip(rows, pair, strict=True)) for pair in zip(*rows.values(), strict=True)]
    assert Batches(examples, model, tokens=40, seed=1).fingerprint() == found
    swapped = {side: [*each[1:], each[0]] for side, each in rows.items()}
    for other, name in (
        (Batches(rows, model, tokens=41, seed=1), "tokens"),
        (Batches(rows, model, tokens=40, seed=2), "seed"),
        (Batches(rows, model, tokens=40, seed=1, mode="mixed"), "mode"),
        (Batches(swapped, model, tokens=40, seed=1), "digest"),
    ):
        assert [key for key, value in other.fingerprint().items() if found[key] != value] == [name]


# What examples may stand in


def as_list(rows):
    return {side: [row.tolist() for row in each] for side, each in rows.items()}


def as_examples(rows):
    return ({side: each[at] for side, each in rows.items()} for at in range(len(rows["source"])))


SOURCES = {
    "arrays": lambda rows: rows,
    "lists": as_list,
    "ragged tensors": lambda rows: {side: tf.ragged.constant(each) for side, each in as_list(rows).items()},
    "a generator of examples": as_examples,
    "a dataset of examples": lambda rows: tf.data.Dataset.from_generator(
        lambda: as_examples(rows),
        output_signature=dict.fromkeys(rows, tf.TensorSpec([None], tf.int64)),
    ),
    "a corpus": Corpus,
    "a list of examples": lambda rows: list(as_examples(rows)),
}


@pytest.mark.parametrize("given", SOURCES.values(), ids=SOURCES)
def test_examples_may_stand_in(model, given):
    rows = make_rows(10)
    expected = Batches(rows, model, tokens=40)
    found = Batches(given(rows), model, tokens=40)
    assert [plain(batch) for batch in found] == [plain(batch) for batch in expected]
    assert found.fingerprint() == expected.fingerprint()


def test_arrays_have_their_full_time(model):
    source, target = np.arange(12).reshape(4, 3) % PIECES, np.ones([4, 2], np.int64)
    (batch,) = Batches({"source": source, "target": tf.constant(target)}, model, tokens=50)
    assert batch["source"].lengths.tolist() == [3] * 4
    assert sorted(batch["source"].values.tolist()) == sorted(source.tolist())


def frames_model(size=2, dtype=tf.float32):
    random.seed(1)
    encoder = s2s.Node(TinyEncoder(embeds=False), "source", BUCKETS["source"], name="encoder")
    decoder = s2s.Node(TinyDecoder(), [encoder, "target"], BUCKETS["target"], loss=True, name="decoder")
    return s2s.SplitModel([encoder, decoder], fields={"source": tf.TensorSpec([size], dtype)})


FRAMES = {
    "double precision": lambda rows: [row.astype(np.float64) for row in rows],
    "lists": lambda rows: [row.tolist() for row in rows],
    "ragged": lambda rows: tf.RaggedTensor.from_row_lengths(np.concatenate(rows), [*map(len, rows)]),
    "ragged twice": lambda rows: tf.ragged.constant([row.tolist() for row in rows]),
}


@pytest.mark.parametrize("given", FRAMES.values(), ids=FRAMES)
def test_float_features(given):
    """`[time, features]`, as whatever they are given."""
    rows = make_rows(6, frames=2)
    (batch,) = Batches(rows | {"source": given(rows["source"])}, frames_model(), tokens=500)
    assert batch["source"].values.dtype == np.float32
    assert batch["source"].values.shape == (6, max(map(len, rows["source"])), 2)
    found = {row.tobytes() for row in (values[:length] for values, length in zip(*batch["source"], strict=True))}
    assert found == {row.tobytes() for row in rows["source"]}


def test_empty_rows():
    """A row of no positions is padding alone, of pieces and of features."""
    for rows, model in ((make_rows(3), make_model()), (make_rows(3, frames=2), frames_model())):
        (batch,) = Batches(rows | {"source": [[], *rows["source"][1:]]}, model, tokens=99)
        assert sorted(batch["source"].lengths.tolist())[0] == 0
        assert sorted(batch["source"].lengths.tolist())[1] > 0


def test_integers_become_the_models_dtype():
    model = frames_model()
    rows = {"source": [np.ones([2, 2], np.int64)], "target": [np.array([1], np.uint8)]}
    (batch,) = Batches(rows, model, tokens=50)
    assert (batch["source"].values.dtype, batch["target"].values.dtype) == (np.float32, np.int32)


# Mistakes

ROWS = {"source": [[1, 2], [3]], "target": [[1], [2, 3]]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": [[1]]}, r"examples have the fields \['source'\], and the model reads \['source', 'target'\]"),
        (ROWS | {"extra": [[1], [2]]}, r"the fields \['extra', 'source', 'target'\].*reads \['source', 'target'\]"),
        (ROWS | {"target": [[1]]}, r"has \{'source': 2, 'target': 1\} rows in its fields; expected as many"),
        (ROWS | {"source": [[1.5, 2.0], [3.0]]}, r"row 0 of field 'source' is float64 of shape \[2\].*reads int32"),
        (ROWS | {"source": [[1, 2], [[3, 4]]]}, r"row 1 of field 'source' is int64 of shape \[1, 2\].*shape \[\]"),
        (ROWS | {"source": [[1, 2], [2**40]]}, r"row 1 of field 'source' holds 1099511627776, which int32 can't"),
        (ROWS | {"source": [[1, 2], [-(2**40)]]}, r"row 1 of field 'source' holds -1099511627776, which int32 can't"),
        (ROWS | {"source": ["a b", "c"]}, r"row 0 of field 'source' is <U3.*expected numbers.*Encode text first"),
        (ROWS | {"source": [["a", "b"], ["c"]]}, r"row 0 of field 'source' is <U1.*Encode text first"),
        (ROWS | {"source": [1, 2]}, r"row 0 of field 'source' is int64 of shape \[\].*wrap a single number in a list"),
        (ROWS | {"source": [[[1, 2], [3]], [4]]}, r"field 'source' can't be read as rows of numbers"),
        (ROWS | {"source": 5}, r"field 'source' can't be read as rows of numbers.*Give one sequence"),
        (ROWS | {"source": [[None], [1]]}, r"row 0 of field 'source' is object"),
        (ROWS | {"source": [[1, 2], [5, -(2**40)]]}, r"row 1 of field 'source' holds -1099511627776, which int32"),
        ({}, "the corpus has no fields; expected one or more, each with its rows"),
        ([], "the corpus has no fields"),
        ({"source": [], "target": []}, "there are no rows to make batches of"),
        ([{"source": [1], "target": [2]}, {"source": [1]}], r"example 1 of the corpus is \['source'\]; expected the"),
        ([[1, 2], [3]], "example 0 of the corpus is list; expected a mapping from fields to sequences"),
        (5, "was given as 5; expected a mapping from fields to their rows, or an iterable of examples"),
    ],
    ids=str,
)
def test_wrong_examples(model, fields, message):
    with pytest.raises(ValueError, match=message):
        Batches(fields, model, tokens=50)


def test_overlong_rows(model):
    with pytest.raises(s2s.OverlongError, match="7") as caught:
        Batches({"source": [[1, 2], [3] * 7], "target": [[1], [2]]}, model)
    assert caught.value.__notes__ == ["in field 'source', which part 'encoder' reads"]


@pytest.mark.parametrize("tokens", [10, 0, -3])
def test_a_budget_below_the_longest_row(model, tokens):
    with pytest.raises(ValueError, match=rf"{tokens}.*11|11.*{tokens}"):
        Batches({"source": [[1] * 5], "target": [[1] * 4]}, model, tokens=tokens)


def test_numbers_of_numpy_are_numbers(model):
    found = Batches(ROWS, model, tokens=np.int64(40), seed=np.int64(2)).fingerprint()
    assert json.loads(json.dumps(found)) == Batches(ROWS, model, tokens=40, seed=2).fingerprint()


def test_wrong_mode(model):
    with pytest.raises(ValueError, match=r"mode.*'mxed'"):
        Batches(ROWS, model, mode="mxed")


def test_the_caller_may_change_what_it_gave(model):
    """Batches are looked up later; they are those of the examples that were given."""
    rows = {"source": [np.array([1, 2]), np.array([3])], "target": [np.array([1], np.int32), np.array([2], np.int32)]}
    batches = Batches(rows, model, tokens=50)
    before = [plain(batch) for batch in batches]
    for each in rows.values():
        for row in each:
            row[:] = 5
    assert [plain(batch) for batch in batches] == before


def test_nothing_of_a_layer_is_made(monkeypatch):
    """Batches can be planned before the model's variables exist."""
    model = make_model()
    monkeypatch.setattr(keras.layers.Dense, "call", lambda *_: 1 / 0)
    assert len(Batches(make_rows(4), model, tokens=500)) == 1
