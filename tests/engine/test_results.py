"""What the methods of a part graph return: named, and unpacking as before."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import Pair, floats, variable

from seq2split.engine import BackwardResult, ForwardResult, LossResult, Part, Residuals

X = floats("float32", 2, 4)


@pytest.fixture
def graph():
    w = variable("float32", 4, 3)
    return Part(lambda x: tf.tanh(x @ w), variables=[w]).build(tf.TensorSpec([2, 4], tf.float32))


def loss_graph(fn):
    return Part(fn, variables=[]).build(tf.TensorSpec([2, 4], tf.float32), trace=["value_and_gradients"])


def test_forward_is_named_and_unpacks(graph):
    result = graph.forward(X)
    outputs, residuals = result
    assert isinstance(result, ForwardResult)
    assert result.outputs is outputs
    assert result.residuals is residuals
    assert isinstance(residuals, Residuals)
    np.testing.assert_array_equal(outputs, graph.infer(X))


def test_backward_is_named_and_unpacks(graph):
    result = graph.backward(graph.forward(X).residuals, tf.ones([2, 3]))
    inputs_ct, gradients = result
    assert isinstance(result, BackwardResult)
    assert result.inputs_ct is inputs_ct
    assert result.gradients is gradients
    assert [x.shape.as_list() for x in inputs_ct] == [[2, 4]]
    assert [g.shape.as_list() for g in gradients] == [[4, 3]]


def test_value_and_gradients_is_named_and_unpacks():
    result = loss_graph(lambda x: (tf.reduce_sum(x * x), x)).value_and_gradients(X)
    (loss, others), inputs_ct, gradients = result
    assert isinstance(result, LossResult)
    assert result.outputs[0] is loss
    assert result.inputs_ct is inputs_ct
    assert result.gradients is gradients == []
    np.testing.assert_allclose(inputs_ct[0], 2 * X, rtol=1e-6)
    np.testing.assert_array_equal(others, X)


@pytest.mark.parametrize(
    ("fn", "place"),
    [
        (tf.reduce_sum, lambda outputs: outputs),
        (lambda x: (tf.reduce_sum(x), tf.reduce_max(x)), lambda outputs: outputs[0]),
        (lambda x: {"loss": tf.reduce_sum(x)}, lambda outputs: outputs["loss"]),
        (lambda x: Pair(None, [tf.reduce_sum(x), x]), lambda outputs: outputs.second[0]),
    ],
    ids=["alone", "first of several", "only key", "after None"],
)
def test_loss_is_the_first_output(fn, place):
    result = loss_graph(fn).value_and_gradients(X)
    assert result.loss is place(result.outputs)
    np.testing.assert_allclose(result.loss, X.sum(), rtol=1e-5)
    np.testing.assert_array_equal(result.inputs_ct[0], np.ones_like(X))
