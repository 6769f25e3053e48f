"""Models that nobody here wrote, split and unsplit: a table of subjects (interop_subjects.py) × properties.

The unsplit model is the independent reference: the package's own model in one plain `tf.function` with an ordinary
`tf.GradientTape`, on the whole batch padded to its longest row.
"""

from __future__ import annotations

import functools
import re
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from engine_trials import bookkeeping, operations, values
from interop_subjects import SIDE, SUBJECTS, VOCABULARY, precision, randomize, variables_of

import seq2split as s2s
from seq2split.buckets import pad_rows
from seq2split.engine.passes import ForwardPass, LossPass
from seq2split.split.gradients import add_up
from seq2split.split.sequences import Sequences

# T5 is told its masks by arguments, and warns that others don't reach its attention.
pytestmark = pytest.mark.filterwarnings("ignore:.*T5MultiHeadAttention.* was passed an input with a mask")
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
# Lengths of source and target. No source is empty: attention over nothing but padding depends on how much there is.
BATCHES = {
    "mixed": ((3, 2), (8, 6), (1, 4), (5, 1), (2, 6), (7, 3)),  # every bucket, in no order
    "homogeneous": ((8, 4), (6, 3), (7, 4), (8, 3)),
}
SAME_LENGTHS = ((8, 4),) * 4


def rows_of(subjects, dtypes):
    """A parameter for each subject and dtype, skipped where its package is missing."""
    return [
        pytest.param(
            each.name,
            dtype,
            marks=pytest.mark.skipif(each.missing is not None, reason=each.missing or ""),
            id=f"{each.name}-{dtype}",
        )
        for each in subjects
        for dtype in dtypes
    ]


def over(subjects, dtypes=("float64",)):
    """Parametrize a test; the scope keeps the tests of a subject together, so that few processes make it."""
    return pytest.mark.parametrize(("name", "dtype"), rows_of(subjects, dtypes), scope="module")


every_subject = over(SUBJECTS.values())
every_sharing_subject = over(each for each in SUBJECTS.values() if each.shared)


class Trial:
    """A subject in one dtype: its split model, and the unsplit one."""

    def __init__(self, name: str, dtype: str, dropout: float = 0.0):
        self.subject, self.dtype = SUBJECTS[name], dtype
        with precision(dtype):
            self.case, position = self.subject.make(dropout), self.subject.position
        owners = {"encoder": self.case.encoder, "decoder": self.case.decoder}
        self.variables = {part: variables_of(owner, "trainable_variables") for part, owner in owners.items()}
        everything = {id(each): each for owner in owners.values() for each in variables_of(owner)}
        randomize(list(everything.values()), self.subject.noise)
        self.distinct = {key: each for key, each in everything.items() if each.trainable}
        self.states = [each for each in everything.values() if not each.trainable]
        self.initial = values(self.states)
        self.counters = {part: tf.Variable(0, trainable=False) for part in owners}
        self.parts = {
            part: s2s.Part(counted(fn, self.counters[part]), variables=self.variables[part], name=part)
            for part, fn in {"encoder": self.case.encode, "decoder": self.case.decode}.items()
        }
        buckets = {part: s2s.Buckets(lengths) for part, lengths in self.subject.buckets.items()}
        encoder = s2s.Node(self.parts["encoder"], "source", buckets["encoder"])
        nodes = [encoder, s2s.Node(self.parts["decoder"], [encoder, "target"], buckets["decoder"], loss=True)]
        self._position = position
        # Batch normalization lets rows affect one another, and takes no filler.
        filler = 1 if self.subject.images else 4
        self.model = s2s.SplitModel(nodes, fields={"source": position}, row_multiple=filler)

    def reset(self) -> None:
        """Put states and counters back to the start."""
        for state, value in zip(self.states, self.initial, strict=True):
            state.assign(value)
        for counter in self.counters.values():
            counter.assign(0)

    def batch(self, lengths) -> dict[str, Sequences]:
        """Random rows of these lengths; images are all of one size."""
        rng = np.random.default_rng(len(lengths))
        sources, targets = zip(*lengths, strict=True)
        source = padded([rng.integers(2, VOCABULARY, length) for length in sources])
        if self.subject.images:
            images = rng.normal(size=[len(lengths), SIDE, SIDE, 3]).astype(self.dtype)
            source = Sequences(images, np.full(len(lengths), SIDE, np.int32))
        return {"source": source, "target": padded([rng.integers(2, VOCABULARY, length) for length in targets])}

    def unsplit(self, batch):
        """The loss for a position and the gradients by variable of the unsplit model, from the initial states."""
        self.reset()
        positions = float(batch["target"].lengths.sum())
        loss, gradients = self._trained(batch["source"], batch["target"])
        return loss / positions, {key: each / positions for key, each in zip(self.distinct, gradients, strict=True)}

    def unsplit_inference(self, batch):
        """The loss for a position and what the encoder returns, from the initial states."""
        self.reset()
        loss, encoded = tf.function(self.case.whole, autograph=False)(batch["source"], batch["target"], training=False)
        return loss / float(batch["target"].lengths.sum()), encoded

    @functools.cached_property
    def _trained(self):
        length = SIDE if self.subject.images else None
        return self.trained_at(length, None)

    def trained_at(self, source, target):
        """The concrete function of the unsplit step at two padded lengths."""
        position, lengths = self._position, tf.TensorSpec([None], tf.int32)
        specs = [
            Sequences(tf.TensorSpec([None, source, *position.shape], position.dtype), lengths),
            Sequences(tf.TensorSpec([None, target], tf.int32), lengths),
        ]
        return tf.function(self._run, autograph=False).get_concrete_function(*specs)

    def _run(self, source, target):
        with tf.GradientTape() as tape:
            loss, _ = self.case.whole(source, target, training=True)
        found = tape.gradient(loss, [variable.value for variable in self.distinct.values()])
        return loss, [tf.convert_to_tensor(each) for each in found]

    def step(self, batch, model=None):
        """The loss for a position and the gradients by variable of the split model, from the initial states."""
        self.reset()
        loss, gradients = (model or self.model).loss_and_gradients(batch)
        return loss, self.by_variable(gradients)

    def graphs(self):
        """The part graphs of one bucket pair."""
        self.step(self.batch(SAME_LENGTHS))  # builds them
        return self.model.graphs["encoder", self.subject.buckets["encoder"][-1]], self.model.graphs["decoder", 4]

    def apart(self, batch):
        """The gradients of each part for a batch of one bucket pair, by hand."""
        encoder, decoder = self.graphs()
        encoded, residuals = encoder.forward(batch["source"])
        share = 1.0 / float(batch["target"].lengths.sum())
        _, (encoded_ct, _), gradients = decoder.value_and_gradients(encoded, batch["target"], loss_ct=share)
        return {"encoder": encoder.backward(residuals, encoded_ct)[1], "decoder": gradients}

    def of_variable(self, gradients, key):
        """The gradients of one variable, one from each part that it stands in."""
        found = [
            gradient
            for part, each in gradients.items()
            for variable, gradient in zip(self.variables[part], each, strict=True)
            if id(variable) == key
        ]
        return [each if each is None else tf.convert_to_tensor(each) for each in found]

    def by_variable(self, gradients):
        """The gradients of all parts, summed where a variable stands in several."""
        return {key: add_up(self.of_variable(gradients, key)) for key in self.distinct}

    def check(self, found, expected) -> None:
        """Compare loss and gradients, each relative to its largest entry.

        In float32, where sums cancel, relative to the largest entry of all.
        """
        limit = TOLERANCES[self.dtype]
        np.testing.assert_allclose(found[0], expected[0], rtol=limit)
        largest = max(np.abs(each).max() for each in expected[1].values())
        for key, variable in self.distinct.items():
            scale = np.abs(expected[1][key]).max()
            zero = re.search(self.subject.zero, variable.path)
            assert (scale < 1e-6 * largest) == bool(zero), (variable.path, scale, largest)
            floor = limit * (largest if zero or self.dtype == "float32" else scale)
            np.testing.assert_allclose(found[1][key], expected[1][key], rtol=0, atol=floor, err_msg=variable.path)


def counted(fn, counter):
    """Move the counter whenever the function runs, by a side effect inside it."""

    def call(*args, training):
        counter.assign_add(1)
        return fn(*args, training=training)

    return call


def padded(rows) -> Sequences:
    """Rows padded to the longest."""
    lengths = np.array([len(row) for row in rows], np.int32)
    return Sequences(pad_rows(rows, int(lengths.max()), np.int32), lengths)


@functools.cache
def trial(name: str, dtype: str, dropout: float = 0.0) -> Trial:
    return Trial(name, dtype, dropout)


# Equal to the unsplit model


@pytest.mark.parametrize("lengths", BATCHES)
@over(SUBJECTS.values(), TOLERANCES)
def test_loss_and_gradients_equal_those_of_the_unsplit_model(name, dtype, lengths):
    subject = trial(name, dtype)
    batch = subject.batch(BATCHES[lengths])
    subject.check(subject.step(batch), subject.unsplit(batch))


@every_subject
def test_states_move_as_by_one_unsplit_step(name, dtype):
    """The moving statistics of batch normalization move once; no other subject has states that move."""
    subject = trial(name, dtype)
    batch = subject.batch(BATCHES["mixed"])
    subject.unsplit(batch)
    expected = values(subject.states)
    subject.step(batch)
    close_states(subject, expected)
    moved = [np.any(now != before) for now, before in zip(expected, subject.initial, strict=True)]
    assert any(moved) == subject.subject.images


def close_states(subject, expected):
    for state, moved in zip(subject.states, expected, strict=True):
        np.testing.assert_allclose(state, moved, rtol=0, atol=TOLERANCES[subject.dtype] * np.abs(moved).max())


@every_subject
def test_dropout_equals_that_of_the_unsplit_model(name, dtype):
    """Rows of the same lengths meet the same masks, drawn once."""
    subject = trial(name, dtype, dropout=0.3)
    batch = subject.batch(SAME_LENGTHS)
    expected = subject.unsplit(batch)
    states = values(subject.states)
    found = subject.step(batch)
    subject.check(found, expected)
    close_states(subject, states)
    again, _ = subject.model.loss_and_gradients(batch)
    assert abs(float(again) - float(found[0])) > 1e-4, "the next step draws other masks"


@every_subject
def test_inference_equals_that_of_the_unsplit_model(name, dtype):
    subject = trial(name, dtype, dropout=0.3)
    batch = subject.batch(BATCHES["mixed"])
    loss, encoded = subject.unsplit_inference(batch)
    np.testing.assert_allclose(subject.model.losses(batch).loss, loss, rtol=TOLERANCES[dtype])
    found = subject.model.infer(batch, "encoder")
    if not subject.subject.images:
        mask = tf.sequence_mask(encoded.lengths, dtype=dtype)[:, :, None]
        found, encoded = found.values * mask, encoded.values * mask
    np.testing.assert_allclose(found, encoded, rtol=0, atol=TOLERANCES[dtype] * np.abs(encoded).max())
    np.testing.assert_equal(values(subject.states), subject.initial)


@every_sharing_subject
def test_a_variable_of_two_parts_gets_one_summed_gradient(name, dtype):
    """The embeddings of source and target and the output projection are one variable."""
    subject = trial(name, dtype)
    batch = subject.batch(SAME_LENGTHS)
    (shared,) = {id(each) for each in subject.variables["encoder"]} & {
        id(each) for each in subject.variables["decoder"]
    }
    assert subject.distinct[shared].path == "token_embedding/embeddings"
    expected = subject.unsplit(batch)[1][shared]
    floor = TOLERANCES[dtype] * np.abs(expected).max()
    own = subject.of_variable(subject.apart(batch), shared)
    np.testing.assert_allclose(tf.add_n(own), expected, rtol=0, atol=floor)
    assert all(np.abs(each - expected).max() > 1e6 * floor for each in own), "each part has a share"
    summed, none = subject.of_variable(subject.model.loss_and_gradients(batch)[1], shared)
    np.testing.assert_allclose(summed, expected, rtol=0, atol=floor)
    assert none is None


# Graphs, traces and runs


@every_subject
def test_graphs_are_as_many_as_buckets(name, dtype):
    subject = trial(name, dtype)
    model, buckets = subject.model, subject.subject.buckets
    model.loss_and_gradients(subject.batch(BATCHES["mixed"]))
    assert model.graphs.keys() == {(part, length) for part, lengths in buckets.items() for length in lengths}
    before = model.traces
    assert before == len(model.graphs) == sum(map(len, buckets.values()))
    for lengths in (BATCHES["mixed"][::-1], BATCHES["homogeneous"], BATCHES["mixed"][3:4]):
        model.loss_and_gradients(subject.batch(lengths))
    assert model.traces == before, "seen buckets trace nothing, whatever the rows"


@pytest.mark.parametrize("lengths", BATCHES)
@every_subject
def test_each_forward_runs_once(name, dtype, lengths):
    subject = trial(name, dtype)
    subject.step(subject.batch(BATCHES[lengths]))
    groups = {part: len(each) if lengths == "mixed" else 1 for part, each in subject.subject.buckets.items()}
    assert {part: int(counter) for part, counter in subject.counters.items()} == groups


@every_subject
def test_backward_runs_no_forward_operation(name, dtype):
    subject = trial(name, dtype)
    encoder, decoder = subject.graphs()
    lengths = [graph.input_specs[-1].values.shape[1] for graph in (encoder, decoder)]
    traced = encoder.passes[ForwardPass]
    backward = operations(traced.backward.concrete)
    both = operations(traced.run.concrete) + backward + operations(decoder.passes[LossPass].run.concrete)
    # Type by type, the parts' graphs together hold no more operations than the unsplit step; but for bookkeeping, the
    # counters, and the padding mask, which either part makes.
    more = set(by_kind(both) - by_kind(operations(subject.trained_at(*lengths))))
    assert more <= bookkeeping(backward) | MASK | ({"Const"} if "Empty" in backward else set())
    assert [operation for operation in backward if re.search("Random|Rng|Assign|ReadVariable", operation)] == []


MASK = {"Shape", "Range", "ExpandDims", "Less", "Cast"}


def by_kind(counts):
    """All products as one type: Keras chooses by what it knows of the shapes, and the boundary leaves times open."""
    kinds = Counter()
    for operation, count in counts.items():
        kinds["product" if operation in ("Einsum", "MatMul", "BatchMatMulV2") else operation] += count
    return kinds
