"""Losses that layers add: exact where they join, and never left out in silence."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import floats

import seq2split as s2s
from seq2split.engine import Part, WithLosses

spec = tf.TensorSpec([2, 4], tf.float64)
X = floats("float64", 2, 4)


def dense(units=3, name="inner", **options):
    return keras.layers.Dense(units, "tanh", dtype="float64", name=name, **options)


class Adding(keras.layers.Dense):
    """Adds two losses of its own, one only while it trains."""

    def call(self, x, training=None):
        y = super().call(x)
        self.add_loss(tf.reduce_mean(y**2))
        if training:
            self.add_loss([tf.reduce_mean(tf.abs(x))])
        return y


class Methods(keras.Model):
    """A model whose methods are parts."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.first = dense(kernel_regularizer="l2", activity_regularizer="l1")
        self.second = dense(activity_regularizer="l2")

    def encode(self, x):
        return self.first(x)

    def call(self, x):
        return self.second(self.first(x))


def nested():
    return keras.Sequential([dense(5, "first", activity_regularizer="l1"), dense(kernel_regularizer="l2")])


def frozen():
    layer = keras.Sequential([dense(name="first", kernel_regularizer="l2"), dense(kernel_regularizer="l2")])
    layer.build([None, 4])
    layer.layers[0].trainable = False
    return layer


# What makes a callable, and the names of the layers that add.
SUBJECTS = {
    "activity_regularizer": (lambda: dense(activity_regularizer="l2"), ["inner"]),
    "kernel_regularizer": (lambda: dense(kernel_regularizer="l2", bias_regularizer="l1"), ["inner"]),
    "add_loss": (lambda: Adding(3, dtype="float64", name="inner"), ["inner"]),
    "nested": (nested, ["first", "inner"]),
    "frozen": (frozen, ["inner"]),
    "method": (lambda: Methods().encode, ["inner"]),
    "functional": (
        lambda: keras.Model(x := keras.Input([4], dtype="float64"), dense(activity_regularizer="l2")(x)),
        ["inner"],
    ),
}


@pytest.fixture(params=SUBJECTS)
def subject(request):
    """A callable, built, with the layers that it belongs to."""
    keras.utils.set_random_seed(1)
    fn = SUBJECTS[request.param][0]()
    fn(X)
    return fn, getattr(fn, "__self__", fn)


def joint(fn, owner, cotangent=1.5):
    """Return outputs, added losses and gradients of inputs and variables, by one tape."""
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = fn(x, training=True) if isinstance(fn, keras.Layer) else fn(x)
        losses = tf.add_n(owner.losses)
        loss = tf.reduce_sum(outputs**2) + cotangent * losses
    return outputs, losses, tape.gradient(loss, [x, *(each.value for each in owner.trainable_variables)])


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("save", ["needed", "inputs"])
def test_they_join(subject, save):
    fn, owner = subject
    expected, losses, gradients = joint(fn, owner)
    part = Part(fn, losses=True, save=save)
    graph = part.build(spec)
    assert part.losses
    outputs, residuals = graph.forward(X)
    close([outputs.outputs, outputs.losses], [expected, losses])
    inputs_ct, found = graph.backward(residuals, WithLosses(2 * outputs.outputs, tf.constant(1.5, tf.float64)))
    close([*inputs_ct, *found], gradients)


def test_they_join_in_one_graph(subject):
    fn, owner = subject
    _, losses, gradients = joint(fn, owner)

    class Loss(keras.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.owner = owner

        def call(self, x, training=None):
            return tf.reduce_sum((fn(x, training=training) if isinstance(fn, keras.Layer) else fn(x)) ** 2)

    graph = Part(Loss(), losses=True).build(spec, trace=["value_and_gradients"])
    result = graph.value_and_gradients(X, losses_ct=1.5)
    close([result.outputs.losses, *result.inputs_ct, *result.gradients], [losses, *gradients])
    assert float(result.loss) == float(result.outputs.outputs)


def test_infer_adds_what_inference_adds():
    layer = Adding(3, dtype="float64")
    expected = [layer(X), *layer.losses]
    graph = Part(layer, losses=True).build(spec, trace=["infer"])
    close(graph.infer(X), expected)


@pytest.mark.parametrize("name", SUBJECTS)
def test_left_out_with_a_warning_that_names_the_layers(name):
    make, names = SUBJECTS[name]
    fn = make()
    with pytest.warns(UserWarning, match="part 'encoder': layers add losses .* Part\\(layer, losses=True\\)") as found:
        graph = Part(fn, name="encoder").build(spec, trace=["forward", "infer"])
    assert len(found) == 1
    assert f": {', '.join(names)}. They" in str(found[0].message)
    _, residuals = graph.forward(X)
    graph.backward(residuals, tf.ones([2, 3], tf.float64))


def test_nothing_to_add():
    with warnings.catch_warnings(action="error"):
        Part(dense()).build(spec)
        Part(lambda x: x).build(spec)
        graph = Part(dense(), losses=True).build(spec)
    (_, losses), residuals = graph.forward(X)
    assert float(losses) == 0
    graph.backward(residuals, WithLosses(X[:, :3], tf.ones_like(losses)))


class Module(tf.Module):
    def __init__(self):
        super().__init__()
        self.layer = dense(kernel_regularizer="l2")

    def __call__(self, x):
        return self.layer(x)


@pytest.mark.parametrize("fn", [lambda x: x, Module()], ids=["function", "module"])
def test_what_is_no_layer_can_not_tell_what_it_adds(fn):
    """Nothing would join, and no word be said."""
    with pytest.raises(TypeError, match="part 'encoder': losses=True takes a Keras layer or model, or a method of one"):
        Part(fn, losses=True, name="encoder")


def test_regularizers_of_variables_that_a_function_names_are_told():
    layer = dense(kernel_regularizer="l2")
    layer(X)
    with pytest.warns(UserWarning, match=r"part 'encoder': layers add losses .*: inner/kernel\. They are left out"):
        Part(lambda x: layer(x), variables=layer.trainable_variables, name="encoder").build(spec)


def test_another_method_of_the_same_model_adds_its_own():
    """Not what the first method added in its graph."""
    model = Methods()
    model(X)
    first = Part(model.encode, losses=True).build(spec).forward(X).outputs.losses
    both = Part(model.call, losses=True).build(spec).forward(X).outputs.losses
    model(X)
    np.testing.assert_allclose(both, tf.add_n(model.losses), rtol=1e-12)
    assert float(first) < float(both)


def test_exported(tmp_path):
    layer = dense(activity_regularizer="l2")
    part = Part(layer, losses=True)
    graph = part.build(spec)
    part.export(tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    results = loaded.forward(tf.constant(X))
    expected, residuals = graph.forward(X)
    outputs_ct = (tf.ones([2, 3], tf.float64), tf.constant(2.0, tf.float64))
    found = loaded.backward(results["residuals"], type(results["outputs"])(*outputs_ct))
    close(tf.nest.flatten(results["outputs"]), tf.nest.flatten(expected))
    close(found["gradients"], graph.backward(residuals, WithLosses(*outputs_ct)).gradients)


def test_the_name_is_public():
    assert s2s.WithLosses is WithLosses
