"""Python functions in a part: right gradients, or an error when they are traced."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from seq2split.engine import Part

spec = tf.TensorSpec([3], tf.float64)
X = np.array([1.0, 2.0, 3.0])


def square(x, call=tf.py_function):
    return tf.ensure_shape(call(lambda z: z * z, [x], tf.float64), [3])


def looped(fn):
    return lambda x: tf.while_loop(lambda i, _: i < 2, lambda i, h: (i + 1, fn(h)), (0, x), maximum_iterations=2)[1]


DIFFERENTIATED = {
    "plain": square,
    "named": lambda x: tf.py_function(lambda z: z * z, [x], tf.float64, name="mine"),
    "in a function": tf.function(square),
    "in a loop": looped(square),
    "in a branch": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: square(x), lambda: x),
    "one of two ways": lambda x: square(x) + x,
}


@tf.custom_gradient
def custom(x):
    """A Python function whose backward is one, too."""
    y = square(x, tf.numpy_function)
    return y, lambda ct: tf.ensure_shape(tf.py_function(lambda z, d: 2 * z * d, [x, ct], tf.float64), [3])


def own_tape(x):
    """A Python function that takes the gradient of a square by a tape of its own."""

    def gradient(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = z * z
        return tape.gradient(y, z)

    return x * tf.ensure_shape(tf.py_function(gradient, [tf.stop_gradient(x)], tf.float64), [3])


# What each returns, and its gradient.
SOUND = {
    "off the gradient's path": (lambda x: x * square(tf.stop_gradient(x)), X**3, X**2),
    "numpy_function has no gradient": (lambda x: x * square(x, tf.numpy_function), X**3, X**2),
    "custom gradient": (custom, X**2, 2 * X),
    "custom gradient in a loop": (looped(custom), X**4, 4 * X**3),
    "custom gradient in a function": (tf.function(custom), X**2, 2 * X),
    "a tape of its own": (own_tape, 2 * X**2, 2 * X),
}


@pytest.mark.parametrize("trace", ["forward", "value_and_gradients"])
@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_through_one_are_refused(name, trace):
    def summed(x):
        return tf.reduce_sum(DIFFERENTIATED[name](x))

    with pytest.raises(ValueError, match=r"part 'encoder': gradients would flow through a tf\.py_function"):
        Part(summed, variables=[], name="encoder").build(spec, trace=[trace])


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_without_gradients_it_runs(name):
    graph = Part(DIFFERENTIATED[name], variables=[]).build(spec, trace=["infer"])
    assert graph.infer(X).shape == [3]


@pytest.mark.parametrize("name", SOUND)
def test_gradients_of_what_is_sound(name):
    """Of two forwards before their backwards, each reads its own."""
    fn, outputs, gradient = SOUND[name]
    graph = Part(fn, variables=[]).build(spec)
    first, residuals = graph.forward(X)
    graph.forward(10 * X)
    np.testing.assert_allclose(first, outputs)
    np.testing.assert_allclose(graph.backward(residuals, np.ones(3)).inputs_ct[0], gradient)
    loss_graph = Part(lambda x: tf.reduce_sum(fn(x)), variables=[]).build(spec, trace=["value_and_gradients"])
    np.testing.assert_allclose(loss_graph.value_and_gradients(X).inputs_ct[0], gradient)
