"""Models of several parts: what each part reads, and the same as one joint callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from split_models import FEATURES, SOURCES, TARGETS, Reader, Tower, make_rows, masked_mean, randomize

import seq2split as s2s
from seq2split.split.sequences import Sequences


class Dag(NamedTuple):
    """A model of several parts.

    Attributes:
        nodes: The nodes.
        joint: All parts at once: takes the fields as `Sequences` and returns what the part with the loss does.
        layers: The layer of each part, or its variables.
        graphs: The number of part graphs.
    """

    nodes: list[s2s.Node]
    joint: Callable
    layers: dict[str, Any]
    graphs: int

    @property
    def variables(self) -> dict[str, list]:
        """The trainable variables of each part."""
        return {name: getattr(layer, "trainable_variables", layer) for name, layer in self.layers.items()}


def tower(name):
    layer = Tower(name=name)
    randomize(layer.trainable_variables)
    return layer


def reader(count):
    layer = Reader(2 * FEATURES * count, name="reader")
    randomize(layer.trainable_variables)
    return layer


def bridge(name):
    """A part that reads no field: a plain function, whose variables are named."""
    kernel = tf.Variable(np.random.default_rng(7).normal(size=[FEATURES, FEATURES]) * 0.4)
    return bend(kernel), [kernel], name


def bend(kernel):
    def call(encoded):
        states = Sequences(tf.sin(encoded["states"].values @ kernel), encoded["states"].lengths)
        return {"states": states, "mean": encoded["mean"] @ kernel}

    return call


class Second(tf.Module):
    """An encoder that reads another's outputs beside a field of its own."""

    def __init__(self):
        super().__init__("second")
        self.table = tf.Variable(np.random.default_rng(8).normal(size=[SOURCES, FEATURES]), name="table")

    def __call__(self, encoded, source):
        values = tf.tanh(tf.gather(self.table, source.values) + masked_mean(encoded["states"])[:, None] + 0.2)
        return {"states": Sequences(values, source.lengths), "mean": encoded["mean"] * masked_mean(encoded["states"])}


def two_encoders():
    first, second, last = tower("first"), tower("second"), reader(2)
    nodes = [
        s2s.Node(first, "one", s2s.Buckets([2, 4])),
        s2s.Node(second, "two", s2s.Buckets([1, 3, 5])),
        s2s.Node(last, ["first", "second", "target"], s2s.Buckets([2, 3]), loss=True),
    ]
    layers = {"first": first, "second": second, "reader": last}
    return Dag(nodes, lambda one, two, target: last(first(one), second(two), target), layers, 2 + 3 + 2)


def encoder_bridge_decoder():
    first, (middle, kernel, name), last = tower("first"), bridge("bridge"), reader(1)
    nodes = [
        s2s.Node(first, "one", s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(middle, variables=kernel, name=name), "first"),
        s2s.Node(last, ["bridge", "target"], s2s.Buckets([2, 3]), loss=True),
    ]
    layers = {"first": first, "bridge": kernel, "reader": last}
    return Dag(nodes, lambda one, two, target: last(middle(first(one)), target), layers, 2 + 2 + 2)


def read_twice():
    """The outputs of the encoder go to a bridge and to the decoder, and the bridge's twice to it."""
    first, (middle, kernel, name), last = tower("first"), bridge("bridge"), reader(3)
    nodes = [
        s2s.Node(first, "one", s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(middle, variables=kernel, name=name), "first"),
        s2s.Node(last, ["first", "bridge", "bridge", "target"], s2s.Buckets([2, 3]), loss=True),
    ]

    def joint(one, two, target):
        encoded = first(one)
        return last(encoded, middle(encoded), middle(encoded), target)

    return Dag(nodes, joint, {"first": first, "bridge": kernel, "reader": last}, 2 + 2 + 2)


def chain_of_fields():
    """Three groupings in a row, and one encoder read by the two others."""
    first, second, last = tower("first"), Second(), reader(2)
    nodes = [
        s2s.Node(first, "one", s2s.Buckets([2, 4])),
        s2s.Node(second, ["first", "two"], s2s.Buckets([1, 3, 5])),
        s2s.Node(last, ["second", "first", "target"], s2s.Buckets([2, 3]), loss=True),
    ]

    def joint(one, two, target):
        encoded = first(one)
        return last(second(encoded, two), encoded, target)

    return Dag(nodes, joint, {"first": first, "second": second, "reader": last}, 2 + 3 + 2)


def one_field_twice():
    """Two encoders of the same field, each in its own buckets."""
    first, second, last = tower("first"), tower("second"), reader(2)
    nodes = [
        s2s.Node(first, "one", s2s.Buckets([2, 4])),
        s2s.Node(second, "one", s2s.Buckets([1, 3, 4])),
        s2s.Node(last, ["first", "second", "target"], s2s.Buckets([2, 3]), loss=True),
    ]
    layers = {"first": first, "second": second, "reader": last}
    return Dag(nodes, lambda one, two, target: last(first(one), second(one), target), layers, 2 + 3 + 2)


DAGS = [two_encoders, encoder_bridge_decoder, read_twice, chain_of_fields, one_field_twice]
TRIPLES = ((4, 1, 3), (1, 5, 1), (0, 2, 2), (3, 3, 1), (2, 1, 3), (2, 4, 2), (1, 0, 2), (3, 5, 3))


def dag_batch():
    lengths = zip(*TRIPLES, strict=True)
    vocabularies = {"one": SOURCES, "two": SOURCES, "target": TARGETS}
    fields = zip(vocabularies.items(), lengths, strict=True)
    return {name: make_rows(each, vocabulary, seed=len(name)) for (name, vocabulary), each in fields}


class Embedder(tf.Module):
    """An encoder whose embeddings a decoder may share."""

    def __init__(self):
        super().__init__("embedder")
        self.table = tf.Variable(np.random.default_rng(9).normal(size=[SOURCES, FEATURES]), name="table")

    def encode(self, source):
        values = tf.tanh(tf.gather(self.table, source.values))
        return {"states": Sequences(values, source.lengths), "mean": masked_mean(Sequences(values, source.lengths))}

    def decode(self, encoded, target):
        """Return a sum over the target's positions; it multiplies the embeddings, so that their gradient is dense."""
        scores = tf.einsum("rf,vf->rv", encoded["mean"] + masked_mean(encoded["states"]), self.table)
        losses = tf.reduce_logsumexp(scores, axis=1)[:, None] - tf.gather(scores, target.values % SOURCES, batch_dims=1)
        return tf.reduce_sum(losses * tf.sequence_mask(target.lengths, losses.shape[1], losses.dtype))
