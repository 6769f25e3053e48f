"""Losses that layers add, in a model of several parts: as the unsplit model has them, however a batch is grouped."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import BUCKETS, TinyDecoder, TinyEncoder, make_batches, make_rows, real_positions

import seq2split as s2s
from seq2split.buckets import pad_rows


class AddingEncoder(TinyEncoder):
    """Adds the mean square of its outputs over the rows, and the regularizer of a kernel."""

    masked = True
    divided = True

    def __init__(self, **options):
        super().__init__(**options)
        self.dense.kernel_regularizer = keras.regularizers.L2(0.1)

    def call(self, source):
        encoded = super().call(source)
        squares = 100 * encoded.values**2
        if self.masked:
            squares *= real_positions(source, squares.dtype)[:, :, None]
        rows = tf.cast(tf.shape(squares)[0], squares.dtype) if self.divided else 1.0
        self.add_loss(tf.reduce_sum(squares) / rows)
        return encoded


class Unmasked(AddingEncoder):
    masked = False


class Undivided(AddingEncoder):
    divided = False


class AddingDecoder(TinyDecoder):
    def __init__(self, **options):
        super().__init__(**options)
        self.predict.bias_regularizer = keras.regularizers.L1(0.3)
        self.predict.bias_initializer = keras.initializers.Constant(0.5)


def make(encoder=AddingEncoder, threads=1, **options):
    """Return layers and a model of them."""
    keras.utils.set_random_seed(1)
    layers = encoder(dtype="float64", name="encoder"), AddingDecoder(dtype="float64", name="decoder")
    first = s2s.Node(s2s.Part(layers[0], losses=True), "source", BUCKETS["source"], name="encoder")
    reads = [first, "target"]
    second = s2s.Node(s2s.Part(layers[1], losses=True), reads, BUCKETS["target"], loss=True, name="decoder")
    return layers, s2s.SplitModel([first, second], threads=threads, **options)


def unsplit(layers, rows):
    """Return loss, added losses and gradients of layers, called as they are on the whole batch."""
    encoder, decoder = layers
    lengths = {side: np.array([len(row) for row in each], np.int32) for side, each in rows.items()}
    fields = {side: s2s.Sequences(pad_rows(each, max(lengths[side])), lengths[side]) for side, each in rows.items()}
    with tf.GradientTape() as tape:
        total, _ = decoder(encoder(fields["source"]), fields["target"])
        added = tf.add_n([*encoder.losses, *decoder.losses])
        loss = total / float(lengths["target"].sum()) + added
    variables = {layer.name: [each.value for each in layer.trainable_variables] for layer in layers}
    return loss, added, tape.gradient(loss, variables)


def close(found, expected):
    np.testing.assert_allclose(tf.convert_to_tensor(found), tf.convert_to_tensor(expected), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("threads", [1, 2])
def test_they_equal_those_of_the_unsplit_model(threads):
    layers, model = make(threads=threads)
    rows = make_rows(9)
    found = model.loss_and_gradients(rows)
    loss, added, gradients = unsplit(layers, rows)
    close(found.loss, loss)
    close(found.metrics["added_losses"], added)
    for name, each in gradients.items():
        for one, other in zip(found.gradients[name], each, strict=True):
            close(one, other)
    assert len(model.graphs) == 4
    close(model.losses(rows).loss, loss)


def test_in_batches_whose_gradients_are_added_up_each_counts_once():
    layers, model = make()
    rows = make_rows(9)
    parts = [{side: each[start : start + 3] for side, each in rows.items()} for start in (0, 3, 6)]
    # Halves that weigh the same, as batches of a budget do, so that shares of rows and of weights agree.
    target = [row[:1] for row in rows["target"]]
    parts = [part | {"target": [row[:1] for row in part["target"]]} for part in parts]
    weights = {"decoder": 9.0}
    found = [model.loss_and_gradients(part, weights=weights) for part in parts]
    loss, added, gradients = unsplit(layers, rows | {"target": target})
    close(sum(each.loss for each in found), loss)
    close(sum(each.metrics["added_losses"] for each in found), added)
    summed = [sum(tf.convert_to_tensor(each.gradients["encoder"][1]) for each in found)]
    close(summed[0], gradients["encoder"][1])


def test_they_train():
    _, model = make()
    history = s2s.Trainer(model, keras.optimizers.SGD(0.001)).fit(
        make_batches(model), steps=3, log_every=1, validation=make_batches(model), validate_every=3, progress=False
    )
    added = [entry["added_losses"] for entry in history if "added_losses" in entry]
    assert len(added) == 3
    assert added[-1] < added[0]
    assert [entry for entry in history if "validation_added_losses" in entry]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [(Unmasked, "layers add losses for padded positions too"), (Undivided, "don't seem to be means over rows")],
)
def test_what_would_depend_on_the_grouping_is_told(encoder, message):
    _, model = make(encoder)
    with pytest.warns(UserWarning, match=message):
        model.check_losses(make_rows(2))


def test_what_is_right_is_not_told(recwarn):
    _, model = make()
    model.check_losses(make_rows(2))
    assert not [each for each in recwarn if "losses" in str(each.message)]


@pytest.mark.parametrize("options", [{"row_multiple": 2}, {"jit_compile": True, "rows": 4}])
def test_filler_rows_are_refused(options):
    with pytest.raises(ValueError, match="part 'encoder' has losses=True, to which filler rows would add theirs"):
        make(**options)


def test_a_regularizer_counts_once():
    layers, _ = make()
    shared = layers[0]

    class Reader(keras.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.inner = shared

        def call(self, encoded, target):
            return tf.reduce_sum(self.inner.dense(encoded.values)) + 0.0 * tf.cast(target.lengths[0], tf.float64)

    first = s2s.Node(s2s.Part(shared, losses=True), "source", BUCKETS["source"], name="encoder")
    last = s2s.Node(s2s.Part(Reader(), losses=True), [first, "target"], BUCKETS["target"], loss=True, name="reader")
    model = s2s.SplitModel([first, last])
    with pytest.raises(ValueError, match=r"of .*kernel would count in the parts 'encoder' and 'reader'"):
        model.loss_and_gradients(make_rows(2))
