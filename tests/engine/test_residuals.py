"""What a forward keeps: which tensors, how many bytes, and until when."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import floats, integers, variable
from engine_trials import (
    dense_graph,
    every_subject,
    trial,
)

from seq2split.engine import Part
from seq2split.engine.passes import ForwardPass

spec = tf.TensorSpec


# Which, and how many bytes


def dense_stack(trainable: bool):
    layers = [keras.layers.Embedding(5, 4), *(keras.layers.Dense(4, activation="tanh") for _ in range(2))]
    for layer in layers:
        layer.trainable = trainable
    return keras.Sequential(layers)


def test_frozen_part_with_integer_inputs_has_no_residuals():
    thawed, frozen = (Part(dense_stack(trainable)).build(spec([2, 3], tf.int32)) for trainable in (True, False))
    assert thawed.residual_bytes > 0
    assert frozen.residual_specs == ()
    outputs, residuals = frozen.forward(integers(2, 3))
    assert residuals.nbytes == 0
    assert frozen.backward(residuals, tf.ones_like(outputs)) == ((None,), [])


def test_frozen_kernel_costs_no_residual():
    def graph(trainable):
        layers = [keras.layers.Dense(4), keras.layers.Dense(4, trainable=trainable), keras.layers.Dense(4)]
        return Part(keras.Sequential(layers)).build(spec([2, 4]))

    thawed, frozen = graph(True), graph(False)
    # The gradient of a kernel reads what enters it: [2, 4] floats.
    assert thawed.residual_bytes - frozen.residual_bytes == 2 * 4 * 4
    outputs, residuals = frozen.forward(floats("float32", 2, 4))
    assert len(frozen.backward(residuals, tf.ones_like(outputs))[1]) == 4


@pytest.mark.parametrize("how", ["left out", "untrainable"])
def test_frozen_variable_gets_no_gradient_and_costs_no_residual(how):
    def graph(frozen):
        w, v = variable("float32", 4, 4), tf.Variable(tf.ones([4, 4]), trainable=how == "left out" or not frozen)
        kept = [w] if frozen and how == "left out" else [w, v]
        return Part(lambda x: tf.sin(x) @ v @ w, variables=kept).build(spec([2, 4]))

    thawed, frozen = graph(False), graph(True)
    assert (len(thawed.variables), len(frozen.variables)) == (2, 1)
    assert thawed.residual_bytes - frozen.residual_bytes == 2 * 4 * 4


def test_what_is_only_measured_leaves_its_shape():
    """The gradients of sums read the shapes of what is added up, and nothing else of it."""
    bias = variable("float64", 3)

    def fn(x):
        return tf.exp(2.0 * x + bias), tf.reduce_sum(tf.abs(x) * 3.0 + bias)

    graph = Part(fn, variables=[bias]).build(tf.TensorSpec([None, 3], tf.float64))
    computed = [(each.dtype, each.shape.as_list()) for each in graph.residual_specs if each.kind == "computed"]
    assert computed == [(tf.int64, [6])]  # three shapes of two dimensions
    for rows in (2, 5):
        x = tf.constant(floats("float64", rows, 3))
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = fn(x)
        weights = [tf.ones_like(each) for each in outputs]
        expected = tape.gradient(outputs, [x, bias], output_gradients=weights)
        _, residuals = graph.forward(x)
        assert residuals.nbytes == 6 * 8
        (found,), gradients = graph.backward(residuals, tuple(weights))
        for left, right in zip([found, *gradients], expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12)


def address(tensor) -> int | None:
    """Where a tensor lies in memory; `None` where that cannot be asked."""
    tensor = tensor.value if isinstance(tensor, keras.Variable) else tensor
    tensor = tensor.read_value() if isinstance(tensor, tf.Variable) else tensor
    return np.asarray(memoryview(tensor)).__array_interface__["data"][0]


NOT_THE_TRUTH = {
    "nested_function": "what leaves a nested function counts as computed, though it may be an input or leave it twice",
    "reads_then_assigns": "the snapshot of a variable that the part itself assigns is a copy, and counts as a variable",
}


@every_subject
def test_residual_specs_predict_the_bytes(name, dtype):
    subject = trial(name, dtype)
    specs = subject.graph.residual_specs
    assert len({s.name for s in specs}) == len(specs)
    assert {s.kind for s in specs} <= {"computed", "random", "variable", "input", "output", "alias"}
    computed = [s for s in specs if s.kind in ("computed", "random")]
    subject.reset()
    inputs = tf.nest.map_structure(tf.convert_to_tensor, subject.calls[0])
    outputs, residuals = subject.graph.forward(*inputs)
    if None in [s.nbytes for s in computed]:
        assert subject.graph.residual_bytes is None
    else:
        assert subject.graph.residual_bytes == sum(s.nbytes for s in computed) == residuals.nbytes
    if dtype == "mixed_bfloat16" or name in NOT_THE_TRUTH:
        return
    # The truth: the distinct buffers that are held, without those of inputs, outputs, variables and constants.
    bindings = subject.graph.passes[ForwardPass].bindings
    apart = [x for x in [*tf.nest.flatten((inputs, outputs)), *subject.states] if x is not None]
    apart += [at for kind, at in bindings if kind == "constant" and at.dtype != tf.resource]
    numbers = [t for t in residuals.tensors if t.dtype not in (tf.variant, tf.resource)]
    held = {address(t): t.shape.num_elements() * t.dtype.size for t in numbers}
    truth = sum(held[at] for at in held.keys() - {address(x) for x in apart})
    # TensorFlow may hold equal scalars, such as the counters of two loops, once.
    assert truth <= residuals.nbytes <= truth + 4 * sum(t.shape.rank == 0 for t in numbers)


def test_unknown_dimensions_and_loop_lists_have_no_predicted_bytes():
    assert trial("unknown_batch", "float32").graph.residual_bytes is None
    assert trial("lstm_while", "float32").graph.residual_bytes is None
    assert trial("lstm_unrolled", "float32").graph.residual_bytes > 0


# Until when


def test_live_residuals_are_counted():
    graph = Part(keras.layers.Dense(3)).build(spec([2, 4]))
    x = floats("float32", 2, 4)
    assert graph.live_residuals == 0
    outputs, first = graph.forward(x)
    _, second = graph.forward(x)
    assert graph.live_residuals == 2
    graph.infer(x)
    graph.backward(first, outputs)
    assert (graph.live_residuals, first.consumed, second.consumed) == (1, True, False)
    assert first.nbytes == 0
    del second
    gc.collect()
    assert graph.live_residuals == 0


def test_residuals_are_released_by_the_backward():
    graph = Part(lambda x: tf.exp(x) * tf.exp(2 * x), variables=[]).build(spec([2]))
    outputs, residuals = graph.forward(tf.ones(2))
    tensors = [weakref.ref(t) for t in residuals.held]
    assert tensors
    graph.backward(residuals, outputs)
    assert [t() for t in tensors] == [None] * len(tensors)


@pytest.mark.parametrize("wrong", [tf.ones([2, 4]), np.ones([2, 3]), [tf.ones([2, 3])], "text"])
def test_residuals_survive_wrong_cotangents(wrong):
    graph = dense_graph()
    x = floats("float32", 2, 4)
    outputs, residuals = graph.forward(x)
    with pytest.raises(ValueError, match="expected"):
        graph.backward(residuals, wrong)
    assert graph.live_residuals == 1
    _, gradients = graph.backward(residuals, outputs)
    np.testing.assert_allclose(gradients[0], tf.transpose(x) @ outputs, rtol=1e-5)
