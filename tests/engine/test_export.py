"""Exported parts: another process, without this package, loads them and gets the same gradients."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import floats, integers

from seq2split.buckets import Buckets
from seq2split.engine import Part
from seq2split.models import RecurrentDecoder, RecurrentEncoder
from seq2split.split import Node, SplitModel
from seq2split.split.sequences import Sequences

SOURCE, TARGET, LENGTHS = 7, 6, (3, 5)

APART = """
    import collections, sys
    import numpy as np
    import tensorflow as tf

    sys.modules["seq2split"] = sys.modules["keras"] = None  # neither is needed
    Sequences = collections.namedtuple("Sequences", ["values", "lengths"])
    folder = sys.argv[1]
    given = np.load(f"{folder}/given.npz")
    encoder, decoder = (tf.saved_model.load(f"{folder}/{name}") for name in ("encoder", "decoder"))
    found = {}
    for length in (3, 5):
        source = Sequences(tf.constant(given[f"source {length}"]), tf.constant(given["lengths"]))
        target = Sequences(tf.constant(given[f"target {length}"]), tf.constant(given["lengths"]))
        results = encoder.forward(source)
        last = decoder.value_and_gradients(results["outputs"], target, tf.constant(1.0, tf.float64))
        first = encoder.backward(results["residuals"], last["inputs_ct"][0])
        flat = [last["outputs"][0], *encoder.infer(source).outputs]
        flat += [tf.convert_to_tensor(each) for each in first["gradients"] + last["gradients"]]
        found |= {f"{length} {index}": each.numpy() for index, each in enumerate(flat)}
    np.savez(f"{folder}/found.npz", **found)
"""


@pytest.fixture(scope="module")
def model():
    options = {"dropout": 0.3, "seed": 1}
    encoder = Part(RecurrentEncoder(SOURCE, 4, 6, name="encoder", **options))
    decoder = Part(RecurrentDecoder(TARGET, 6, 2, 4, 6, name="decoder", **options))
    buckets = Buckets(LENGTHS)
    model = SplitModel([Node(encoder, ["source"], buckets), Node(decoder, ["encoder", "target"], buckets, loss=True)])
    model.build(progress=False)
    return model


def test_another_process_gets_the_same_gradients(model, tmp_path):
    graphs, rows = model.graphs, 4
    given = {f"source {n}": integers(rows, n, below=SOURCE) for n in LENGTHS}
    given |= {f"target {n}": integers(rows, n, below=TARGET) for n in LENGTHS}
    given["lengths"] = np.array([3, 2, 3, 1], np.int32)
    np.savez(tmp_path / "given.npz", **given)
    for name, wired in model.parts.items():
        wired.part.export(tmp_path / name)
    script = Path(tmp_path, "apart.py")
    script.write_text(textwrap.dedent(APART))
    subprocess.run([sys.executable, script, tmp_path], check=True, cwd=tmp_path, capture_output=True, text=True)
    found = np.load(tmp_path / "found.npz")
    for n in LENGTHS:
        source, target = (Sequences(given[f"{side} {n}"], given["lengths"]) for side in ("source", "target"))
        outputs, residuals = graphs["encoder", n].forward(source)
        (loss, _), (memory_ct, _), last = graphs["decoder", n].value_and_gradients(outputs, target)
        _, first = graphs["encoder", n].backward(residuals, memory_ct)
        flat = [loss, *graphs["encoder", n].infer(source).outputs, *map(tf.convert_to_tensor, first + last)]
        for index, each in enumerate(flat):
            np.testing.assert_array_equal(found[f"{n} {index}"], each, err_msg=f"{n} {index}")


@pytest.mark.parametrize("save", ["needed", "inputs"])
def test_every_kind_of_residual_is_exported(save, tmp_path):
    layers = [keras.layers.Dense(4, activation="gelu"), keras.layers.BatchNormalization(), keras.layers.LSTM(3)]
    part = Part(keras.Sequential([keras.Input([5, 2]), *layers]), save=save)
    graphs = [part.build(tf.TensorSpec([rows, 5, 2], tf.float32)) for rows in (2, 3)]
    part.export(tmp_path / "part")
    loaded = tf.saved_model.load(tmp_path / "part")
    for rows, graph in zip((2, 3), graphs, strict=True):
        x = floats("float32", rows, 5, 2)
        outputs, residuals = graph.forward(x)
        (expected_ct,), expected = graph.backward(residuals, tf.ones_like(outputs))
        results = loaded.forward(tf.constant(x))
        found = loaded.backward(results["residuals"], tf.ones_like(outputs))
        np.testing.assert_allclose(results["outputs"], outputs, rtol=1e-6)
        np.testing.assert_allclose(found["inputs_ct"][0], expected_ct, rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(found["gradients"], expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert len(loaded.trained) == len(graphs[0].variables)


def test_a_part_without_graphs_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match=r"part 'dense.*' has no part graphs to export; build one"):
        Part(keras.layers.Dense(2)).export(tmp_path / "part")
