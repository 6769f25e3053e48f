"""A user's tape around the calls: never a wrong gradient, and no obstacle to what doesn't go through them."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from engine_subjects import floats

from seq2split.engine import Part, outer_tapes

spec = tf.TensorSpec


class Loss(keras.layers.Dense):
    def call(self, x):
        return tf.reduce_sum(super().call(x) ** 2)


@pytest.fixture(scope="module")
def part():
    return Part(Loss(3), name="decoder")


@pytest.fixture(scope="module")
def graph(part):
    return part.build(spec([2, 4]), trace=["forward", "infer", "value_and_gradients"])


def forward(graph, x):
    return graph.forward(x).outputs


def backward(graph, x):
    _, residuals = graph.forward(tf.convert_to_tensor(x))
    return tf.reduce_sum(graph.backward(residuals, tf.reduce_sum(x)).gradients[0])


def loss(graph, x):
    return graph.value_and_gradients(x)[0]


def input_cotangents(graph, x):
    return tf.reduce_sum(graph.value_and_gradients(x).inputs_ct[0])


def infer(graph, x):
    return graph.infer(x)


CALLS = (forward, backward, loss, input_cotangents, infer)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("place", ["before", "after", "without"])
def test_another_path_to_a_variable_is_no_wrong_number(graph, call, place):
    """Whether the tape has met the variable before the call, meets it after, or does not."""
    kernel = graph.variables[0].value
    x = tf.constant(floats("float32", 2, 4))
    with tf.GradientTape() as tape:
        decay = tf.reduce_sum(kernel**2) if place == "before" else 0.0
        total = call(graph, x) + decay
        total += tf.reduce_sum(kernel**2) if place == "after" else 0.0
    with pytest.raises(LookupError, match=r"PartGraph\('decoder', .* was called while a gradient tape was recording"):
        tape.gradient(total, kernel)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("persistent", [True, False])
def test_another_path_to_an_input_is_no_wrong_number(graph, call, persistent):
    x = tf.constant(floats("float32", 2, 4))
    with tf.GradientTape(persistent=persistent, watch_accessed_variables=False) as tape:
        tape.watch(x)
        total = call(graph, x) + tf.reduce_sum(x)
    with pytest.raises(LookupError, match="outside of the tape"):
        tape.gradient(total, x)


def test_a_variable_that_gets_no_gradients():
    scale = tf.Variable(2.0)
    graph = Part(lambda x: scale * x, variables=[]).build(spec([]))
    with tf.GradientTape() as tape:
        total = graph.forward(3.0).outputs + scale
    with pytest.raises(LookupError, match="was called while a gradient tape was recording"):
        tape.gradient(total, scale)


def test_what_follows_a_call_can_be_taken_by_a_tape(graph):
    """As by hand: the call is outside of the tape, which watches what it returned."""
    x = tf.constant(floats("float32", 2, 4))
    weight = tf.Variable(3.0)
    outputs = graph.infer(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        with tape.stop_recording():
            paused = graph.infer(x)
        total = weight * outputs + paused
    assert float(tape.gradient(total, outputs)) == 3.0
    assert float(tape.gradient(total, weight)) == float(outputs)


def test_what_does_not_go_through_a_call_is_as_ever(graph):
    weight = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        value = graph.infer(tf.constant(floats("float32", 2, 4)))
        total = weight**2 + tf.stop_gradient(value)
    assert float(tape.gradient(total, weight)) == 6.0


def test_results_are_the_same(graph):
    x = tf.constant(floats("float32", 2, 4))
    expected = graph.value_and_gradients(x)
    with tf.GradientTape():
        found = graph.value_and_gradients(x)
    tf.nest.map_structure(lambda a, b: tf.debugging.assert_equal(a, b), tuple(found), tuple(expected))


def test_without_the_private_question(graph, monkeypatch):
    """If TensorFlow takes it away, everything is sealed, and works."""
    monkeypatch.setattr(outer_tapes, "could_possibly_record", lambda: True)
    assert float(infer(graph, tf.ones([2, 4]))) == float(loss(graph, tf.ones([2, 4])))
