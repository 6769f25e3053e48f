"""Split models of stock Keras layers that trace in a moment, their unsplit twins, and examples for them."""

from __future__ import annotations

import random

import keras
import numpy as np
import tensorflow as tf

import seq2split as s2s

PIECES, UNITS = 7, 4
BUCKETS = {"source": s2s.Buckets([3, 6]), "target": s2s.Buckets([2, 5])}


def real_positions(sequences, dtype):
    return tf.sequence_mask(sequences.lengths, tf.shape(sequences.values)[1], dtype)


def mean_over_time(sequences):
    """Return the mean over the real positions, `[rows, units]`."""
    values = sequences.values
    total = tf.reduce_sum(values * real_positions(sequences, values.dtype)[:, :, None], 1)
    return total / tf.cast(tf.maximum(sequences.lengths, 1), values.dtype)[:, None]


class TinyEncoder(keras.Layer):
    """Embeds pieces, or takes frames as they are, and applies a dense layer to each position."""

    def __init__(self, units=UNITS, *, embeds=True, dropout=0.0, normalize=False, constraint=None, **options):
        super().__init__(**options)
        own = {"dtype": self.dtype_policy}
        self.embed = keras.layers.Embedding(PIECES, units, **own) if embeds else keras.layers.Identity(**own)
        self.dense = keras.layers.Dense(units, "tanh", kernel_constraint=constraint, **own)
        self.drop = keras.layers.Dropout(dropout, **own) if dropout else keras.layers.Identity(**own)
        self.normalize = keras.layers.BatchNormalization(**own) if normalize else keras.layers.Identity(**own)

    def call(self, source):
        return s2s.Sequences(self.normalize(self.drop(self.dense(self.embed(source.values)))), source.lengths)


class TinyDecoder(keras.Layer):
    """Predicts each piece from the one before it and from the means of what it reads."""

    def __init__(self, units=UNITS, **options):
        super().__init__(**options)
        self.embed = keras.layers.Embedding(PIECES, units, dtype=self.dtype_policy)
        self.predict = keras.layers.Dense(PIECES, dtype=self.dtype_policy)

    def call(self, encoded, target):
        states = self.embed(tf.pad(target.values[:, :-1], [[0, 0], [1, 0]]))
        return summed_loss(self.predict(states + mean_over_time(encoded)[:, None]), target)


def summed_loss(logits, target):
    """Return the summed loss, and as metrics itself and the number of pieces that are predicted right."""
    real = real_positions(target, logits.dtype)
    loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(target.values, logits) * real)
    right = tf.cast(tf.argmax(logits, -1, tf.int32) == target.values, logits.dtype)
    return loss, {"accuracy": tf.reduce_sum(right * real), "nll": loss}


def make_layers(seed=1, dtype="float64", **encoder):
    """Return an encoder and a decoder with new variables, the same for the same seed."""
    random.seed(seed)  # from which Keras draws its seeds
    return TinyEncoder(dtype=dtype, name="encoder", **encoder), TinyDecoder(dtype=dtype, name="decoder")


def make_model(*, encoder=None, decoder=None, fields=None, threads=1, row_multiple=1, compiled_rows=None, **options):
    """Return a split model of `make_layers(**options)`, or of other layers in their place; XLA's with compiled rows."""
    made = make_layers(**options)
    encoder = s2s.Node(encoder or made[0], "source", BUCKETS["source"], name="encoder")
    reads = [encoder, "target"]
    decoder = s2s.Node(decoder or made[1], reads, BUCKETS["target"], loss=True, name="decoder")
    rows = {"jit_compile": True, "rows": compiled_rows} if compiled_rows else {"row_multiple": row_multiple}
    return s2s.SplitModel([encoder, decoder], fields=fields, threads=threads, **rows)


def make_rows(count=24, seed=1, frames=0, sides=("source", "target")):
    """Return rows of 1 to 6 pieces for each source side, and of 1 to 5 for the target, which the first source tells.

    With `frames` the first source has so many features at each position instead.
    """
    draw = np.random.default_rng(seed)
    rows = {side: [draw.integers(1, PIECES, draw.integers(1, 7)) for _ in range(count)] for side in sides}
    rows["target"] = [row[:5] for row in rows[sides[0]]]
    if frames:
        rows[sides[0]] = [draw.normal(size=[len(row), frames]).astype(np.float32) for row in rows[sides[0]]]
    return rows


def make_batches(model, rows=None, **options):
    return s2s.Batches(rows or make_rows(), model, **{"tokens": 60, "seed": 3} | options)
