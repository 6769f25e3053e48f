"""Two source languages: the decoder reads both, and training, evaluating and translating take both."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from corpora import configure, write_experiment

import seq2split as s2s
from seq2split.buckets import pad_rows
from seq2split.cli import main
from seq2split.config import ConfigError, load
from seq2split.corpus.parallel_text import read_lines
from seq2split.models import RecurrentDecoder, RecurrentEncoder
from seq2split.split.sequences import Sequences
from seq2split.translation.experiment import Experiment
from seq2split.translation.translator import Translator

BOS, PIECES = 2, 9
SIDES = ("source", "source2", "target")
LENGTHS = {"source": (4, 1, 3, 2), "source2": (1, 5, 2, 3), "target": (3, 2, 4, 1)}
BUCKETS = {"source": (2, 4), "source2": (2, 3, 5), "target": (2, 4)}


def make_layers(attention):
    keras.utils.set_random_seed(4)
    encoders = [
        RecurrentEncoder(PIECES, 3, units, dtype="float64", name=name) for name, units in (("one", 4), ("two", 6))
    ]
    decoder = RecurrentDecoder(PIECES, [4, 6], BOS, 5, 5, attention=attention, dtype="float64", name="decoder")
    return encoders, decoder


def make_batch():
    rng = np.random.default_rng(5)
    rows = {side: [rng.integers(0, PIECES, length) for length in lengths] for side, lengths in LENGTHS.items()}
    return {side: Sequences(pad_rows(each, max(LENGTHS[side])), np.array(LENGTHS[side])) for side, each in rows.items()}


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_two_encoders_equal_the_joint_model(attention):
    (one, two), decoder = make_layers(attention)
    buckets = {side: s2s.Buckets(boundaries) for side, boundaries in BUCKETS.items()}
    nodes = [
        s2s.Node(s2s.Part(one), ["source"], buckets["source"]),
        s2s.Node(s2s.Part(two), ["source2"], buckets["source2"]),
        s2s.Node(s2s.Part(decoder), ["one", "two", "target"], buckets["target"], loss=True),
    ]
    batch, model = make_batch(), s2s.SplitModel(nodes)
    loss, metrics, _, gradients = vars(model.loss_and_gradients(batch)).values()
    layers = {"one": one, "two": two, "decoder": decoder}
    with tf.GradientTape() as tape:
        losses = decoder(one(batch["source"]), two(batch["source2"]), batch["target"])
        mean = losses[0] / sum(LENGTHS["target"])
    expected = tape.gradient(mean, [[each.value for each in layer.trainable_variables] for layer in layers.values()])
    np.testing.assert_allclose([loss, metrics["nll"]], [mean, losses[1] / sum(LENGTHS["target"])], rtol=1e-12)
    for found, reference in zip(tf.nest.flatten(list(gradients.values())), tf.nest.flatten(expected), strict=True):
        reference = tf.convert_to_tensor(reference)
        assert np.abs(reference).max() > 1e-9
        np.testing.assert_allclose(tf.convert_to_tensor(found), reference, atol=1e-12)
    assert len(model.graphs) == 2 + 3 + 2  # E1 + E2 + D


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_steps_equal_teacher_forcing(attention):
    (one, two), decoder = make_layers(attention)
    batch = make_batch()
    encoded = one(batch["source"]), two(batch["source2"])
    memories, state = decoder.start(*encoded)
    last, total = np.full([4], BOS), 0.0
    for time in range(4):
        logits, state = decoder.step(memories, state, tf.constant(last))
        last = batch["target"].values[:, time]
        likelihoods = tf.gather(tf.nn.log_softmax(logits), last, batch_dims=1).numpy()
        total -= likelihoods[time < batch["target"].lengths].sum()
    np.testing.assert_allclose(total, decoder(*encoded, batch["target"])[1], rtol=1e-12)


# From the command line


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A configuration whose second source is the first in reverse: what the target is."""
    path = write_experiment(tmp_path_factory.mktemp("experiment"))
    for split in ("train", "valid"):
        lines = read_lines(path.parent / f"{split}.source")
        turned = "".join(" ".join(reversed(line.split())) + "\n" for line in lines)
        (path.parent / f"{split}.source2").write_text(turned)
    text = path.read_text()
    for split in ("train", "valid"):
        text = text.replace(f"{split}_target =", f'{split}_source2 = "{split}.source2"\n{split}_target =')
    path.write_text(text.replace("[batches]", "source2 = [4, 5]\n[batches]"))
    return path


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    """A run of two steps, and what it printed is not looked at."""
    run = tmp_path_factory.mktemp("run") / "run"
    assert main(["train", str(experiment), "--run", str(run), "--set", "training.steps=2"]) == 0
    return run


def test_run_directory(run):
    config = load(run / "config.toml")
    assert config.sides == SIDES
    assert {side: len(each) for side, each in json.loads((run / "buckets.json").read_text()).items()} == {
        "source": 2,
        "source2": 2,
        "target": 2,
    }
    translator = Translator.load(run)
    assert list(translator.model.parts) == ["encoder", "encoder2", "decoder"]


def test_both_encoders_are_in_the_checkpoint(run):
    stored = [name for name, _ in tf.train.list_variables(tf.train.latest_checkpoint(run / "checkpoints"))]
    for part, variables in Translator.load(run).parts.items():
        assert sum(name.startswith(f"{part}/") for name in stored) == len(variables)


def test_evaluate_and_translate(run, experiment, tmp_path, capsys):
    folder, output = experiment.parent, tmp_path / "out"
    files = ["--source", folder / "valid.source", "--source2", folder / "valid.source2"]
    arguments = ["evaluate", run, *files, "--reference", folder / "valid.target", "--output", output]
    assert main([*map(str, arguments)]) == 0
    assert capsys.readouterr().out.startswith("BLEU = ")
    arguments = ["translate", run, "--input", folder / "valid.source", "--source2", folder / "valid.source2"]
    assert main([*map(str, arguments)]) == 0
    assert capsys.readouterr().out == output.read_text()


def test_the_second_source_is_read(run, experiment):
    """With other sentences of the second language the losses differ."""
    translator = Translator.load(run)
    batch = {
        side: translator.vocabularies[side].encode(["a b c", "d"] if side != "source2" else ["c b a", "d"])
        for side in SIDES
    }
    other = batch | {"source2": translator.vocabularies["source2"].encode(["g g", "h"])}
    losses = [float(translator.model.losses(each).loss) for each in (batch, other)]
    assert losses[0] != losses[1]


def test_a_pair_goes_with_its_overlong_sentence(run):
    """Skipped or truncated on whichever side it is too long, and counted once."""
    translator = Translator.load(run)
    long = "a b c d e f g h"
    lines, lines2 = ["a", long, "b", "c"], ["a", long, "b", long]
    with pytest.raises(s2s.OverlongError, match=r"1 of 4 source sentences .* has 9: number 2 of source\. To tr"):
        translator.translate(lines, lines2)
    found, admission = translator.translate(lines, lines2, overlong="skip")
    assert (admission.skipped, found[1], found[3]) == (2, "", "")
    assert translator.translate(lines, lines2, overlong="truncate")[1].truncated == 2


# Mistakes


def fails(capsys, *arguments):
    assert main([*map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_source2_missing_or_too_short(run, experiment, tmp_path, capsys):
    valid = experiment.parent / "valid.source"
    assert "translates from 2 source languages: give the sentences" in fails(capsys, "translate", run, "--input", valid)
    (tmp_path / "short").write_text("a\n")
    message = fails(capsys, "translate", run, "--input", valid, "--source2", tmp_path / "short")
    assert "source and source2, as many sentences of each; it was given 2 lists, of 6 and 1 sentences" in message
    reference = experiment.parent / "valid.target"
    message = fails(
        capsys, "evaluate", run, "--source", valid, "--source2", tmp_path / "short", "--reference", reference
    )
    assert "short has 1" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data__valid_source2": "[]"}, "a second source in both corpora or in neither"),
        ({"data__train_source2": '["/a", "/b"]'}, "no second source, or as many of its files as target files"),
        ({"vocabulary__source2_model": "/m.model"}, "no source2_model: when joint"),
    ],
)
def test_wrong_configuration(experiment, settings, message):
    with pytest.raises(ConfigError, match=message):
        configure(experiment, **settings)


def test_lines_of_all_sides_are_counted(experiment, tmp_path):
    (tmp_path / "short").write_text("a\n")
    with pytest.raises(ValueError, match=r"train\.source has 60 lines and .*short has 1"):
        Experiment(configure(experiment, data__train_source2=tmp_path / "short"), tmp_path / "run")
