"""The variables of a part: which it may create, and which somebody must name."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from engine_trials import (
    check_error,
)

from seq2split.engine import Part

spec = tf.TensorSpec


def creates_per_shape():
    made = {}

    def fn(x):
        if x.shape[0] not in made:
            made[x.shape[0]] = tf.Variable(tf.ones([]), trainable=False, name=f"scale_{x.shape[0]}")
        return x * made[x.shape[0]]

    part = Part(fn, variables=[], name="encoder")
    part.build(spec([2]))
    part.build(spec([3]))


def creates_every_time():
    Part(lambda x: x * tf.Variable(2.0, trainable=False, name="two"), variables=[], name="encoder").build(spec([2]))


class PerShape(keras.Layer):
    def call(self, x):
        name = f"scale_{x.shape[0]}"
        if not hasattr(self, name):
            self._tracker.unlock()  # Keras itself refuses where it can
            setattr(self, name, self.add_weight(shape=(), name=name))
        return x * getattr(self, name)


def layer_creates_per_shape():
    part = Part(PerShape(), name="encoder")
    part.build(spec([2]))
    part.build(spec([3]))


def adopts_a_variable():
    elsewhere = tf.Variable(1.0, name="elsewhere")

    class Adopting(tf.Module):
        def __call__(self, x):
            if x.shape[0] == 3:
                self.adopted = elsewhere
                return x * elsewhere
            return x

    part = Part(Adopting(), name="encoder")
    part.build(spec([2]))
    part.build(spec([3]))


def unnamed():
    w, b = tf.Variable(tf.ones([4, 3]), name="kernel"), tf.Variable(tf.ones([3]), name="bias")
    Part(lambda x: x @ w + b, name="encoder").build(spec([2, 4]))


def untracked(make):
    """Return an action that builds a layer or module which reads a variable that it doesn't own."""

    def build():
        elsewhere = tf.Variable(tf.ones([4, 3]), name="elsewhere")
        Part(make(elsewhere), name="encoder").build(spec([2, 4]))

    return build


def closing_layer(elsewhere):
    class Closing(keras.Layer):
        def call(self, x):
            return x @ elsewhere

    return Closing()


def holding_layer(elsewhere):
    class Holding(keras.Layer):
        def __init__(self):
            super().__init__()
            self.hidden = elsewhere  # which Keras doesn't take for a weight

        def call(self, x):
            return x @ self.hidden

    return Holding()


def closing_module(elsewhere):
    class Closing(tf.Module):
        def __call__(self, x):
            return x @ elsewhere

    return Closing()


def method(elsewhere):
    return closing_layer(elsewhere).call


UNTRACKED = {make.__name__: untracked(make) for make in (closing_layer, holding_layer, closing_module, method)}


# name: what to do, the error, and what its message holds: what was given, what was expected, the mend.
ERRORS = {
    "variable in a second call": (
        creates_per_shape,
        ValueError,
        ["'encoder'", "scale_3", "first call only", "__init__"],
    ),
    "variable in every call": (creates_every_time, ValueError, ["'encoder'", "two", "first call only", "__init__"]),
    "variable of a layer in a second call": (
        layer_creates_per_shape,
        ValueError,
        ["'encoder'", "scale_3", "first call only", "__init__"],
    ),
    "variable adopted in a second call": (
        adopts_a_variable,
        ValueError,
        ["'encoder'", "elsewhere", "first call only", "__init__"],
    ),
    "unnamed variables": (
        unnamed,
        ValueError,
        ["'encoder'", "kernel", "bias", "variables=[...]", "empty list freezes"],
    ),
}


ERRORS |= {
    name: (action, ValueError, ["'encoder'", "elsewhere", "no gradients", "variables=[...]", "add_weight"])
    for name, action in UNTRACKED.items()
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_teaches(name):
    check_error(*ERRORS[name])


def test_what_a_layer_reads_of_another_can_be_named():
    elsewhere = tf.Variable(tf.ones([4, 3]))
    graph = Part(closing_layer(elsewhere), variables=[elsewhere]).build(spec([2, 4]))
    _, residuals = graph.forward(tf.ones([2, 4]))
    (gradient,) = graph.backward(residuals, tf.ones([2, 3])).gradients
    assert gradient.numpy().tolist() == [[2.0] * 3] * 4


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("run", ["forward", "value_and_gradients"])
def test_freezing_after_the_first_call(first, run):
    """Gradients of what was trainable before would be wrong then; set back, all is well."""
    layer = keras.layers.Dense(1)
    layer.trainable = first
    graph = Part(keras.Sequential([layer, keras.layers.Lambda(tf.reduce_sum)]), name="encoder").build(spec([2, 4]))
    call = getattr(graph, run)
    call(tf.ones([2, 4]))
    layer.trainable = not first
    with pytest.raises(ValueError, match=f"kernel, bias {'frozen' if first else 'made trainable'}"):
        call(tf.ones([2, 4]))
    graph.infer(tf.ones([2, 4]))
    layer.trainable = first
    assert len(call(tf.ones([2, 4]))) in (2, 3)
