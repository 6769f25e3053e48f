"""A convolutional encoder and a GRU decoder of stock Keras layers, trained on data in numpy, stopped, and resumed.

The task: a row of digits becomes the same digits in reverse, and an end. `python examples/own_model.py` takes a minute.
"""

from __future__ import annotations

import argparse
import tempfile

import keras
import numpy as np
import tensorflow as tf

import seq2split as s2s

PIECES, UNITS, END, START = 13, 64, 2, 1  # 0 is padding, 3 to 12 are the digits


class Encoder(keras.Layer):
    """Embeds pieces and convolves them; padding is kept at zero, so that it changes nothing."""

    def __init__(self, **options):
        super().__init__(**options)
        self.embed = keras.layers.Embedding(PIECES, UNITS)
        self.layers = [keras.layers.Conv1D(UNITS, 5, padding="same", activation="gelu") for _ in range(2)]

    def call(self, source):
        mask = tf.sequence_mask(source.lengths, tf.shape(source.values)[1], tf.float32)[:, :, None]
        values = self.embed(source.values) * mask
        for layer in self.layers:
            values += layer(values) * mask
        return s2s.Sequences(values, source.lengths)  # what has a time axis crosses as Sequences


class Decoder(keras.Layer):
    """Predicts each piece from those before it, by a GRU that attends over the encoder's outputs."""

    def __init__(self, **options):
        super().__init__(**options)
        self.embed = keras.layers.Embedding(PIECES, UNITS)
        self.recurrent = keras.layers.GRU(UNITS, return_sequences=True)
        self.attention = keras.layers.MultiHeadAttention(4, UNITS // 4)
        self.predict = keras.layers.Dense(PIECES)

    def call(self, encoded, target):
        previous = tf.pad(target.values[:, :-1], [[0, 0], [1, 0]], constant_values=START)
        states = self.recurrent(self.embed(previous))
        seen = tf.sequence_mask(encoded.lengths, tf.shape(encoded.values)[1])[:, None]
        contexts = self.attention(states, encoded.values, attention_mask=seen)
        logits = self.predict(tf.concat([states, contexts], -1))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target.values, logits)
        real = tf.sequence_mask(target.lengths, tf.shape(target.values)[1])
        right = (tf.argmax(logits, -1, tf.int32) == target.values) & real
        zeros = tf.zeros_like(losses)
        return tf.reduce_sum(tf.where(real, losses, zeros)), {"accuracy": tf.reduce_sum(tf.cast(right, tf.float32))}


def make_rows(count: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Return digits of 1 to 12 places, and their reverse with an end."""
    random = np.random.default_rng(seed)
    source = [random.integers(3, PIECES, random.integers(1, 13)) for _ in range(count)]
    return {"source": source, "target": [np.append(row[::-1], END) for row in source]}


def train(run: str, steps: int, report: bool = False) -> float:
    """Train up to a step, from wherever the run directory stands; returns the validation's loss."""
    keras.utils.set_random_seed(1)
    encoder = s2s.Node(Encoder(name="encoder"), "source", s2s.Buckets([4, 8, 12]))
    decoder = s2s.Node(Decoder(name="decoder"), [encoder, "target"], s2s.Buckets([5, 9, 13]), loss=True)
    model = s2s.SplitModel([encoder, decoder])
    batches = s2s.Batches(make_rows(4000, seed=1), model, tokens=1500, seed=1)
    valid = s2s.Batches(make_rows(300, seed=2), model, tokens=1500)
    trainer = s2s.Trainer(model, keras.optimizers.Adam(2e-3), run=run, clip_norm=1.0)
    trainer.fit(batches, steps=steps, validation=valid, validate_every=100, checkpoint_every=50)
    if report:
        losses = [model.losses(batch) for batch in valid]
        weights = [losses.weights["decoder"] for losses in losses]
        accuracy = np.average([losses.metrics["accuracy"] for losses in losses], weights=weights)
        print(f"accuracy {accuracy:.3f} over part graphs {sorted(model.graphs)}")
    return next(entry for entry in reversed(trainer.history) if "validation_loss" in entry)["validation_loss"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_argument("--steps", type=int, default=400).default
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as resumed:
        train(resumed, steps // 2)  # a killed process would leave the same
        losses = train(whole, steps, report=True), train(resumed, steps)
    print(f"validation loss {losses[0]:.4f} in one go, {losses[1]:.4f} resumed: difference {abs(losses[0] - losses[1])}")
