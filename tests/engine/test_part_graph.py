"""The calls of a part graph: what they take, what surrounds them, and what is freed."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import SUBJECTS
from engine_trials import (
    check_error,
    dense_graph,
    weights_like,
)

from seq2split.engine import Part
from seq2split.engine.passes import ForwardPass, InferencePass

spec = tf.TensorSpec


# What may be given


def test_arrays_lists_and_scalars_are_inputs():
    fn = lambda x, pair, scale: scale * (x + pair[0]) + pair[1]  # noqa: E731
    graph = Part(fn, variables=[]).build(spec([2]), (spec([2]), spec([])), spec([]))
    given = (np.ones(2, "float32"), [tf.ones(2), np.float32(1)], 3)
    np.testing.assert_array_equal(graph.infer(*given), [7, 7])
    _, residuals = graph.forward(*given)
    inputs_ct, _ = graph.backward(residuals, np.array([1, 2], "float32"))
    assert isinstance(inputs_ct[1], tuple)
    np.testing.assert_array_equal(inputs_ct[1][0], [3, 6])
    np.testing.assert_array_equal(inputs_ct[2], 2 * 1 + 2 * 2)


def test_mappings_of_any_order_are_inputs():
    graph = Part(lambda batch: batch["x"] - batch["a"], variables=[]).build({"x": spec([2]), "a": spec([2])})
    given = OrderedDict(x=3 * np.ones(2, "float32"), a=np.ones(2, "float32"))
    np.testing.assert_array_equal(graph.infer(given), [2, 2])


def test_cotangents_of_integers_are_ignored():
    graph = Part(lambda x, n: (2 * x, n), variables=[]).build(spec([2]), spec([2], tf.int32))
    given = (tf.ones(2), tf.ones(2, tf.int32))
    for integer_ct in (None, tf.ones(2)):
        _, residuals = graph.forward(*given)
        (x_ct, n_ct), _ = graph.backward(residuals, (tf.ones(2), integer_ct))
        np.testing.assert_array_equal(x_ct, [2, 2])
        assert n_ct is None


def test_part_without_outputs_runs():
    counter = tf.Variable(0, trainable=False)

    def fn(x):
        counter.assign_add(1)

    graph = Part(fn, variables=[]).build(spec([2]))
    outputs, residuals = graph.forward(tf.ones(2))
    assert (outputs, counter.numpy()) == (None, 1)
    assert graph.backward(residuals, None) == ((None,), [])
    assert graph.infer(tf.ones(2)) is None
    assert counter.numpy() == 2


# What surrounds the calls


@pytest.mark.parametrize("passed", ["forward", "infer", "value_and_gradients"])
@pytest.mark.parametrize("trace", [[], ["forward", "infer", "value_and_gradients"]])
def test_call_inside_a_tf_function_is_refused(passed, trace):
    graph = Part(keras.Sequential([keras.layers.Dense(1), keras.layers.Lambda(tf.reduce_mean)])).build(
        spec([2, 4]), trace=trace
    )
    with pytest.raises(RuntimeError, match=r"(?s)part graphs are called eagerly: take the call out"):
        tf.function(lambda x: getattr(graph, passed)(x))(tf.ones([2, 4]))
    _, residuals = graph.forward(tf.ones([2, 4]))  # the graph is not spoiled
    assert len(graph.backward(residuals, 1.0)[1]) == 2


def test_backward_inside_a_tf_function_is_refused():
    graph = Part(lambda x: x * x, variables=[]).build(spec([2]))
    _, residuals = graph.forward(tf.ones(2))
    with pytest.raises(RuntimeError, match="called eagerly"):
        tf.function(lambda ct: graph.backward(residuals, ct))(tf.ones(2))
    assert not residuals.consumed
    graph.backward(residuals, tf.ones(2))


# What is freed


@pytest.mark.parametrize("name", ["dense", "lstm_while", "dropout", "nested_function", "cond", "nests"])
def test_graphs_are_freed(name):
    # Not those that call tf.custom_gradient or tf.recompute_grad: TensorFlow's gradient registry keeps them for ever.
    case = SUBJECTS[name].make("float32")
    part = Part(case.fn, variables=case.variables)
    graph = part.build(*case.signature(), trace=["forward", "infer"])
    outputs, residuals = graph.forward(*case.calls[0])
    graph.backward(residuals, weights_like(outputs))
    held = [graph, *(graph.passes[kind].run.concrete.graph for kind in (ForwardPass, InferencePass))]
    held += [graph.passes[ForwardPass].backward.concrete.graph]
    references = [weakref.ref(x) for x in held]
    del graph, held, residuals, outputs
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
    part.build(*case.signature())


def test_a_part_graph_is_freed_as_soon_as_nobody_holds_it():
    """`Part.export` and `Part.compilations` are of those that are held, whenever garbage is collected."""
    graph = dense_graph(trace=["forward", "infer"])
    outputs, residuals = graph.forward(tf.ones([2, 4]))
    graph.backward(residuals, outputs)
    reference = weakref.ref(graph)
    gc.disable()
    try:
        del graph, residuals
        assert reference() is None
    finally:
        gc.enable()


# Errors


def twice():
    graph = dense_graph()
    outputs, residuals = graph.forward(tf.ones([2, 4]))
    graph.backward(residuals, outputs)
    graph.backward(residuals, outputs)


def of_another():
    part = Part(keras.layers.Dense(3), name="encoder")
    small, large = part.build(spec([2, 4])), part.build(spec([5, 4]))
    _, residuals = small.forward(tf.ones([2, 4]))
    large.backward(residuals, tf.ones([5, 3]))


def swapped():
    graph = dense_graph()
    outputs, residuals = graph.forward(tf.ones([2, 4]))
    graph.backward(outputs, residuals)


def loss_graph():
    return Part(tf.reduce_sum, variables=[], name="encoder").build(spec([2]))


# name: what to do, the error, and what its message holds: what was given, what was expected, the mend.
ERRORS = {
    "used twice": (twice, ValueError, ["'encoder'", "an earlier backward has used", "Run forward again"]),
    "of another graph": (
        of_another,
        ValueError,
        [
            "PartGraph('encoder', (float32[5, 4],))",
            "PartGraph('encoder', (float32[2, 4],))",
            "expected its own",
            "go back",
        ],
    ),
    "swapped": (
        swapped,
        TypeError,
        ["was given EagerTensor", "expected what forward returned", "backward(residuals, "],
    ),
    "unknown pass": (
        lambda: dense_graph(trace=["backward"]),
        ValueError,
        ["'encoder'", "the pass to trace is 'backward'", "forward, value_and_gradients, infer"],
    ),
    "one string for passes": (lambda: dense_graph(trace="forward"), ValueError, ["the pass to trace is", "forward"]),
    "no scalar cotangent": (
        lambda: loss_graph().value_and_gradients(tf.ones(2), loss_ct=[1.0, 2.0]),
        ValueError,
        ["'encoder'", "a cotangent of shape [2]", "expected a scalar", "Reduce it"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_teaches(name):
    check_error(*ERRORS[name])
