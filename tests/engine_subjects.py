"""The subjects of the engine's tests: every callable that a part must split, a row each.

A new row gets every property by standing here. Subjects with both dtypes are tested unbuilt in float32 and built in
float64, where that makes a difference.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Pair = namedtuple("Pair", ["first", "second"])
BOTH = ("float32", "float64")


@dataclass
class Case:
    """A fresh callable and what to call it with.

    Attributes:
        fn: The callable.
        calls: One or more tuples of arguments.
        specs: The signature to build for; by default that of the first call.
        variables: The variables that a plain function names.
        state: What `fn` assigns to, beside what it owns.
    """

    fn: Callable
    calls: list[tuple]
    specs: tuple | None = None
    variables: list | None = None
    state: list = field(default_factory=list)

    def signature(self) -> tuple:
        return self.specs or tf.nest.map_structure(as_spec, self.calls[0])


@dataclass(frozen=True)
class Subject:
    """A row of the table.

    Attributes:
        name: Its name.
        make: Makes a fresh case in a dtype.
        dtypes: The dtypes to test in.
        keras: Whether it is a Keras layer or model, which may be built before.
        rereads: Whether its backward runs forward operations or reads variables by design.
        sparse: Whether some gradients are `tf.IndexedSlices`.
    """

    name: str
    make: Callable[[str], Case]
    dtypes: tuple[str, ...] = BOTH
    keras: bool = False
    rereads: bool = False
    sparse: bool = False


SUBJECTS: dict[str, Subject] = {}


def subject(**properties: Any) -> Callable:
    """Make a row of a function that makes a case."""

    def register(make: Callable[[str], Case]) -> Callable[[str], Case]:
        SUBJECTS[make.__name__] = Subject(make.__name__, make, **properties)
        return make

    return register


def floats(dtype: str, *shape: int) -> np.ndarray:
    """Repeatable normal numbers."""
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def integers(*shape: int, below: int = 5) -> np.ndarray:
    """Repeatable integers, with duplicates."""
    return np.random.default_rng(sum(shape)).integers(0, below, size=shape).astype("int32")


def as_spec(array: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec(array.shape, array.dtype)


def variable(dtype: str, *shape: int) -> tf.Variable:
    return tf.Variable(floats(dtype, *shape) / 2, name="w")


# Keras layers and models


def layer(name: str, make: Callable[[str], Callable], *shapes: tuple[int, ...], **properties: Any) -> None:
    """Make a row of a Keras layer; a shape of `int` takes integers."""
    SUBJECTS[name] = Subject(
        name, lambda dtype: Case(make(dtype), [tuple(floats(dtype, *s) for s in shapes)]), keras=True, **properties
    )


class SelfAttention(keras.Layer):
    def __init__(self, dtype):
        super().__init__(dtype=dtype)
        self.attention = keras.layers.MultiHeadAttention(2, 3, dropout=0.25, dtype=dtype)

    def call(self, x, training=None):
        return self.attention(x, x, use_causal_mask=True, training=training)


class SharedSeeds(keras.Layer):
    """Two dropouts that share a seed generator: the order of its updates matters."""

    def __init__(self, dtype):
        super().__init__(dtype=dtype)
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x, training=None):
        if not training:
            return x, 2 * x
        return keras.random.dropout(x, 0.5, seed=self.seeds), keras.random.dropout(2 * x, 0.5, seed=self.seeds)


class Mixed(keras.Model):
    def __init__(self, dtype, vocabulary=5):
        super().__init__(dtype=dtype)
        self.embed = keras.layers.Embedding(vocabulary, 4, dtype=dtype)
        self.norm = keras.layers.BatchNormalization(dtype=dtype)
        self.rnn = keras.layers.GRU(3, return_sequences=True, unroll=False, dtype=dtype)
        self.drop = keras.layers.Dropout(0.5, seed=3, dtype=dtype)
        self.out = keras.layers.Dense(2, dtype=dtype)

    def call(self, tokens, training=None):
        hidden = self.rnn(self.norm(self.embed(tokens), training=training), training=training)
        return {"last": hidden[:, -1], "scores": self.out(self.drop(hidden, training=training))}

    def encode(self, tokens, training=None):
        return self.norm(self.embed(tokens), training=training)


def functional(dtype):
    tokens, other = keras.Input([3], dtype="int32"), keras.Input([4], dtype=dtype)
    embedded = keras.layers.Embedding(5, 4, dtype=dtype)(tokens)
    joined = keras.layers.Add(dtype=dtype)([embedded, keras.layers.RepeatVector(3, dtype=dtype)(other)])
    return keras.Model([tokens, other], [keras.layers.LSTM(3, dtype=dtype)(joined), keras.ops.mean(joined, axis=1)])


def sequential(dtype):
    layers = [
        keras.layers.Dense(4, activation="relu", dtype=dtype),
        keras.layers.Dropout(0.5, seed=1, dtype=dtype),
        keras.layers.LayerNormalization(dtype=dtype),
        keras.layers.Dense(3, dtype=dtype),
    ]
    return keras.Sequential(layers)


def rnn(kind, unroll):
    return lambda dtype: kind(3, unroll=unroll, return_sequences=True, return_state=True, dtype=dtype)


def bidirectional(dtype):
    return keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True, dtype=dtype), dtype=dtype)


layer("dense", lambda dtype: keras.layers.Dense(3, activation="tanh", dtype=dtype), (2, 4))
layer("lstm_while", rnn(keras.layers.LSTM, False), (2, 3, 4))
layer("lstm_unrolled", rnn(keras.layers.LSTM, True), (2, 3, 4))
layer("gru_while", rnn(keras.layers.GRU, False), (2, 3, 4))
layer("gru_unrolled", rnn(keras.layers.GRU, True), (2, 3, 4))
layer("bidirectional", bidirectional, (2, 3, 4))
layer("self_attention", SelfAttention, (2, 3, 4))
layer("attention", lambda dtype: keras.layers.MultiHeadAttention(2, 3, dtype=dtype), (2, 3, 4), (2, 5, 4))
layer("layer_normalization", lambda dtype: keras.layers.LayerNormalization(dtype=dtype), (2, 3, 4))
layer("batch_normalization", lambda dtype: keras.layers.BatchNormalization(dtype=dtype), (4, 3))
layer("dropout", lambda dtype: keras.layers.Dropout(0.5, seed=2, dtype=dtype), (4, 5))
layer("shared_seeds", SharedSeeds, (4, 5))
layer("sequential", sequential, (4, 3))


@subject(keras=True, sparse=True)
def embedding(dtype):
    return Case(keras.layers.Embedding(5, 3, dtype=dtype), [(integers(2, 6),)])


@subject(keras=True, sparse=True)
def functional_model(dtype):
    return Case(functional(dtype), [([integers(2, 3), floats(dtype, 2, 4)],)])


@subject(keras=True, sparse=True)
def subclassed_model(dtype):
    return Case(Mixed(dtype), [(integers(2, 4),)])


@subject(keras=True, sparse=True)
def method_of_a_model(dtype):
    return Case(Mixed(dtype).encode, [(integers(2, 4),)])


@subject(dtypes=("mixed_bfloat16",), keras=True, sparse=True)
def mixed_bfloat16(dtype):
    return Case(Mixed(keras.DTypePolicy(dtype)), [(integers(2, 4),)])


@subject(dtypes=("mixed_bfloat16",), keras=True)
def mixed_bfloat16_attention(dtype):
    return Case(SelfAttention(keras.DTypePolicy(dtype)), [(floats("float32", 2, 3, 4),)])


@subject(keras=True)
def frozen_layer(dtype):
    frozen = keras.layers.Dense(4, activation="tanh", trainable=False, dtype=dtype)
    return Case(keras.Sequential([frozen, keras.layers.Dense(3, dtype=dtype)]), [(floats(dtype, 2, 4),)])


@subject(keras=True)
def unknown_batch(dtype):
    stack = keras.Sequential([keras.layers.Dense(3, dtype=dtype), keras.layers.LayerNormalization(dtype=dtype)])
    return Case(stack, [(floats(dtype, 2, 4),), (floats(dtype, 5, 4),)], (tf.TensorSpec([None, 4], dtype),))


@subject(keras=True)
def unknown_time(dtype):
    spec = tf.TensorSpec([2, None, 4], dtype)
    return Case(bidirectional(dtype), [(floats(dtype, 2, 3, 4),), (floats(dtype, 2, 5, 4),)], (spec,))


# tf.Module and functions


class Affine(tf.Module):
    def __init__(self, dtype):
        super().__init__()
        self.w, self.b = variable(dtype, 4, 3), variable(dtype, 3)

    def __call__(self, x):
        return tf.tanh(x @ self.w + self.b)

    def doubled(self, x):
        return 2 * self(x)


class Lazy(tf.Module):
    """Creates its variable in its first call."""

    def __init__(self):
        super().__init__()
        self.w = None

    def __call__(self, x, training):
        if self.w is None:
            self.w = tf.Variable(tf.ones([4, 3], x.dtype), name="w")
        return x @ self.w if training else -(x @ self.w)


@subject()
def module(dtype):
    return Case(Affine(dtype), [(floats(dtype, 2, 4),)])


@subject()
def lazy_module(dtype):
    return Case(Lazy(), [(floats(dtype, 2, 4),)])


@subject()
def bound_method(dtype):
    return Case(Affine(dtype).doubled, [(floats(dtype, 2, 4),)])


@subject()
def plain_function(dtype):
    w = variable(dtype, 4, 3)
    return Case(lambda x: tf.square(x @ w) * x[0, 0], [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def left_out_variable(dtype):
    w, left_out = variable(dtype, 4, 3), variable(dtype, 3)
    return Case(lambda x: tf.tanh(x @ w * left_out), [(floats(dtype, 2, 4),)], None, [w], [left_out])


@subject()
def untrainable_variable(dtype):
    w, frozen = variable(dtype, 4, 3), tf.Variable(floats(dtype, 3), trainable=False)
    return Case(lambda x: tf.tanh(x @ w * frozen), [(floats(dtype, 2, 4),)], variables=[w, frozen])


@subject()
def while_reads_before(dtype):
    w = variable(dtype, 4, 4)

    def fn(x):
        read = tf.convert_to_tensor(w)
        return tf.square(tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, tf.tanh(h @ read)), (0, x))[1])

    return Case(fn, [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def while_reads_inside(dtype):
    w = variable(dtype, 4, 4)

    def fn(x, steps):
        return tf.while_loop(lambda i, h: i < steps, lambda i, h: (i + 1, tf.tanh(h @ w + x)), (0, x))

    return Case(fn, [(floats(dtype, 2, 4), np.int32(3)), (floats(dtype, 2, 4), np.int32(1))], variables=[w])


@subject()
def while_embeds_inside(dtype):
    table = variable(dtype, 5, 4)

    def fn(tokens):
        def body(i, h):
            return i + 1, tf.tanh(h + tf.nn.embedding_lookup(table, tokens[:, i]))

        return tf.while_loop(lambda i, h: i < 3, body, (0, tf.zeros([2, 4], dtype)))[1]

    return Case(fn, [(integers(2, 3),)], variables=[table])


@subject()
def while_in_while(dtype):
    w = variable(dtype, 4, 4)

    def inner(h):
        return tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, tf.tanh(h @ w)), (0, h))[1]

    def fn(x):
        return tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, inner(h) + x), (0, x))[1]

    return Case(fn, [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def scan(dtype):
    w = variable(dtype, 4, 4)

    def fn(x):
        return tf.scan(lambda h, step: tf.tanh(h @ w + step), x, initializer=tf.zeros([2, 4], dtype))

    return Case(fn, [(floats(dtype, 3, 2, 4),)], variables=[w])


@subject()
def cond(dtype):
    w, b = variable(dtype, 4, 3), variable(dtype, 3)

    def fn(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.tanh(x @ w), lambda: tf.square(x @ w) + b)

    return Case(fn, [(np.ones([2, 4], dtype),), (-np.ones([2, 4], dtype),)], variables=[w, b])


@subject()
def autograph_loop(dtype):
    w = variable(dtype, 4, 4)

    def fn(x, n):
        h = x
        for t in tf.range(n):
            if t % 2 == 0:
                h = tf.tanh(h @ w)
            elif t > 0:
                h = h + x
        return h

    return Case(fn, [(floats(dtype, 2, 4), np.int32(3))], variables=[w])


@subject()
def autograph_if(dtype):
    w = variable(dtype, 4, 4)

    def fn(x, training):
        y = tf.tanh(x @ w) if tf.reduce_mean(x) > 0 else x * x
        return y if training else y + 1

    return Case(fn, [(np.ones([2, 4], dtype),), (-np.ones([2, 4], dtype),)], variables=[w])


@subject()
def nested_function(dtype):
    w = variable(dtype, 4, 4)

    @tf.function
    def inner(x):
        return tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, tf.tanh(h @ w)), (0, x))[1]

    return Case(tf.function(lambda x: inner(inner(x)) * x), [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def custom_gradient(dtype):
    w = variable(dtype, 4, 3)

    @tf.custom_gradient
    def reversed_gradient(x):
        y = tf.tanh(x)
        return y, lambda dy: -3 * dy * y

    return Case(lambda x: reversed_gradient(x @ w), [(floats(dtype, 2, 4),)], variables=[w])


@subject(rereads=True)
def custom_gradient_with_variable(dtype):
    w = variable(dtype, 4, 3)

    @tf.custom_gradient
    def product(x):
        def gradient(dy, variables=None):
            return 2 * dy @ tf.transpose(w), [tf.transpose(x) @ dy for _ in variables]

        return x @ w, gradient

    return Case(lambda x: tf.tanh(product(x)), [(floats(dtype, 2, 4),)], variables=[w])


@subject(rereads=True)
def recompute_grad(dtype):
    w = variable(dtype, 4, 3)
    recomputed = tf.recompute_grad(lambda x: tf.tanh(x @ w))
    return Case(lambda x: tf.square(recomputed(x)), [(floats(dtype, 2, 4),)], variables=[w])


# Nests, and outputs that are not plain


@subject()
def nests(dtype):
    w = variable(dtype, 4, 3)

    def fn(batch, pair):
        h = batch["x"] @ w
        deep = Pair(
            h * tf.cast(pair[0], dtype), {"none": None, "ints": batch["tokens"] + 1, "list": [h, pair[1].second]}
        )
        return deep, None, (tf.reduce_sum(h), batch["flag"])

    batch = {"x": floats(dtype, 2, 4), "tokens": integers(2, 3), "flag": np.array([True, False])}
    return Case(fn, [(batch, (integers(2, 3), Pair(floats(dtype, 1), floats(dtype, 3))))], variables=[w])


@subject()
def pass_through(dtype):
    return Case(lambda x, n: (x, n, 2 * x, x), [(floats(dtype, 2, 4), integers(2))], variables=[])


@subject()
def output_twice(dtype):
    w = variable(dtype, 4, 3)

    def fn(x):
        y = tf.exp(x @ w)
        return y, y, tf.reshape(y, [-1]), y * y

    return Case(fn, [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def value_under_two_names(dtype):
    w = variable(dtype, 4, 3)

    def fn(x):
        y = tf.exp(x @ w)
        return tf.sin(y) + tf.sin(tf.identity(y)) + tf.sin(tf.stop_gradient(y))

    return Case(fn, [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def returns_what_it_captured(dtype):
    w, outside = variable(dtype, 4, 3), tf.constant(2.0, dtype)

    def fn(x):
        return w, x @ w * outside, outside, tf.constant(3.0, dtype), 4.0

    return Case(fn, [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def unconnected(dtype):
    w, apart = variable(dtype, 4, 3), variable(dtype, 3)
    return Case(lambda x, y: (x @ w, tf.stop_gradient(y)), [(floats(dtype, 2, 4), floats(dtype, 2))], None, [w, apart])


@subject()
def only_integers(dtype):
    return Case(lambda n: n + 1, [(integers(3),)], variables=[])


@subject(sparse=True)
def sparse_twice(dtype):
    table = variable(dtype, 5, 3)

    def fn(a, b):
        return tf.gather(table, a) + tf.nn.embedding_lookup(table, b)

    return Case(fn, [(integers(2, 6), integers(2, 6, below=2))], variables=[table])


@subject()
def tied_embedding(dtype):
    table = variable(dtype, 5, 4)

    def fn(tokens):
        return tf.nn.softmax(tf.tanh(tf.gather(table, tokens)) @ tf.transpose(table))

    return Case(fn, [(integers(2, 3),)], variables=[table])


@subject()
def assigns_state(dtype):
    w, steps = variable(dtype, 4, 3), tf.Variable(0.0, trainable=False, dtype=dtype)

    def fn(x, training):
        if training:
            steps.assign_add(2)
        return x @ w * steps

    return Case(fn, [(floats(dtype, 2, 4),)], None, [w], [steps])


@subject()
def reads_then_assigns(dtype):
    w = variable(dtype, 4, 3)

    def fn(x, training):
        y = tf.tanh(x @ w)
        if training:
            w.assign(w * 0.5)
        return y @ tf.transpose(w)

    return Case(fn, [(floats(dtype, 2, 4),)], variables=[w])


@subject()
def complex_numbers(dtype):
    w = variable(dtype, 2, 8)
    return Case(
        lambda x: (tf.abs(tf.signal.fft(tf.complex(x * w, w))), tf.signal.rfft(x)), [(floats(dtype, 2, 8),)], None, [w]
    )
