"""What a part may return. A Keras mask, which would be lost at a boundary, is refused; mends give the unsplit model.

The unsplit model is a masked encoder and an average over its real positions, in one `tf.function` with one tape.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_trials import check_error

from seq2split.engine import Part

TOKENS = np.array([[1, 2, 0, 0], [3, 1, 4, 2], [2, 0, 0, 0]], np.int32)
SPEC = tf.TensorSpec([3, 4], tf.int32)
HIDDEN = tf.TensorSpec([3, 4, 5], tf.float32)
PASSES = ["forward", "value_and_gradients", "infer"]


def embedding():
    return keras.layers.Embedding(6, 5, keras.initializers.RandomNormal(stddev=1.0, seed=1), mask_zero=True)


class Encoder(keras.layers.Layer):
    """An embedding and a GRU that skips padding."""

    def __init__(self):
        super().__init__(name="encoder")
        self.embedding, self.gru = embedding(), keras.layers.GRU(5, return_sequences=True)

    def call(self, tokens):
        return self.gru(self.embedding(tokens))


class Decoder(keras.layers.Layer):
    """A sum of squares of the average over the positions that a mask keeps."""

    supports_masking = True

    def __init__(self):
        super().__init__(name="decoder")
        self.dense, self.average = keras.layers.Dense(3), keras.layers.GlobalAveragePooling1D()

    def call(self, hidden, mask=None):
        return tf.reduce_sum(tf.square(self.average(self.dense(hidden), mask=mask)))


def functional(nested):
    tokens = keras.Input([4], dtype="int32")
    hidden = keras.layers.Dense(5)(embedding()(tokens))
    return keras.Model(tokens, {"hidden": [keras.ops.mean(hidden, 1), hidden]} if nested else hidden)


def returning(outside):
    return lambda tokens: (tokens, outside)


MASKED = {
    "layer": (embedding, "output"),
    "layer after it": (Encoder, "output"),
    "Masking": (lambda: lambda x: keras.layers.Masking()(tf.cast(x, tf.float32)[..., None]), "output"),
    "Sequential": (lambda: keras.Sequential([embedding(), keras.layers.LSTM(2, return_sequences=True)]), "output"),
    "states": (
        lambda: keras.Sequential([embedding(), keras.layers.GRU(2, return_sequences=True, return_state=True)]),
        "output[0]",
    ),
    "functional": (lambda: functional(nested=False), "output"),
    "functional nest": (lambda: functional(nested=True), "output['hidden'][1]"),
    "made eagerly": (lambda: returning(embedding()(TOKENS)), "output[1]"),
}


def part_of(fn):
    return Part(fn, name="encoder", **({} if hasattr(fn, "trainable_variables") else {"variables": []}))


@pytest.mark.parametrize("traced", PASSES)
@pytest.mark.parametrize("name", MASKED)
def test_an_output_with_a_mask_is_refused(name, traced):
    make, path = MASKED[name]
    with pytest.raises(ValueError, match="implicit Keras mask") as caught:
        part_of(make()).build(SPEC, trace=[traced])
    message = " ".join(str(caught.value).split())
    expected = [f"part 'encoder': {path} carries an implicit Keras mask", "tf.identity(output)", "lengths", "mask=..."]
    assert [text for text in expected if text not in message] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.Embedding(6, 5),
        lambda: keras.Sequential([embedding(), keras.layers.LSTM(2)]),
        lambda: keras.Sequential([embedding(), keras.layers.GlobalAveragePooling1D()]),
    ],
    ids=["no mask", "last output", "average"],
)
def test_outputs_without_a_mask_cross(make):
    outputs, residuals = part_of(make()).build(SPEC, trace=PASSES[::2]).forward(TOKENS)
    assert not residuals.consumed
    assert outputs.shape[0] == 3


def test_a_scalar_loss_may_carry_a_mask():
    """Keras gives the loss of a layer that supports masking the mask of what the layer reads."""
    whole = keras.Sequential([Encoder(), Decoder()])
    assert whole(TOKENS)._keras_mask is not None
    result = part_of(whole).build(SPEC, trace=["value_and_gradients"]).value_and_gradients(TOKENS)
    assert result.loss.shape == []


# The mends


def unsplit(encoder, decoder, between=lambda hidden: hidden):
    """The loss and all gradients of the model in one piece, where Keras hands the mask on by itself."""
    variables = [each.value for each in encoder.trainable_variables + decoder.trainable_variables]

    @tf.function
    def joint(tokens):
        with tf.GradientTape() as tape:
            loss = decoder(between(encoder(tokens)))
        return loss, tape.gradient(loss, variables)

    loss, gradients = joint(TOKENS)
    return [loss, *map(tf.convert_to_tensor, gradients)]


def split(encoder, encode, decode, *specs):
    """The same of two parts."""
    first = Part(encode, variables=encoder.trainable_variables).build(SPEC)
    outputs, residuals = first.forward(TOKENS)
    last = Part(decode[0], variables=decode[1].trainable_variables).build(*specs)
    result = last.value_and_gradients(*tf.nest.flatten(outputs))
    hidden_ct = result.inputs_ct[0]
    outputs_ct = (hidden_ct, *[None] * (len(specs) - 1)) if isinstance(outputs, tuple) else hidden_ct
    found = first.backward(residuals, outputs_ct).gradients + result.gradients
    return [result.loss, *map(tf.convert_to_tensor, found)]


@pytest.fixture
def layers():
    keras.utils.set_random_seed(1)
    encoder, decoder = Encoder(), Decoder()
    decoder(encoder(TOKENS))
    return encoder, decoder


def check(actual, expected):
    assert len(actual) == len(expected) == 7
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def lengths_cross(encoder, decoder):
    def encode(tokens):
        return tf.identity(encoder(tokens)), tf.math.count_nonzero(tokens, 1, dtype=tf.int32)

    def decode(hidden, lengths):
        return decoder(hidden, mask=tf.sequence_mask(lengths, 4))

    return split(encoder, encode, (decode, decoder), HIDDEN, tf.TensorSpec([3], tf.int32))


def mask_crosses(encoder, decoder):
    def encode(tokens):
        return tf.identity(encoder(tokens)), encoder.embedding.compute_mask(tokens)

    return split(
        encoder, encode, (lambda h, mask: decoder(h, mask=mask), decoder), HIDDEN, tf.TensorSpec([3, 4], "bool")
    )


def mask_dropped(encoder, decoder):
    return split(encoder, lambda tokens: tf.identity(encoder(tokens)), (lambda h: decoder(h), decoder), HIDDEN)


@pytest.mark.parametrize("mend", [lengths_cross, mask_crosses])
def test_an_explicit_mask_gives_the_unsplit_model(layers, mend):
    check(mend(*layers), unsplit(*layers))


def test_a_dropped_mask_gives_the_unsplit_model_without_one(layers):
    """It is another model than the one with the mask: that difference used to be silent."""
    dropped = mask_dropped(*layers)
    check(dropped, unsplit(*layers, between=tf.identity))
    assert abs(float(dropped[0]) - float(unsplit(*layers)[0])) > 1e-3


# What is no nest of tensors


def no_scalar():
    Part(lambda x: {"loss": x}, variables=[], name="encoder").build(tf.TensorSpec([2])).value_and_gradients(tf.ones(2))


def ragged():
    Part(lambda x: tf.RaggedTensor.from_row_lengths(x, [2]), variables=[], name="encoder").build(tf.TensorSpec([2]))


# name: what to do, the error, and what its message holds: what was given, what was expected, the mend.
ERRORS = {
    "no scalar": (
        no_scalar,
        ValueError,
        ["part 'encoder'", "returns a scalar loss", "returns {'loss': float32[2]}", "Sum the loss to a scalar"],
    ),
    "ragged": (ragged, TypeError, ["part 'encoder'", "returns a RaggedTensor", "nest of tensors", "dense components"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_teaches(name):
    check_error(*ERRORS[name])


def test_no_output_of_a_dictionary_is_the_loss():
    """The first key in alphabetical order would be, whatever it holds."""

    def last(x):
        return {"accuracy": tf.reduce_mean(x), "loss": tf.reduce_sum(x * x)}

    part = Part(last, variables=[])
    with pytest.raises(ValueError, match=r"returns a dictionary, \{'accuracy': float32\[\], 'loss': float32\[\]\}"):
        part.build(tf.TensorSpec([3]), trace=["value_and_gradients"])
    part = Part(lambda x: (tf.reduce_sum(x * x), {"accuracy": tf.reduce_mean(x)}), variables=[], name="mended")
    result = part.build(tf.TensorSpec([3]), trace=["value_and_gradients"]).value_and_gradients(tf.constant([1.0, 2, 3]))
    assert float(result.loss) == 14.0
    assert result.inputs_ct[0].numpy().tolist() == [2.0, 4.0, 6.0]
