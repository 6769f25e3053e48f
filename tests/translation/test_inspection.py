"""What is told of a model: its parts, its part graphs, and what each carries."""

from __future__ import annotations

import keras
import tensorflow as tf

import seq2split as s2s
from seq2split.translation.inspection import inspect_model


class Encoder(keras.Layer):
    """Frames to features, by a layer that is built when it is first called."""

    def __init__(self):
        super().__init__(name="encoder")
        self.project = keras.layers.Dense(4)

    def call(self, frames):
        return s2s.Sequences(tf.tanh(self.project(frames.values)), frames.lengths)


def test_parts_and_part_graphs_are_told():
    encoder = s2s.Node(Encoder(), "frames", s2s.Buckets([4, 8]))
    decoder = s2s.Node(
        lambda encoded, target: tf.reduce_sum(encoded.values),
        [encoder, "target"],
        s2s.Buckets([3]),
        loss=True,
        name="d",
    )
    model = s2s.SplitModel([encoder, decoder], fields={"frames": tf.TensorSpec([2], tf.float32)})
    told = inspect_model(model, tokens=64, progress=False)
    rows = [line.split() for line in told.splitlines()]
    assert ["encoder", "frames", "2", str(2 * 4 + 4), "4,", "8"] in rows
    assert ["d", "encoder,", "target", "0", "0", "3"] in rows
    assert [row[:3] for row in rows if len(row) == 7 and row[0] in ("encoder", "d")] == [
        ["encoder", "4", "8"],
        ["encoder", "8", "4"],
        ["d", "3", "10"],
    ]
    assert [row[3:] for row in rows if row[:2] == ["d", "3"]] == [["-", "-", "-", "-"]]
    assert "3 part graphs" in told
