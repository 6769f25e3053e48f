"""The three passes against the unsplit joint graph: a table of subjects (engine_subjects.py) × properties.

`joint` is the independent reference: one plain `tf.function` with an ordinary `tf.GradientTape`, whose loss is a fixed
random weighted sum of all float outputs. The split must return the same outputs, cotangents, gradients and states.
"""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import SUBJECTS, Pair, SharedSeeds, as_spec, floats, variable
from engine_trials import (
    TOLERANCES,
    bookkeeping,
    close,
    every_subject,
    is_float,
    operations,
    trial,
    values,
    weighted_sum,
)

from seq2split.engine import Part
from seq2split.engine.passes import ForwardPass, InferencePass

spec = tf.TensorSpec


# The joint graph is the reference


@every_subject
def test_gradients_equal_those_of_the_joint_graph(name, dtype):
    subject = trial(name, dtype)
    for call, weights in enumerate(subject.weights):
        outputs, residuals = subject.forward(call)
        subject.check((outputs, *subject.graph.backward(residuals, weights)), subject.joint_results[call][0])


@every_subject
def test_both_passes_in_one_graph_equal_the_joint_graph(name, dtype):
    subject = trial(name, dtype)
    weights = subject.weights[0]

    def with_loss(*args, training):
        outputs = subject.direct(args, training)
        return weighted_sum(outputs, weights), outputs

    expected, states = subject.joint_results[0]
    part = Part(with_loss, variables=subject.variables)
    graph = part.build(*tf.nest.map_structure(as_spec, subject.calls[0]), trace=["value_and_gradients"])
    subject.reset()
    (loss, outputs), inputs_ct, gradients = graph.value_and_gradients(*subject.calls[0])
    subject.check((outputs, inputs_ct, gradients), expected)
    close(loss, weighted_sum(expected[0], weights), TOLERANCES[dtype])
    np.testing.assert_equal(values(subject.states), states)


@pytest.mark.parametrize("name", [s.name for s in SUBJECTS.values() if s.sparse])
def test_embedding_gradients_stay_sparse(name):
    subject = trial(name, SUBJECTS[name].dtypes[0])
    _, residuals = subject.forward()
    _, gradients = subject.graph.backward(residuals, subject.weights[0])
    (sparse,) = [g for g in gradients if isinstance(g, tf.IndexedSlices)]
    (table,) = [v for v, g in zip(subject.graph.variables, gradients, strict=True) if g is sparse]
    assert tuple(sparse.dense_shape) == tuple(table.shape)
    assert len(sparse.indices) > table.shape[0], "duplicates are kept, to be summed by who applies them"


@pytest.mark.parametrize("loss_ct", [3, np.float32(3), tf.constant(3.0), tf.constant(3, tf.bfloat16)])
def test_scaling_the_loss_scales_the_gradients(loss_ct):
    graph = Part(keras.Sequential([keras.layers.Dense(1), keras.layers.Lambda(tf.reduce_mean)])).build(spec([2, 3]))
    x = floats("float32", 2, 3)
    once, thrice = graph.value_and_gradients(x), graph.value_and_gradients(x, loss_ct=loss_ct)
    np.testing.assert_array_equal(once[0], thrice[0])
    np.testing.assert_allclose(3 * once[1][0], thrice[1][0], rtol=1e-6)
    np.testing.assert_allclose(3 * once[2][0], thrice[2][0], rtol=1e-6)


@every_subject
def test_none_stands_for_zero_cotangents(name, dtype):
    subject = trial(name, dtype)
    outputs, residuals = subject.forward()
    nothing = tf.nest.map_structure(lambda _: None, outputs)
    zeros = tf.nest.map_structure(lambda y: tf.zeros_like(y) if is_float(y) else None, outputs)
    actual = subject.graph.backward(residuals, nothing)
    _, residuals = subject.forward()
    expected = subject.graph.backward(residuals, zeros)
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        assert type(a) is type(b)
        if a is not None:
            assert not np.any(tf.convert_to_tensor(a))


def test_unused_output_gets_the_gradient_of_the_others_alone():
    w = variable("float32", 4, 3)
    graph = Part(lambda x: Pair(x @ w, tf.exp(x @ w)), variables=[w]).build(spec([2, 4]))
    x = floats("float32", 2, 4)
    _, residuals = graph.forward(x)
    (inputs_ct,), (gradient,) = graph.backward(residuals, Pair(tf.ones([2, 3]), None))
    np.testing.assert_allclose(inputs_ct, tf.ones([2, 3]) @ tf.transpose(w), rtol=1e-5)
    np.testing.assert_allclose(gradient, tf.transpose(x) @ tf.ones([2, 3]), rtol=1e-5)


# The forward runs once, and the backward runs none of it


@every_subject
def test_forward_runs_once(name, dtype):
    subject = trial(name, dtype)
    _, residuals = subject.forward()
    assert subject.counter.numpy() == 1
    before = values(subject.states)
    subject.graph.backward(residuals, subject.weights[0])
    assert subject.counter.numpy() == 1
    np.testing.assert_equal(values(subject.states), before)


def test_recompute_grad_runs_its_forward_again_by_design():
    w, counter = variable("float32", 4, 3), tf.Variable(0, trainable=False)

    def fn(x):
        counter.assign_add(1)
        return tf.tanh(x @ w)

    graph = Part(tf.recompute_grad(fn), variables=[w]).build(spec([2, 4]))
    outputs, residuals = graph.forward(floats("float32", 2, 4))
    assert counter.numpy() == 1
    graph.backward(residuals, outputs)
    assert counter.numpy() == 2


@every_subject
def test_backward_runs_no_forward_operation(name, dtype):
    subject = trial(name, dtype)
    traced = subject.graph.passes[ForwardPass]
    forward, backward = operations(traced.run.concrete), operations(traced.backward.concrete)
    # Type by type, the two graphs together hold no more operations than the joint graph; but for bookkeeping, and the
    # counter.
    assert set(forward + backward - operations(subject.joint)) <= bookkeeping(backward)
    stateful = [operation for operation in backward if re.search("Random|Rng|Assign|ReadVariable", operation)]
    assert stateful == [] or subject.subject.rereads


@every_subject
def test_gradients_are_of_the_values_that_the_forward_read(name, dtype):
    subject = trial(name, dtype)
    if subject.subject.rereads:
        pytest.skip("reads its variables in the backward by design")
    (_, *expected), _ = subject.joint_results[0]
    _, residuals = subject.forward()
    for v in subject.variables:
        v.assign(v + 1)
    actual = subject.graph.backward(residuals, subject.weights[0])
    subject.check([*actual], expected)


# State


@every_subject
def test_state_advances_as_by_one_unsplit_call(name, dtype):
    subject = trial(name, dtype)
    for call, weights in enumerate(subject.weights):
        _, residuals = subject.forward(call)
        subject.graph.backward(residuals, weights)
        np.testing.assert_equal(values(subject.states), subject.joint_results[call][1])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_mask_is_the_same_in_both_passes(rate):
    graph = Part(keras.layers.Dropout(rate)).build(spec([20, 20]))
    x = 1 + np.abs(floats("float32", 20, 20))
    kept = []
    for _ in range(2):
        outputs, residuals = graph.forward(x)
        (inputs_ct,), _ = graph.backward(residuals, tf.ones([20, 20]))
        np.testing.assert_array_equal(outputs == 0, inputs_ct == 0)
        assert 0 < np.mean(outputs == 0) < 1
        kept.append(outputs)
    assert np.any(kept[0] != kept[1]), "each forward draws a mask of its own"


def test_shared_seeds_draw_two_masks():
    x = 1 + np.abs(floats("float32", 20, 20))
    graph = Part(SharedSeeds("float32")).build(spec([20, 20]))
    (first, second), _ = graph.forward(x)
    assert np.any((first == 0) != (second == 0))


# Inference


@every_subject
def test_infer_equals_the_callable_without_training(name, dtype):
    subject = trial(name, dtype)

    @tf.function
    def untrained(args):
        return subject.direct(args, training=False)

    for args in subject.calls:
        subject.reset()
        expected = untrained(tf.nest.map_structure(tf.convert_to_tensor, args))
        subject.reset()
        subject.check(subject.graph.infer(*args), expected)
        np.testing.assert_equal(values(subject.states), subject._initial)
        assert subject.counter.numpy() == 1
    traced = subject.graph.passes[InferencePass]
    assert len(traced.run.concrete.outputs) == len(traced.outputs.specs), "infer saves nothing"
