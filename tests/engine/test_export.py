"""Exported parts: another process, without this package, loads them and gets the same gradients."""

from __future__ import annotations

import functools
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


# Lookup tables


def table(path=None):
    """Return a table of two words, from a file if one is given."""
    if path is None:
        made = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
    else:
        path.write_text("z\na\nb\n")
        whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        made = tf.lookup.TextFileInitializer(str(path), tf.string, whole, tf.int64, line)
    return tf.lookup.StaticHashTable(made, 0)


class Looking(tf.Module):
    def __init__(self, table):
        super().__init__()
        self.table, self.scale = table, tf.Variable(2.0)

    def __call__(self, words):
        return self.scale * tf.cast(self.table.lookup(words), tf.float32)


class Hiding:
    """Holds a table where nothing looks for one."""

    def __init__(self):
        self.tables = {"words": table()}

    def __call__(self, words):
        return self.tables["words"].lookup(words)


def closing(path):
    inner = table()
    return lambda words: inner.lookup(words)


def partial(path):
    return functools.partial(lambda held, words: held.lookup(words), table())


# What makes a callable that looks words up, and the ids of "a" and "b".
LOOKING = {
    "module": (lambda path: Looking(table()), [2.0, 4.0]),
    "method": (lambda path: Looking(table()).__call__, [2.0, 4.0]),
    "file": (lambda path: Looking(table(path)), [2.0, 4.0]),
    "StringLookup": (lambda path: keras.layers.StringLookup(vocabulary=["a", "b"]), [1, 2]),
    "TextVectorization": (lambda path: keras.layers.TextVectorization(vocabulary=["a", "b"]), [[2], [3]]),
    "closure": (closing, [1, 2]),
    "partial": (partial, [1, 2]),
    "tf.function": (lambda path: tf.function(closing(path)), [1, 2]),
}


@pytest.mark.parametrize("name", LOOKING)
def test_lookup_tables_are_exported(name, tmp_path):
    """With the files that they are made from."""
    make, expected = LOOKING[name]
    words = tmp_path / "words"
    part = Part(make(words), variables=[] if name in ("closure", "partial", "tf.function") else None)
    graph = part.build(tf.TensorSpec([2], tf.string), trace=["infer"])
    assert graph.infer(tf.constant(["a", "b"])).numpy().tolist() == expected
    part.export(tmp_path / "exported")
    words.unlink(missing_ok=True)
    loaded = tf.saved_model.load(tmp_path / "exported")
    assert loaded.infer(tf.constant(["a", "b"])).numpy().tolist() == expected


def test_a_table_that_nobody_holds(tmp_path):
    part = Part(Hiding(), name="words")
    graph = part.build(tf.TensorSpec([2], tf.string), trace=["infer"])
    assert graph.infer(tf.constant(["a", "b"])).numpy().tolist() == [1, 2]
    with pytest.raises(ValueError, match="part 'words' reads a resource that isn't known to be held by it") as caught:
        part.export(tmp_path)
    assert "Make it an attribute of the layer or tf.Module" in str(caught.value)
