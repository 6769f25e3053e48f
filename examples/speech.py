"""Float features to pieces, as in speech recognition: the lengths of the two sides have little to do with one another.

The frames are made here: each digit "sounds" for 3 to 8 frames as a noisy pattern over 20 bands, with silence around.
Run `python examples/speech.py`.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
import tensorflow as tf
from own_layers import GRUDecoder, real_positions

import seq2split as s2s

BANDS, PIECES, UNITS, BOS, EOS = 20, 13, 64, 1, 2


class FrameEncoder(keras.Layer):
    """Halves the number of frames twice by strided convolutions, and runs a GRU over what is left."""

    def __init__(self, units: int, **options):
        super().__init__(**options)
        self.strided = [keras.layers.Conv1D(units, 3, strides=2, padding="same", activation="relu") for _ in range(2)]
        self.recurrent = keras.layers.GRU(units, return_sequences=True)

    def call(self, frames):
        values, lengths = frames.values, frames.lengths
        for convolution in self.strided:
            lengths = (lengths + 1) // 2
            values = convolution(values)
            values *= real_positions(s2s.Sequences(values, lengths), values.dtype)[:, :, None]
        return s2s.Sequences(self.recurrent(values), lengths)


def make_rows(count: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Return frames `[time, bands]` and the digits that they sound like, with an end."""
    patterns = np.random.default_rng(0).normal(size=[PIECES, BANDS])
    patterns[0] = 0.0  # silence
    random = np.random.default_rng(seed)
    frames, pieces = [], []
    for _ in range(count):
        digits = random.integers(3, PIECES, random.integers(1, 7))
        spoken = np.concatenate([[0], digits, [0]])
        times = random.integers(3, 9, len(spoken))
        frames.append(np.repeat(patterns[spoken], times, axis=0) + 0.3 * random.normal(size=[times.sum(), BANDS]))
        pieces.append(np.append(digits, EOS))
    return {"frames": frames, "target": pieces}


def main() -> None:
    """Train, and print the accuracy on frames that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    keras.utils.set_random_seed(1)
    train, valid = make_rows(3000, seed=1), make_rows(200, seed=2)
    lengths = [len(row) for row in train["frames"] + valid["frames"]]
    encoder = s2s.Node(FrameEncoder(UNITS), "frames", s2s.Buckets.fit(lengths, count=4), name="encoder")
    layer = GRUDecoder(PIECES, BOS, UNITS)
    decoder = s2s.Node(layer, [encoder, "target"], s2s.Buckets([3, 5, 7]), loss=True, name="decoder")
    model = s2s.SplitModel([encoder, decoder], fields={"frames": tf.TensorSpec([BANDS], tf.float32)})
    trainer = s2s.Trainer(model, keras.optimizers.Adam(3e-3), clip_norm=1.0)
    trainer.fit(
        s2s.Batches(train, model, tokens=2500, mode="mixed", seed=1),
        steps=steps,
        validation=s2s.Batches(valid, model, tokens=2500),
        validate_every=100,
    )
    print(f"accuracy {trainer.history[-1]['validation_accuracy']:.3f}; {len(model.graphs)} part graphs for 12 pairs")


if __name__ == "__main__":
    main()
