"""Keras saves every public layer and model: by its configuration, and in a `.keras` file, bit for bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import randomize

import seq2split as s2s
from seq2split import layers, models

FLOATS = tf.reshape(tf.sin(tf.range(48.0)), [2, 3, 8])  # [rows, time, features], or time-major
LENGTHS = tf.constant([3, 1])
SOURCE = s2s.Sequences(tf.constant([[4, 7, 3], [3, 0, 0]]), LENGTHS)
TARGET = s2s.Sequences(tf.constant([[5, 3], [6, 3]]), tf.constant([2, 2]))
OUTPUTS = s2s.Sequences(FLOATS, LENGTHS)
ENCODED = models.Encoded(OUTPUTS, FLOATS[:, 0])
RATES = models.DropoutRates(0.3, 0.2, 0.1)


def attend(layer):
    return layer(FLOATS[:, :1], layer.prepare(FLOATS, LENGTHS))


def attend_to_itself(layer):
    if not layer.built:
        layer.build(FLOATS.shape)
    return layer(*layer.project(FLOATS))


def train(*inputs):
    return lambda layer: layer(*inputs, training=True)


# How each is made, not with its defaults, and what is computed with it; dropout included, for which the seed is kept.
SUBJECTS = {
    "LSTM": (lambda: layers.LSTM(4, reverse=True), lambda layer: layer(FLOATS, LENGTHS[0] - tf.range(3))),
    "GRU": (lambda: layers.GRU(4, reverse=True, unroll=False), lambda layer: layer(FLOATS)),
    "LuongAttention": (lambda: layers.LuongAttention(8, dtype="mixed_bfloat16"), attend),
    "BahdanauAttention": (lambda: layers.BahdanauAttention(8), attend),
    "LayerNormalization": (layers.LayerNormalization, lambda layer: layer(FLOATS)),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(8, 2), attend_to_itself),
    "TransformerLayer": (lambda: layers.TransformerLayer(8, 2, 6, norm="post"), lambda layer: layer(FLOATS)),
    "RecurrentEncoder": (
        lambda: models.RecurrentEncoder(9, 3, 8, 2, cell="gru", dropout=0.3, unroll=False),
        train(SOURCE),
    ),
    "RecurrentDecoder": (
        lambda: models.RecurrentDecoder(
            9,
            [8, 8],
            2,
            4,
            4,
            2,
            attention="bahdanau",
            unroll=True,
            dropout=0.3,
            tied_embeddings=True,
            label_smoothing=0.1,
        ),
        train(ENCODED, ENCODED, TARGET),
    ),
    "TransformerEncoder": (
        lambda: models.TransformerEncoder(9, 8, 2, 2, 6, norm="post", positions="learned", max_length=5, rates=RATES),
        train(SOURCE),
    ),
    "TransformerDecoder": (
        lambda: models.TransformerDecoder(9, [8, 8], 2, 8, 2, 2, 6, rates=RATES, label_smoothing=0.1, name="mine"),
        train(OUTPUTS, OUTPUTS, TARGET),
    ),
}
every_subject = pytest.mark.parametrize("subject", SUBJECTS)


def make(subject):
    make_layer, run = SUBJECTS[subject]
    layer = make_layer()
    run(layer)  # which builds it
    return randomize(layer), run


def assert_equal(found, expected):
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(left, right)


@keras.saving.register_keras_serializable(package="seq2split.tests")
class Model(keras.Model):
    """A model around one layer."""

    def __init__(self, layer, subject):
        super().__init__()
        self.layer, self.subject = layer, subject

    def call(self, _):
        return SUBJECTS[self.subject][1](self.layer)

    def get_config(self):
        return {"layer": keras.saving.serialize_keras_object(self.layer), "subject": self.subject}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["layer"]), config["subject"])


@every_subject
def test_from_configuration(subject):
    """The same arguments, none forgotten: with the same weights it computes the same."""
    layer, run = make(subject)
    config = layer.get_config()
    twin = type(layer).from_config(config)
    assert twin.get_config() == config
    run(twin)
    for left, right in zip(layer.trainable_variables, twin.trainable_variables, strict=True):
        right.assign(left)
    assert_equal(run(twin), run(layer))


@every_subject
def test_keras_file(subject, tmp_path):
    layer, run = make(subject)
    model = Model(layer, subject)
    model(tf.zeros([1]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layer is not layer
    assert type(loaded.layer) is type(layer)
    assert_equal(loaded(tf.zeros([1])), run(layer))


def test_every_public_layer_is_a_subject():
    public = {name: getattr(package, name) for package in (layers, models) for name in package.__all__}
    classes = {name for name, each in public.items() if isinstance(each, type) and issubclass(each, keras.Layer)}
    assert classes - {"Recurrent"} == set(SUBJECTS)


@pytest.mark.parametrize(
    "make_sharing",
    [
        lambda embeddings: models.RecurrentEncoder(9, 8, 8, embeddings=embeddings, name="mine"),
        lambda embeddings: models.RecurrentDecoder(9, 8, 2, 8, 8, embeddings=embeddings, name="mine"),
        lambda embeddings: models.TransformerEncoder(9, 8, 1, 2, 6, embeddings=embeddings, name="mine"),
        lambda embeddings: models.TransformerDecoder(9, 8, 2, 8, 1, 2, 6, embeddings=embeddings, name="mine"),
    ],
)
def test_shared_embeddings_cannot_be_written(make_sharing):
    layer = make_sharing(models.RecurrentEncoder(9, 8, 8).embeddings)
    with pytest.raises(ValueError, match=r"'mine' uses the embeddings of another layer, .*embeddings=None"):
        layer.get_config()
