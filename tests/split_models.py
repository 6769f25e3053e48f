"""The models and batches of the tests of `split/`, and the unsplit model that they are compared with.

`Joint` is the independent reference: one plain `tf.function` with one ordinary `tf.GradientTape` over all callables, on
the whole batch padded to its longest row.
"""

from __future__ import annotations

import functools
import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import seq2split as s2s
from seq2split.buckets import pad_rows
from seq2split.models import RecurrentDecoder, RecurrentEncoder
from seq2split.split.results import BatchLosses, LossAndGradients
from seq2split.split.sequences import Sequences

SOURCES, TARGETS, BOS = 11, 9, 2
FEATURES, UNITS = 6, 4
# Lengths of source and target: three of the four bucket pairs, in no order, empty rows among them.
MIXED = ((3, 3), (1, 1), (0, 1), (2, 1), (1, 1), (3, 2), (1, 0))
POSITIONS = sum(target for _, target in MIXED)


def randomize(variables):
    rng = np.random.default_rng(1)
    for variable in variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)


def make_layers(
    dtype="float64", *, cell="gru", attention="luong", bidirectional=False, layers=1, dropout=0.0, unroll="auto"
):
    common = {"cell": cell, "layers": layers, "dropout": dropout, "unroll": unroll, "dtype": dtype}
    encoder = RecurrentEncoder(SOURCES, 3, FEATURES, bidirectional=bidirectional, name="encoder", **common)
    decoder = RecurrentDecoder(TARGETS, FEATURES, BOS, 3, UNITS, attention=attention, name="decoder", **common)
    randomize(encoder.trainable_variables + decoder.trainable_variables)
    return encoder, decoder


def split(encoder, decoder, sources=(1, 3), targets=(1, 3), **options):
    return s2s.SplitModel(
        [
            s2s.Node(encoder, "source", s2s.Buckets(sources), name="encoder"),
            s2s.Node(decoder, ["encoder", "target"], s2s.Buckets(targets), loss=True, name="decoder"),
        ],
        **options,
    )


def make_rows(lengths, vocabulary, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, [length]).tolist() for length in lengths]


def make_batch(pairs=MIXED):
    return {
        "source": make_rows([source for source, _ in pairs], SOURCES),
        "target": make_rows([target for _, target in pairs], TARGETS, seed=1),
    }


def take(batch, rows):
    return {field: [values[row] for row in rows] for field, values in batch.items()}


def sequences(rows, dtype=np.int32, time=None):
    lengths = np.array([len(row) for row in rows], np.int32)
    return Sequences(pad_rows(rows, time or int(lengths.max()), dtype), lengths)


class Joint:
    """The unsplit model.

    Args:
        fn: All parts at once: takes the fields as `Sequences` and returns a nest whose first leaf is the loss sum.
        variables: The variables of each part, by its name.
    """

    def __init__(self, fn, variables):
        self._fn, self._variables = fn, variables
        self._step = tf.function(self._run, autograph=False)

    def __call__(self, batch, positions):
        """Return the losses and metrics for a position, and the gradients by part."""
        fields = [each if isinstance(each, Sequences) else sequences(each) for each in batch]
        losses, gradients = self._step(*tf.nest.map_structure(tf.convert_to_tensor, fields))
        gradients = iter([None if each is None else each / positions for each in gradients])
        found = {name: [next(gradients) for _ in variables] for name, variables in self._variables.items()}
        return [loss / positions for loss in losses], found

    def _run(self, *fields):
        values = [
            variable.value if isinstance(variable, keras.Variable) else variable
            for variables in self._variables.values()
            for variable in variables
        ]
        with tf.GradientTape() as tape:
            tape.watch(values)
            losses = tf.nest.flatten(self._fn(*fields))
        dense = [each if each is None else tf.convert_to_tensor(each) for each in tape.gradient(losses[0], values)]
        return losses, dense


def joint_of(encoder, decoder):
    variables = {layer.name: layer.trainable_variables for layer in (encoder, decoder)}
    return Joint(lambda source, target: decoder(encoder(source, training=True), target, training=True), variables)


def dense(gradients):
    return {
        name: [None if each is None else tf.convert_to_tensor(each) for each in part]
        for name, part in gradients.items()
    }


def figures(losses: BatchLosses) -> list[float]:
    """Return the loss and the metrics, in the order in which a part with a loss returns them."""
    return [float(losses.loss), *map(float, losses.metrics.values())]


def assert_close(found, expected, tolerance=1e-12, *, cancelling=False):
    """Check losses and gradients, each relative to its largest entry.

    Args:
        found: What `loss_and_gradients` returns, or a list of the loss and the metrics, and the gradients by part.
        expected: Likewise.
        tolerance: The relative tolerance.
        cancelling: True where sums cancel in float32, and the rounding of their terms is all that is left of a
            gradient: then it is compared relative to the largest entry of all.
    """
    (losses, gradients), (expected_losses, expected_gradients) = map(_unpacked, (found, expected))
    np.testing.assert_allclose(losses, expected_losses, rtol=tolerance)
    left, right = dense(gradients), dense(expected_gradients)
    assert left.keys() == right.keys()
    largest = max(np.abs(each).max() for part in right.values() for each in part if each is not None)
    for name in right:
        for one, other in zip(left[name], right[name], strict=True):
            assert (one is None) == (other is None)
            if other is not None:
                scale = np.abs(other).max()
                assert scale > 0
                np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * (largest if cancelling else scale))


def _unpacked(result):
    return (figures(result), result.gradients) if isinstance(result, LossAndGradients) else result


@functools.cache
def shared():
    """Return a small model in float64 for the properties of the grouping, built once."""
    encoder, decoder = make_layers(attention="bahdanau")
    return SimpleNamespace(encoder=encoder, decoder=decoder, model=split(encoder, decoder, (1, 3, 5), (1, 3, 4)))


# Layers that are cheap to trace


class Tower(keras.Layer):
    """An encoder that is cheap to trace: embeddings, a dense layer, and a masked mean.

    The padded positions of its states are not zero, so that whoever forgets a mask is caught.
    """

    def __init__(self, features=FEATURES, dtype="float64", name=None):
        super().__init__(dtype=dtype, name=name)
        self.table = self.add_weight(shape=(SOURCES, 3), name="table")
        self.kernel = self.add_weight(shape=(3, features), name="kernel")

    def call(self, source):
        values = tf.tanh(tf.gather(self.table.value, source.values) @ self.kernel.value + 0.5)
        states = Sequences(values, source.lengths)
        return {"states": states, "mean": masked_mean(states)}


def masked_mean(states):
    """Return the mean over the real positions, `[rows, features]`; zero for an empty row."""
    real = tf.sequence_mask(states.lengths, tf.shape(states.values)[1], states.values.dtype)
    sums = tf.reduce_sum(states.values * real[:, :, None], 1)
    return sums / tf.maximum(tf.reduce_sum(real, 1), 1.0)[:, None]


class Sums(NamedTuple):
    """What a `Reader` returns."""

    loss: Any
    squares: Any


class Reader(keras.Layer):
    """A decoder that is cheap to trace: predicts pieces from the summaries of any number of encoders."""

    def __init__(self, features, dtype="float64", name=None):
        super().__init__(dtype=dtype, name=name)
        self.table = self.add_weight(shape=(TARGETS, features), name="table")
        self.kernel = self.add_weight(shape=(features, TARGETS), name="kernel")

    def call(self, *args):
        *encodeds, target = args
        read = tf.concat([tf.concat([masked_mean(each["states"]), each["mean"]], 1) for each in encodeds], 1)
        previous = tf.pad(target.values[:, :-1], [[0, 0], [1, 0]])
        logits = tf.tanh(tf.gather(self.table.value, previous) + read[:, None]) @ self.kernel.value
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target.values, logits)
        real = tf.sequence_mask(target.lengths, tf.shape(target.values)[1], losses.dtype)
        return Sums(tf.reduce_sum(losses * real), tf.reduce_sum(losses**2 * real))


@functools.cache
def grid():
    """Return a model with six buckets on each side, and how often each pass of its encoder ran."""
    encoder, decoder = Tower(), Reader(2 * FEATURES)
    randomize(encoder.trainable_variables + decoder.trainable_variables)
    counts = SimpleNamespace(forward=tf.Variable(0, trainable=False), backward=tf.Variable(0, trainable=False))

    @tf.custom_gradient
    def counted(values):
        counts.forward.assign_add(1)

        def backward(values_ct):
            counts.backward.assign_add(1)
            return values_ct

        return tf.identity(values), backward

    def encode(source):
        encoded = encoder(source)
        return encoded | {"mean": counted(encoded["mean"])}

    part = s2s.Part(encode, name="encoder", variables=encoder.trainable_variables)
    nodes = [
        s2s.Node(part, "source", s2s.Buckets(range(1, 7))),
        s2s.Node(decoder, ["encoder", "target"], s2s.Buckets(range(1, 7)), loss=True, name="decoder"),
    ]
    return SimpleNamespace(nodes=nodes, counts=counts, model=s2s.SplitModel(nodes), encoder=encoder, decoder=decoder)


ALL_PAIRS = tuple(itertools.product(range(1, 7), range(1, 7)))
