"""Random callables over random nests, split and joint: a fuzzer of the engine.

It tries a few programs that are the same in each run. Others, and more of them, by hand:

    FUZZED=2000 pytest tests/engine/test_random_parts.py

A program has a pool of float64 matrices `[rows, 3]`, at first those among its inputs. Each step takes one or two of the
pool and adds one; what it returns is a nest of any of them, and of what else a part may return.
"""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from engine_subjects import Case, Subject
from engine_trials import Trial, values, weighted_sum
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from seq2split.engine import Part, policies

WIDTH, VOCABULARY = 3, 5
EXAMPLES = int(os.environ.get("FUZZED", "0"))
Pair = namedtuple("Pair", ["first", "second"])
unconverted = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Weights:
    """The variables of a program."""

    kernel: tf.Variable
    bias: tf.Variable
    table: tf.Variable
    frozen: tf.Variable
    steps: tf.Variable

    @classmethod
    def new(cls) -> Weights:
        random = np.random.default_rng(0)
        kernel, bias, table, frozen = (
            tf.Variable(random.normal(size=shape) / 2)
            for shape in ([WIDTH, WIDTH], [WIDTH], [VOCABULARY, WIDTH], [WIDTH])
        )
        return cls(kernel, bias, table, frozen, tf.Variable(1.0, dtype="float64", trainable=False))

    @property
    def trained(self) -> list[tf.Variable]:
        return [self.kernel, self.bias, self.table]

    @property
    def state(self) -> list[tf.Variable]:
        return [self.frozen, self.steps]


# Steps: functions of a matrix, and of the weights


def embed(x, w):
    return tf.gather(w.table, tf.cast(x[:, 0] > 0, tf.int32) + tf.cast(x[:, 1] > 0, tf.int32)) * x


def count(x, w):
    w.steps.assign_add(1.0)
    return tf.sin(x * w.steps)


def draw(x, w):
    seed = tf.stack([tf.cast(w.steps, tf.int32), 7])
    return x * tf.random.stateless_uniform(tf.shape(x), seed, dtype=x.dtype)


@tf.custom_gradient
def turned(x):
    y = tf.sin(x)
    return y, lambda y_ct: -2 * y_ct * y


def blocked(x, w):
    return tf.concat(tf.split(tf.tanh(x @ w.kernel), WIDTH, axis=1)[::-1], 1)


def mixed(x, w):
    spectrum = tf.signal.fft(tf.complex(x, tf.cos(x)))
    return tf.math.real(tf.signal.ifft(spectrum * tf.cast(tf.cos(x), spectrum.dtype)))


UNARY: dict[str, Callable] = {
    "dense": lambda x, w: tf.tanh(x @ w.kernel + w.bias),
    "kernel alone": lambda x, w: x @ w.kernel / 2,
    "tied": lambda x, w: tf.nn.softmax(x @ tf.transpose(w.table)) @ w.table,
    "frozen": lambda x, w: tf.sigmoid(x * w.frozen),
    "embed": embed,
    "count": count,
    "draw": draw,
    "sin": lambda x, w: tf.sin(x),
    "softmax": lambda x, w: tf.nn.softmax(x),
    "leaky": lambda x, w: tf.where(x > 0, x, 0.1 * x),
    "cumulative": lambda x, w: tf.cumsum(x, axis=1) / 3,
    "over rows": lambda x, w: x - tf.reduce_mean(x, axis=0, keepdims=True),
    "over columns": lambda x, w: x / tf.sqrt(1 + tf.reduce_sum(x**2, axis=1, keepdims=True)),
    "reversed": lambda x, w: x[:, ::-1],
    "sorted": lambda x, w: tf.sort(x, axis=1),
    "largest": lambda x, w: x + tf.math.top_k(x, 2).values[:, :1],
    "flat": lambda x, w: tf.reshape(tf.reshape(tf.cos(x), [-1]), tf.shape(x)),
    "unstacked": lambda x, w: tf.stack(tf.unstack(x, axis=1)[::-1], axis=1),
    "blocked": blocked,
    "turned": lambda x, w: turned(x),
    "again": lambda x, w: tf.recompute_grad(lambda x: tf.sin(tf.cos(x)))(x),
    "stopped": lambda x, w: tf.stop_gradient(x) * x,
    "float32": lambda x, w: tf.cast(tf.tanh(tf.cast(x, tf.float32)), x.dtype),
    "integers": lambda x, w: x * tf.cast(tf.cast(2 * x, tf.int64) % 3, x.dtype),
    "complex": mixed,
    "checked": lambda x, w: tf.debugging.check_numerics(x, "not finite"),
    "scanned": lambda x, w: tf.transpose(tf.scan(lambda h, c: tf.tanh(h + c), tf.transpose(x))),
    "mapped": lambda x, w: tf.map_fn(lambda row: tf.sin(row) * row[0], x),
    "in a function": lambda x, w: tf.function(lambda x: tf.sin(x @ w.kernel), autograph=False)(x),
}
BINARY: dict[str, Callable] = {
    "sum": lambda x, y: x + y,
    "product": lambda x, y: tf.tanh(x) * y,
    "larger": tf.maximum,
    "chosen": lambda x, y: tf.where(x > y, tf.sin(x), y),
    "attention": lambda x, y: tf.nn.softmax(x @ tf.transpose(y)) @ y,
}


def loop(x, w, fn, number):
    return tf.while_loop(lambda i, _: i < number, lambda i, h: (i + 1, fn(h, w)), (0, x))[1]


CONTROL: dict[str, Callable] = {
    "while": loop,
    "bounded while": lambda x, w, fn, number: tf.while_loop(
        lambda i, _: i < number, lambda i, h: (i + 1, fn(h, w) + x), (0, x), maximum_iterations=2
    )[1],
    "while in while": lambda x, w, fn, number: loop(x, w, lambda h, w: loop(h, w, fn, 2), number),
    # The identities are for those that have a gradient of their own; see test_backward.py.
    "cond": lambda x, w, fn, number: tf.cond(tf.reduce_sum(x) > 0, lambda: fn(tf.identity(x), w), lambda: 2 * x),
    "switch": lambda x, w, fn, number: tf.switch_case(number % 2, [lambda: fn(tf.identity(x), w), lambda: tf.cos(x)]),
}

operands = st.integers(0, 3)  # from the newest
STEPS = st.one_of(
    st.tuples(st.just("unary"), st.sampled_from(sorted(UNARY)), operands),
    st.tuples(st.just("binary"), st.sampled_from(sorted(BINARY)), operands, operands),
    st.tuples(st.just("control"), st.sampled_from(sorted(CONTROL)), operands, st.sampled_from(sorted(UNARY))),
)


# Nests of inputs and outputs


def nests(leaves: st.SearchStrategy) -> st.SearchStrategy:
    """Nests of every kind."""

    def within(children: st.SearchStrategy) -> st.SearchStrategy:
        return st.one_of(
            st.lists(children, max_size=2),
            st.lists(children, max_size=2).map(tuple),
            st.dictionaries(st.sampled_from("abc"), children, max_size=2),
            st.tuples(children, children).map(lambda pair: Pair(*pair)),
        )

    return st.recursive(leaves, within, max_leaves=4)


class Leaf(str):
    """The kind of an input, or of an output and its number."""

    __slots__ = ()


INPUTS = {
    "matrix": ([None, WIDTH], "float64"),
    "scalar": ([], "float64"),
    "number": ([], "int32"),
    "integers": ([None], "int32"),
    "flags": ([None], "bool"),
    "single": ([None, 2], "float32"),
}
OUTPUTS = ("matrix", "row sums", "total", "integers", "flags", "none", "constant", "number", "variable", "input")
inputs = st.lists(nests(st.sampled_from(sorted(INPUTS)).map(Leaf)), max_size=3)
any_output = nests(st.tuples(st.sampled_from(OUTPUTS), operands).map(lambda pair: Leaf("{} {}".format(*pair))))
several = [Leaf("matrix 0"), Leaf("row sums 1"), Leaf("matrix 2")]
outputs = st.one_of(any_output, st.permutations(several), st.tuples(any_output, st.permutations(several)))


def newest(pool: list, number: int) -> tf.Tensor:
    """The newest of a pool, or one before it."""
    return pool[-1 - number % len(pool)]


@dataclass(frozen=True)
class Program:
    """A random callable.

    Attributes:
        inputs: The nests of its arguments, of kinds of inputs.
        steps: What it computes.
        outputs: The nest of what it returns.
        any_rows: Whether the number of rows is unknown while it is traced.
    """

    inputs: list
    steps: list
    outputs: Any
    any_rows: bool

    @property
    def rounds(self) -> bool:
        """Whether something is computed in float32."""
        return "float32" in str(self.steps) or "single" in str(self.inputs)

    def case(self, _dtype: str) -> Case:
        weights = Weights.new()

        @unconverted
        def fn(*args, training):
            return self.run(args, weights, training)

        rows = (2, 4) if self.any_rows else (2,)
        return Case(fn, [self.arguments(count) for count in rows], self.specs(), weights.trained, weights.state)

    def arguments(self, rows: int) -> tuple:
        random = np.random.default_rng(rows)

        def fill(kind: Leaf) -> np.ndarray:
            shape, dtype = INPUTS[kind]
            drawn = random.normal(size=[rows if each is None else each for each in shape])
            return np.asarray(drawn > 0 if dtype == "bool" else np.abs(3 * drawn) if dtype == "int32" else drawn, dtype)

        return tuple(tf.nest.map_structure(fill, each) for each in self.inputs)

    def specs(self) -> tuple:
        rows = None if self.any_rows else 2

        def spec(kind: Leaf) -> tf.TensorSpec:
            shape, dtype = INPUTS[kind]
            return tf.TensorSpec([rows if each is None else each for each in shape], dtype)

        return tuple(tf.nest.map_structure(spec, each) for each in self.inputs)

    def run(self, args: tuple, weights: Weights, training: bool) -> Any:
        kinds, flat = tf.nest.flatten(self.inputs), tf.nest.flatten(args)
        given = {kind: [each for one, each in zip(kinds, flat, strict=True) if one == kind] for kind in INPUTS}
        pool = given["matrix"] or [tf.constant([[0.5, -1.0, 2.0], [-0.1, 0.3, 1.0]], tf.float64)]
        pool += [tf.sin(pool[0]) * scalar for scalar in given["scalar"]]
        pool += [pool[0] * tf.cast(tf.reduce_sum(each), tf.float64) for each in given["single"]]
        pool += [tf.gather(weights.table, each % VOCABULARY)[:1] * pool[0] for each in given["integers"]]
        number = given["number"][0] % 4 if given["number"] else tf.constant(2)
        for kind, name, operand, *other in self.steps:
            x = newest(pool, operand)
            if kind == "unary":
                pool.append(UNARY[name](x, weights))
            elif kind == "binary":
                pool.append(BINARY[name](x, newest(pool, other[0])))
            else:
                pool.append(CONTROL[name](x, weights, UNARY[other[0]], number))
        if not training:
            pool[-1] = 2 * pool[-1]
        return tf.nest.map_structure(lambda leaf: self.returned(leaf, pool, flat, weights), self.outputs)

    @staticmethod
    def returned(leaf: Leaf, pool: list, flat: list, weights: Weights) -> Any:
        kind, _, number = leaf.rpartition(" ")
        x = newest(pool, int(number))
        return {
            "matrix": lambda: x,
            "row sums": lambda: tf.reduce_sum(x, axis=1),
            "total": lambda: tf.reduce_mean(x),
            "integers": lambda: tf.cast(x, tf.int32),
            "flags": lambda: x > 0,
            "none": lambda: None,
            "constant": lambda: tf.constant(3.0),
            "number": lambda: 4.0,
            "variable": lambda: weights.bias,
            "input": lambda: flat[int(number) % len(flat)] if flat else x,
        }[kind]()


steps = st.sampled_from([4, 8, 6, 2, 1, 0]).flatmap(lambda count: st.lists(STEPS, min_size=count, max_size=count))
programs = st.builds(Program, inputs, steps, outputs, st.booleans())
saves = st.sampled_from(
    [policies.needed, policies.inputs, policies.everything, policies.products, policies.budget(400, unknown=4)]
)


def check_passes(subject: Trial) -> None:
    """Both passes apart, and inference, against the joint graph; the forward runs once."""
    for call, weights in enumerate(subject.weights):
        expected, states = subject.joint_results[call]
        results, residuals = subject.forward(call)
        before = values(subject.states)
        subject.check((results, *subject.graph.backward(residuals, weights)), expected)
        assert int(subject.counter) == 1
        np.testing.assert_equal(before, states)
        np.testing.assert_equal(values(subject.states), states)


def check_loss(subject: Trial) -> None:
    """Both passes in one graph."""
    (expected, *_), weights = subject.joint_results[0], subject.weights[0]

    def with_loss(*args, training):
        outputs = subject.direct(args, training)
        return weighted_sum(outputs, weights), outputs

    specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, tf.nest.map_structure(tf.constant, subject.calls[0]))
    graph = Part(with_loss, variables=subject.variables).build(*specs, trace=["value_and_gradients"])
    subject.reset()
    (_, outputs), inputs_ct, gradients = graph.value_and_gradients(*subject.calls[0])
    subject.check((outputs, inputs_ct, gradients), expected)


def check_inference(subject: Trial) -> None:
    untrained = tf.function(lambda args: subject.direct(args, training=False), autograph=False)
    for args in subject.calls:
        subject.reset()
        expected = untrained(tf.nest.map_structure(tf.convert_to_tensor, args))
        subject.reset()
        subject.check(subject.graph.infer(*args), expected)


@settings(
    max_examples=EXAMPLES or 16,
    derandomize=not EXAMPLES,
    phases=tuple(Phase) if EXAMPLES else (Phase.generate,),  # by hand failures are made smaller, which takes minutes
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(programs, saves)
def test_a_random_part_equals_the_joint_graph(program, save):
    subject = Trial(Subject("random", program.case), "float64", save)
    subject.dtype = "float32" if program.rounds else "float64"  # its tolerance
    check_passes(subject)
    check_loss(subject)
    check_inference(subject)
