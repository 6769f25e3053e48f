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

    part = Part(Adopting(), name="encoder")
    part.build(spec([2]))
    part.build(spec([3]))


def unnamed():
    w, b = tf.Variable(tf.ones([4, 3]), name="kernel"), tf.Variable(tf.ones([3]), name="bias")
    Part(lambda x: x @ w + b, name="encoder").build(spec([2, 4]))


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


@pytest.mark.parametrize("name", ERRORS)
def test_error_teaches(name):
    check_error(*ERRORS[name])
