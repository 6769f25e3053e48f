"""What each save policy costs and saves: the bytes that a part keeps for its backward, and the time of both passes.

Two encoders, each in one bucket: an LSTM of ours, and a Transformer of Keras layers with dropout. Steps are
interleaved; shown are medians and quartiles, and of ratios taken within a round.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

sys.path.append(str(Path(__file__).parent))
from efficiency.timing import seconds

from seq2split.common.tables import table
from seq2split.engine import Part, PartGraph, policies
from seq2split.models import RecurrentEncoder
from seq2split.split.sequences import Sequences

VOCABULARY, UNITS, HEADS, LAYERS = 8000, 256, 4, 2
SHARES = (0.75, 0.5, 0.25)  # of what `needed` keeps, as budgets


class Transformer(keras.Layer):
    """A pre-norm Transformer encoder of stock Keras layers."""

    def __init__(self, dropout: float = 0.1, **options):
        super().__init__(**options)
        layers = keras.layers
        self.embed = layers.Embedding(VOCABULARY, UNITS)
        self.blocks = [
            (
                layers.LayerNormalization(),
                layers.MultiHeadAttention(HEADS, UNITS // HEADS, dropout=dropout, seed=1),
                layers.LayerNormalization(),
                keras.Sequential([layers.Dense(4 * UNITS, activation="gelu"), layers.Dense(UNITS)]),
                layers.Dropout(dropout, seed=2),
            )
            for _ in range(LAYERS)
        ]

    def call(self, source: Sequences, training: bool = False) -> tf.Tensor:
        """The outputs `[rows, time, UNITS]` of pieces `[rows, time]`."""
        mask = tf.sequence_mask(source.lengths, source.values.shape[1])[:, None]
        values = self.embed(source.values)
        for before, attend, between, feed, drop in self.blocks:
            normal = before(values)
            values += drop(attend(normal, normal, attention_mask=mask, training=training), training=training)
            values += drop(feed(between(values)), training=training)
        return values


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=64)
    arguments.add_argument("--time", type=int, default=24)
    arguments.add_argument("--rounds", type=int, default=30)
    options = arguments.parse_args()
    for title, make in {
        "LSTM": functools.partial(RecurrentEncoder, VOCABULARY, UNITS, UNITS),
        "Transformer": Transformer,
    }.items():
        print(f"\n{title}, {options.rows} x {options.time}, float32")
        rows = measure(make(), options.rows, options.time, options.rounds)
        print(table(("policy", "bytes", "of needed", "ms", "quartiles", "over needed"), rows, flush_right=True))


def measure(layer: keras.Layer, rows: int, time: int, rounds: int) -> list[list[str]]:
    """A row of the table for each policy."""
    pieces = np.random.default_rng(1).integers(3, VOCABULARY, [rows, time]).astype(np.int32)
    source = Sequences(tf.constant(pieces), tf.fill([rows], time))
    layer(source)
    specs = tf.nest.map_structure(lambda each: tf.TensorSpec(each.shape, each.dtype), source)
    needed = Part(layer).build(specs)
    budgets = {f"budget, {share:.0%}": policies.budget(int(share * needed.residual_bytes)) for share in SHARES}
    named = {name: policy for name, policy in policies.NAMED.items() if name != "needed"}
    graphs = {"needed": needed}
    for name, policy in (named | budgets).items():
        try:
            graphs[name] = Part(layer, save=policy).build(specs)
        except ValueError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    found = seconds({name: functools.partial(_both_passes, graph, source) for name, graph in graphs.items()}, rounds)
    return [_row(name, graph, graphs["needed"], found) for name, graph in graphs.items()]


def _both_passes(graph: PartGraph, source: Sequences) -> None:
    outputs, residuals = graph.forward(source)
    ones = tf.nest.map_structure(lambda each: tf.ones_like(each) if each.dtype.is_floating else None, outputs)
    graph.backward(residuals, ones)


def _row(name: str, graph: PartGraph, needed: PartGraph, found: dict[str, np.ndarray]) -> list[str]:
    low, middle, high = np.quantile(found[name], [0.25, 0.5, 0.75]) * 1e3
    share, slower = graph.residual_bytes / needed.residual_bytes, np.median(found[name] / found["needed"])
    quartiles = f"{low:.1f} to {high:.1f}"
    return [name, f"{graph.residual_bytes:,}", f"{share:.2f}", f"{middle:.1f}", quartiles, f"{slower:.2f}"]


if __name__ == "__main__":
    main()
