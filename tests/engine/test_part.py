"""A part: its variables, and how often its graphs are traced."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import SUBJECTS, Affine, Mixed, floats, integers
from engine_trials import (
    check_error,
    every_subject,
    trial,
    weights_like,
)

from seq2split.engine import Part, Residuals

spec = tf.TensorSpec


@pytest.mark.parametrize("name", [s.name for s in SUBJECTS.values() if s.keras])
def test_second_build_shares_variables(name):
    subject = SUBJECTS[name]
    case = subject.make(subject.dtypes[0])
    part = Part(case.fn)
    first = part.build(*case.signature())
    larger = tf.nest.map_structure(lambda x: spec([3, *(size or 5 for size in x.shape[1:])], x.dtype), case.signature())
    traces = part.traces
    second = part.build(*larger)
    assert part.traces == traces + 1
    assert (
        [id(v) for v in first.variables]
        == [id(v) for v in second.variables]
        == [id(v) for v in part.trainable_variables]
    )
    arrays = tf.nest.map_structure(lambda x: tf.ones(x.shape, x.dtype), larger)
    outputs, residuals = second.forward(*arrays)
    _, gradients = second.backward(residuals, weights_like(outputs))
    assert [tuple(g.shape) for g in gradients] == [tuple(v.shape) for v in part.trainable_variables]


@pytest.mark.parametrize("infer_first", [True, False])
def test_infer_may_be_traced_before_forward(infer_first):
    part = Part(keras.layers.Dense(3))
    graph = part.build(spec([2, 4]), trace=["infer", "forward"] if infer_first else [])
    part.build(spec([5, 4]))
    _, residuals = graph.forward(floats("float32", 2, 4))
    _, gradients = graph.backward(residuals, tf.ones([2, 3]))
    assert [v.name for v in graph.variables] == ["kernel", "bias"]
    assert [tuple(g.shape) for g in gradients] == [(4, 3), (3,)]


@every_subject
def test_calls_of_a_built_graph_trace_nothing(name, dtype):
    subject = trial(name, dtype)
    subject.graph.infer(*subject.calls[0])
    traces = subject.part.traces
    for _ in range(2):
        for call, weights in enumerate(subject.weights):
            _, residuals = subject.forward(call)
            subject.graph.backward(residuals, weights)
            subject.graph.infer(*subject.calls[call])
    assert subject.part.traces == traces
    assert subject.counter.numpy() == 2  # forward and infer since the last reset


def test_passes_are_traced_once_and_when_asked():
    part = Part(keras.Sequential([keras.Input([4]), keras.layers.Dense(1), keras.layers.Lambda(tf.reduce_mean)]))
    graph = part.build(spec([2, 4]), trace=[])
    assert part.traces == 0
    x = floats("float32", 2, 4)
    for call, traces in [(graph.infer, 1), (graph.value_and_gradients, 2), (graph.forward, 3)]:
        call(x)
        call(x)
        assert part.traces == graph.traces == traces
    other = part.build(spec([2, 4]), trace=["infer", "forward", "value_and_gradients"])
    assert (part.traces, other.traces, graph.traces) == (6, 3, 3)


def test_names_and_specs():
    graph = Part(Mixed("float32"), name="encoder").build(spec([2, 4], tf.int32))
    assert repr(graph) == "PartGraph('encoder', (int32[2, 4],))"
    assert graph.name == "encoder"
    assert graph.input_specs == (spec([2, 4], tf.int32),)
    assert graph.output_specs == {"last": spec([2, 3]), "scores": spec([2, 4, 2])}
    _, residuals = graph.forward(integers(2, 4))
    assert isinstance(residuals, Residuals)
    assert repr(residuals) == f"Residuals({graph!r}, {residuals.nbytes} bytes)"
    assert Part(Affine("float32").doubled).name == "doubled"
    assert Part(keras.layers.Dense(3, name="scores")).name == "scores"


# Errors


def test_errors_while_tracing_name_the_part_and_may_be_mended():
    broken = [True]

    def fn(x):
        if broken[0]:
            raise ValueError("broken")
        return x

    part = Part(fn, variables=[], name="encoder")
    with pytest.raises(ValueError, match="broken") as caught:
        part.build(spec([2]))
    assert caught.value.__notes__ == ["while tracing forward of PartGraph('encoder', (float32[2],))"]
    broken[0] = False
    assert part.build(spec([2])).output_specs == spec([2])


# name: what to do, the error, and what its message holds: what was given, what was expected, the mend.
ERRORS = {
    "no spec": (
        lambda: Part(keras.layers.Dense(3), name="encoder").build({"x": np.ones(2)}),
        TypeError,
        ["part 'encoder'", "argument[0]['x']", "array([1., 1.])", "a tf.TensorSpec was expected", "dense components"],
    ),
    "no callable": (lambda: Part(3), TypeError, ["a callable", "Keras layer", "given 3"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_teaches(name):
    check_error(*ERRORS[name])
