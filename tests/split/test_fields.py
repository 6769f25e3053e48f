"""What a batch may look like, and what is said where it can't be read."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from split_models import (
    FEATURES,
    TARGETS,
    Joint,
    Reader,
    assert_close,
    make_batch,
    make_rows,
    masked_mean,
    sequences,
    shared,
)

import seq2split as s2s
from seq2split.split.fields import read_fields, rows_of
from seq2split.split.grouping import Group
from seq2split.split.sequences import Sequences

FORMS = {
    "lists": lambda rows: rows,
    "arrays": lambda rows: [np.array(row, np.int64) for row in rows],
    "sequences of arrays": sequences,
    "sequences of tensors": lambda rows: Sequences(*map(tf.constant, sequences(rows))),
    "wide sequences": lambda rows: sequences(rows, time=9),
    "int64 sequences": lambda rows: Sequences(sequences(rows).values.astype(np.int64), sequences(rows).lengths),
    "garbage in the padding": lambda rows: with_garbage(sequences(rows, time=5)),
}


def with_garbage(given):
    padding = np.arange(given.values.shape[1]) >= given.lengths[:, None]
    return Sequences(np.where(padding, -100, given.values), given.lengths)


@pytest.mark.parametrize("form", FORMS)
def test_form_of_the_batch(form):
    batch = {field: FORMS[form](rows) for field, rows in make_batch().items()}
    assert_close(shared().model.loss_and_gradients(batch), shared().model.loss_and_gradients(make_batch()))


def test_fields_that_no_part_reads_are_ignored():
    batch = make_batch() | {"names": ["x"]}
    assert_close(shared().model.loss_and_gradients(batch), shared().model.loss_and_gradients(make_batch()))


def test_float_features():
    """Audio: rows of `[time, 3]`."""
    kernel = tf.Variable(np.random.default_rng(4).normal(size=[3, FEATURES]).astype(np.float32))

    def listen(audio):
        states = Sequences(tf.tanh(audio.values @ kernel + 0.3), audio.lengths)
        return {"states": states, "mean": masked_mean(states)}

    last = Reader(2 * FEATURES, dtype="float32", name="reader")
    nodes = [
        s2s.Node(s2s.Part(listen, variables=[kernel]), "audio", s2s.Buckets([2, 6])),
        s2s.Node(last, ["listen", "target"], s2s.Buckets([2, 3]), loss=True),
    ]
    hearing = s2s.SplitModel(nodes, fields={"audio": tf.TensorSpec([3], tf.float32)}, row_multiple=2)
    rng = np.random.default_rng(5)
    audio = [rng.normal(size=[time, 3]) for time in (6, 1, 0, 5, 2)]
    target = make_rows([3, 1, 2, 2, 3], TARGETS)
    padded = sequences(audio, np.float32)
    joint = Joint(lambda a, t: last(listen(a), t), {"listen": [kernel], "reader": last.trainable_variables})
    expected = joint([padded, target], 11)
    for given in (audio, padded, Sequences(padded.values.astype(np.float64), padded.lengths)):
        assert_close(hearing.loss_and_gradients({"audio": given, "target": target}), expected, 1e-5)


def test_rows_of_a_group_are_padded_and_filled():
    given = Sequences(np.array([[1, 2, 9], [3, 9, 9], [4, 5, 6]], np.int32), np.array([2, 1, 3]))
    values, lengths = rows_of(given, Group(length=4, rows=np.array([2, 0]), size=3))
    np.testing.assert_array_equal(values, [[4, 5, 6, 0], [1, 2, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(lengths, [3, 2, 0])


# Errors


def test_a_name_of_a_field_and_a_part_is_an_error():
    """In the batch, even if no part reads the field, and in `SplitModel(fields=...)`."""
    message = "field 'encoder', which is also the name of a part.*Rename the field"
    for call in (shared().model.loss_and_gradients, shared().model.losses, shared().model.weights):
        with pytest.raises(ValueError, match=message):
            call(make_batch() | {"encoder": [[1]]})
    positions = {"source": tf.TensorSpec([], tf.int32)}
    assert list(read_fields(make_batch(), positions, ["encoder"])) == ["source"]
    with pytest.raises(ValueError, match=message):
        read_fields(make_batch() | {"encoder": [[1]]}, positions, ["encoder"])


BATCHES = {
    "missing field": ({"source": [[1]]}, r"has the fields \['source'\]; the model reads \['target'\]"),
    "differing rows": ({"source": [[1]], "target": [[1], [2]]}, r"\{'source': 1, 'target': 2\} rows"),
    "no rows": ({"source": [], "target": []}, r"one or more"),
    "floats for integers": ({"source": [[0.5]], "target": [[1]]}, r"'source' can't be read as int32 positions"),
    "float array": (
        {"source": Sequences(np.ones([1, 2]), np.array([1])), "target": [[1]]},
        r"'source' can't be read as int32 positions.*fields=",
    ),
    "long lengths": (
        {"source": Sequences(np.ones([1, 2], int), np.array([3])), "target": [[1]]},
        r"'source' has values \[1, 2\].*no length above the time",
    ),
    "lengths of other rows": (
        {"source": Sequences(np.ones([1, 2], int), np.array([1, 1])), "target": [[1]]},
        r"'source' has values \[1, 2\] and lengths \[2\]",
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batch_errors(name):
    batch, message = BATCHES[name]
    for call in (shared().model.loss_and_gradients, shared().model.losses):
        with pytest.raises(ValueError, match=message):
            call(batch)


@pytest.mark.parametrize("field", ["source", "target"])
def test_overlong_row_is_named(field):
    batch = {"source": [[1]], "target": [[1]]} | {field: [[1] * 7]}
    with pytest.raises(s2s.OverlongError, match="longest is 7") as caught:
        shared().model.loss_and_gradients(batch)
    reading = {"source": "encoder", "target": "decoder"}[field]
    assert f"in batch field {field!r}, which part {reading!r} reads" in caught.value.__notes__


def test_integers_that_are_too_large_are_refused():
    """As in lists: numpy would let them wrap to other pieces."""
    values = np.array([[2**40 + 5, 1]])
    with pytest.raises(ValueError, match=r"batch field 'source' can't be read as int32.*1099511627781"):
        read_fields({"source": Sequences(values, np.array([2]))}, {"source": tf.TensorSpec([], tf.int32)})
    found = read_fields({"source": Sequences(values % 7, np.array([2]))}, {"source": tf.TensorSpec([], tf.int32)})
    assert found["source"].values.dtype == np.int32
