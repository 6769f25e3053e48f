"""A model of one's own, trained in Python on data in numpy: stopped half-way, resumed, and compared.

The task is to say digits in reverse. Run `python examples/own_model.py`; with `--steps 600` it learns it nearly all.
"""

from __future__ import annotations

import argparse
import tempfile

import keras
import numpy as np
from own_layers import ConvolutionalEncoder, GRUDecoder

import seq2split as s2s

PIECES, UNITS, BOS, EOS = 13, 64, 1, 2  # 0 is padding, 3 to 12 are the digits


def make_rows(count: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Return rows of 1 to 12 digits, and their reverse with an end."""
    random = np.random.default_rng(seed)
    source = [random.integers(3, PIECES, random.integers(1, 13)) for _ in range(count)]
    return {"source": source, "target": [np.append(row[::-1], EOS) for row in source]}


def make_model() -> s2s.SplitModel:
    """Make the model with new variables, the same each time."""
    keras.utils.set_random_seed(1)
    encoder = s2s.Node(ConvolutionalEncoder(PIECES, UNITS), "source", s2s.Buckets([4, 8, 12]), name="encoder")
    layer = GRUDecoder(PIECES, BOS, UNITS)
    decoder = s2s.Node(layer, [encoder, "target"], s2s.Buckets([5, 9, 13]), loss=True, name="decoder")
    return s2s.SplitModel([encoder, decoder])


def train(run: str, steps: int) -> dict[str, float]:
    """Train to a step, from wherever the run directory stands; returns the figures of the last validation."""
    model = make_model()
    batches = s2s.Batches(make_rows(4000, seed=1), model, tokens=1500, seed=1)
    valid = s2s.Batches(make_rows(300, seed=2), model, tokens=1500)
    trainer = s2s.Trainer(model, keras.optimizers.Adam(2e-3), run=run, clip_norm=1.0)
    trainer.fit(batches, steps=steps, validation=valid, validate_every=100, checkpoint_every=50)
    validations = [entry for entry in trainer.history if "validation_loss" in entry]
    return {name: validations[-1][f"validation_{name}"] for name in ("loss", "accuracy")}


def main() -> None:
    """Train twice, once with a stop half-way, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as stopped:
        once = train(whole, steps)
        train(stopped, steps // 2)
        resumed = train(stopped, steps)
    print(f"accuracy {once['accuracy']:.3f}, loss {once['loss']:.4f}")
    print(f"resumed: difference of the losses {abs(resumed['loss'] - once['loss'])}")


if __name__ == "__main__":
    main()
