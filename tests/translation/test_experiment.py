"""Training: the loss falls, and a run that stops at any moment goes on as if it had not."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import time
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from corpora import command, configure, environment, seq2split, write_experiment

from seq2split.config import ConfigError
from seq2split.corpus.batches import stream
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.runs.checkpoints import Progress, variables_of
from seq2split.runs.history import read_history
from seq2split.runs.sessions import read_sessions
from seq2split.training.trainer import Trainer
from seq2split.translation.translator import Translator
from seq2split.translation.validation import Result


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The path of a tiny configuration."""
    return write_experiment(tmp_path_factory.mktemp("experiment"))


def train(experiment, run, **overrides):
    trainer = Trainer(configure(experiment, **overrides), run)
    trainer.train()
    return trainer


def state(trainer):
    """Everything that decides how a training goes on, by name."""
    layers = trainer.translator.layers.items()
    found = {f"{part} {key}": value for part, layer in layers for key, value in variables_of(layer).items()}
    found |= {f"moving {place}": value for place, value in enumerate(trainer._moving.values)}
    for name, optimizer in trainer._updater.optimizers.items():
        found |= {f"optimizer {name} {place} {one.name}": one for place, one in enumerate(optimizer.variables)}
    for name in ("step", "epoch", "index", "tokens", "best", "best_step", "stale"):
        found[f"progress {name}"] = getattr(trainer.progress, name)
    return {name: variable.numpy() for name, variable in found.items()}


def assert_same_state(found, expected):
    assert found.keys() == expected.keys()
    different = [name for name in expected if not np.array_equal(found[name], expected[name])]
    assert not different


def scalars(run):
    """The scalars of the event files: `{name: {step: value}}`."""
    found = {}
    paths = sorted(map(str, (run / "events").glob("events.*")))
    for record in tf.data.TFRecordDataset(paths).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "scalars" or value.tag in found:
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


def losses(run):
    """What a run measured that must be the same when it runs again."""
    names = ("step", "tokens", "loss", "nll", "validation_loss", "validation_bleu")
    return [{name: entry[name] for name in names if name in entry} for entry in read_history(run / "history.jsonl")]


def texts(run):
    paths = sorted(map(str, (run / "events").glob("events.*")))
    events = [tf.compat.v1.Event.FromString(record) for record in tf.data.TFRecordDataset(paths).as_numpy_iterator()]
    found = [value for event in events for value in event.summary.value]
    return [tf.make_ndarray(value.tensor).item().decode() for value in found if value.tag == "samples"]


def without_model(trainer, monkeypatch):
    """Lets a trainer step without part graphs, whose tracing takes seconds: gradients follow from the step."""
    nodes = trainer.translator.model.nodes

    def loss_and_gradients(_fields, _frozen):
        draw = np.random.default_rng(int(trainer.progress.step))
        gradients = {
            name: [tf.constant(draw.normal(size=one.shape), tf.float32) for one in node.part.trainable_variables]
            for name, node in nodes.items()
        }
        return (tf.constant(1.0), tf.constant(1.0)), gradients

    monkeypatch.setattr(trainer.translator.model, "loss_and_gradients", loss_and_gradients)
    scripted(trainer, monkeypatch, [Result(1.0 / (1 + place), place) for place in range(1000)])
    return trainer


def scripted(trainer, monkeypatch, results):
    """Lets the validations of a trainer find these figures."""
    found = iter(results)
    monkeypatch.setattr(trainer._validation, "run", lambda: next(found))
    return trainer


@pytest.fixture(scope="module")
def short_run(experiment, tmp_path_factory):
    """The directory of a run of two steps, to be copied."""
    run = tmp_path_factory.mktemp("short") / "run"
    train(experiment, run, training__steps=2)
    return run


@pytest.fixture
def copied(short_run, tmp_path):
    """A run of two steps of one's own."""
    shutil.copytree(short_run, tmp_path / "run")
    return tmp_path / "run"


# Learning


def test_loss_falls(experiment, tmp_path, capsys):
    """And is written, with the other figures, for TensorBoard."""
    train(experiment, tmp_path / "run", training__steps=40, training__validate_every=20, training__samples=1)
    found = scalars(tmp_path / "run")
    assert found["loss"][40] < found["loss"][2] - 0.3
    assert found["validation_loss"][40] < found["validation_loss"][20]
    steps = set(range(2, 41, 2))
    for name in ("loss", "perplexity", "tokens_per_second", "padding", "learning_rate"):
        assert set(found[name]) == steps, name
    assert set(found["validation_bleu"]) == set(found["validation_perplexity"]) == {20, 40}
    assert found["perplexity"][2] == pytest.approx(21, rel=0.3), "that of a uniform guess over the pieces"
    assert found["validation_perplexity"][40] == pytest.approx(math.exp(found["validation_loss"][40]), rel=1e-5)
    assert list(found["learning_rate"].values()) == pytest.approx([0.01] * 20)
    assert all(0 <= share < 0.6 for share in found["padding"].values())
    assert len(texts(tmp_path / "run")) == 2
    told = capsys.readouterr().err
    assert "step 20: validation loss" in told
    assert "finished after step 40; best validation bleu" in told
    first = (experiment.parent / "valid.source").read_text().splitlines()[0]
    assert told.count(f"  source       {first}\n") == 2
    assert all(text.startswith(f"  source       {first}  \n") for text in texts(tmp_path / "run"))


def test_history(experiment, tmp_path):
    """It has what is written for TensorBoard, and the same numbers when the run is run again."""
    for name in ("one", "two"):
        train(experiment, tmp_path / name, training__steps=6, training__validate_every=3)
    entries, found = read_history(tmp_path / "one" / "history.jsonl"), scalars(tmp_path / "one")
    assert [entry["step"] for entry in entries] == [2, 3, 4, 6, 6]
    for entry in entries:
        figures = entry.keys() - {"step", "seconds", "tokens"}
        assert {name: found[name][entry["step"]] for name in figures} == pytest.approx(
            {name: entry[name] for name in figures}, rel=1e-6
        )
    assert {name for entry in entries for name in entry} == found.keys() | {"step", "seconds", "tokens"}
    assert [entry["seconds"] for entry in entries] == sorted(entry["seconds"] for entry in entries)
    assert entries[0]["perplexity"] == pytest.approx(math.exp(entries[0]["nll"]))
    assert entries[0]["tokens"] < entries[1]["tokens"] < entries[2]["tokens"]
    assert losses(tmp_path / "one") == losses(tmp_path / "two")


def test_trains_in_mixed_precision(experiment, tmp_path):
    trainer = train(experiment, tmp_path, precision="mixed_bfloat16", training__steps=30)
    found = scalars(tmp_path)
    assert trainer.translator.encoders["source"].compute_dtype == "bfloat16"
    assert trainer.translator.encoders["source"].variable_dtype == "float32"
    assert found["loss"][30] < found["loss"][2] - 0.2
    assert_same_state(state_of_parts(Translator.load(tmp_path)), state_of_parts(trainer.translator))


def state_of_parts(translator):
    layers = translator.layers
    return {f"{part} {place}": one.numpy() for part, layer in layers.items() for place, one in enumerate(layer.weights)}


def test_a_step_of_several_batches(experiment, tmp_path, monkeypatch):
    """It advances by all of them, and counts the positions of each."""
    config = configure(experiment, training__accumulate=3, training__steps=2)
    trainer = without_model(Trainer(config, tmp_path), monkeypatch)
    trainer.train()
    batches = list(islice(stream(trainer._corpus, trainer._plan), 6))
    assert int(trainer.progress.step) == 2
    assert int(trainer.progress.tokens) == sum(batch.tokens for batch in batches)
    epochs, index = divmod(6, batches[0].epoch_batches)
    assert (int(trainer.progress.epoch), int(trainer.progress.index)) == (epochs, index)
    assert scalars(tmp_path)["padding"][2] == pytest.approx(
        1 - int(trainer.progress.tokens) / sum(batch.positions(trainer.translator.buckets) for batch in batches)
    )


def test_several_batches_are_one_update(experiment, tmp_path, monkeypatch):
    """Of plain gradient descent: as if they were one batch."""
    overrides = {
        "model__dropout": 0,
        "optimizer__name": "sgd",
        "optimizer__learning_rate": 0.5,
        "training__clip_norm": 0,
    }
    config = configure(experiment, training__accumulate=3, training__steps=1, batches__tokens=45, **overrides)
    trainer = scripted(Trainer(config, tmp_path), monkeypatch, [Result(1.0, 1.0)])
    batches = list(islice(stream(trainer._corpus, trainer._plan), 3))
    rows = {
        side: [
            row[:length] for batch in batches for row, length in zip(*map(np.asarray, batch.fields[side]), strict=True)
        ]
        for side in ("source", "target")
    }
    model = trainer.translator.model
    _, gradients = model.loss_and_gradients(rows)
    expected = {
        name: [
            one.numpy() - 0.5 * tf.convert_to_tensor(each).numpy()
            for one, each in zip(node.part.trainable_variables, gradients[name], strict=True)
        ]
        for name, node in model.nodes.items()
    }
    trainer.train()
    for name, node in model.nodes.items():
        for one, value in zip(node.part.trainable_variables, expected[name], strict=True):
            np.testing.assert_allclose(one, value, rtol=1e-4, atol=1e-6)


def test_build_ahead(experiment, tmp_path):
    trainer = train(experiment, tmp_path, training__build_ahead=True, training__steps=1)
    buckets = trainer.translator.buckets
    sides = (("encoder", "source"), ("decoder", "target"))
    expected = {(part, length) for part, side in sides for length in buckets[side].boundaries}
    assert set(trainer.translator.model.graphs) == expected


# Resuming


def train_only(experiment, run, monkeypatch, **overrides):
    """A training without validations, whose part graphs would have to be traced too."""
    trainer = scripted(Trainer(configure(experiment, **overrides), run), monkeypatch, [Result(1.0, 1.0)])
    trainer.train()
    return trainer


WAYS = {
    "homogeneous": {"batches__mode": "homogeneous"},
    "mixed": {"batches__mode": "mixed"},
    "accumulated": {"training__accumulate": 2, "batches__tokens": 45},
    "with a moving average": {"training__ema": 0.9},
}


@pytest.fixture(scope="module", params=WAYS)
def straight(experiment, tmp_path_factory, request):
    """Overrides of the configuration, and the state after eight steps without a pause."""
    overrides = WAYS[request.param]
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainer = train_only(experiment, tmp_path_factory.mktemp("straight"), monkeypatch, **overrides)
    assert int(trainer.progress.epoch) > 0, "the data should end within the eight steps"
    return overrides, state(trainer)


def test_resumes_exactly(experiment, straight, tmp_path, monkeypatch, capsys):
    """Eight steps are bit for bit seven, of which a power cut costs three, and four in a new run of the program."""
    overrides, expected = straight
    trainer = Trainer(configure(experiment, **overrides), tmp_path)
    trainer._updater = until(7, trainer._updater)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    random.random()  # nor does the random state of the process matter
    capsys.readouterr()
    again = train_only(experiment, tmp_path, monkeypatch, **overrides)
    told = capsys.readouterr().err
    assert re.search(r"resuming from .*ckpt-4: 4 steps are done, next is batch \d+ of epoch \d+", told)
    assert_same_state(state(again), expected)
    assert [session["step"] for session in read_sessions(tmp_path / "run.json")] == [0, 4]
    assert [entry["step"] for entry in read_history(tmp_path / "history.jsonl")] == [2, 4, 6, 8, 8]
    for kind in ("encoder", "decoder", "optimizer", "progress"):
        assert any(kind in name for name in expected)
    assert scalars(tmp_path)["loss"].keys() == {2, 4, 6, 8}


class until:  # noqa: N801 it reads as a verb
    """An updater that fails after some steps."""

    def __init__(self, steps, updater):
        self.steps, self.updater = steps, updater

    def __call__(self, gradients, step):
        norm = self.updater(gradients, step)
        self.steps -= 1
        if not self.steps:
            raise RuntimeError("power cut")
        return norm

    def __getattr__(self, name):
        return getattr(self.updater, name)


def test_resumes_own_optimizers(experiment, tmp_path, monkeypatch):
    overrides = {"optimizer__encoder__name": "rmsprop", "optimizer__decoder__name": "adagrad"}
    states = []
    for run, lengths in (("whole", [8]), ("halves", [4, 8])):
        for steps in lengths:
            config = configure(experiment, **overrides, training__steps=steps)
            trainer = without_model(Trainer(config, tmp_path / run), monkeypatch)
            trainer.train()
        states.append({name: value for name, value in state(trainer).items() if "optimizer" in name})
    assert {name.split()[1] for name in states[0]} == {"encoder", "decoder"}
    assert_same_state(states[1], states[0])


def test_checkpoint_holds_every_variable(experiment, tmp_path):
    """Also those of layers that a layer keeps in lists: none is restored by way of the optimizer alone."""
    trainer = train(experiment, tmp_path, training__steps=2)
    for folder in ("checkpoints", "best"):
        stored = tf.train.list_variables(tf.train.latest_checkpoint(tmp_path / folder))
        for part, layer in trainer.translator.layers.items():
            assert sum(name.startswith(f"{part}/") for name, _ in stored) == len(layer.variables)
    assert_same_state(state_of_parts(Translator.load(tmp_path)), state_of_parts(trainer.translator))


def test_training_goes_on_when_steps_are_raised(experiment, copied, capsys):
    trainer = train(
        experiment, copied, training__steps=5, training__log_every=1, optimizer__learning_rate=0.02, search__beam=2
    )
    told = capsys.readouterr().err
    assert "changed in this run: optimizer.learning_rate, training.steps, training.log_every, search.beam" in told
    assert int(trainer.progress.step) == 5
    assert scalars(copied)["learning_rate"][5] == pytest.approx(0.02)


def test_a_finished_run_says_so(experiment, copied, capsys):
    before = contents(copied / "checkpoints") | contents(copied / "best")
    assert int(train(experiment, copied, training__steps=2).progress.step) == 2
    assert contents(copied / "checkpoints") | contents(copied / "best") == before
    assert "finished after step 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ({"model__units": 16}, ["model.units"]),
        ({"batches__tokens": 500, "seed": 4, "training__steps": 9}, ["seed", "batches.tokens"]),
        ({"training__criterion": "loss"}, ["training.criterion"]),
        ({"optimizer__name": "sgd"}, ["optimizer.name"]),
        ({"training__ema": 0.9}, ["training.ema"]),
    ],
    ids=str,
)
def test_refuses_other_settings(experiment, copied, overrides, keys):
    run = copied
    before = contents(run)
    with pytest.raises(ConfigError) as caught:
        Trainer(configure(experiment, **({"training__steps": 2} | overrides)), run)
    message = str(caught.value)
    assert f"{run} holds a run with other settings of {', '.join(keys)}," in message
    assert "--run" in message
    assert contents(run) == before


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_freezing_and_unfreezing_in_a_run(experiment, tmp_path, capsys):
    """By steps of the configuration, and by changing it between two commands; what is frozen stays bit for bit."""

    def after(trainer):
        return {name: [each.numpy() for each in layer.variables] for name, layer in trainer.translator.layers.items()}

    def same(left, right):
        return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))

    group = {'optimizer__groups__"encoder/.*"__frozen': True}
    first = configure(experiment, **group, training__steps=2)
    start = after(Trainer(first, tmp_path / "other"))
    frozen = train(experiment, tmp_path / "run", **group, training__steps=2)
    before = after(frozen)
    assert same(start["encoder"], before["encoder"])
    assert not same(start["decoder"], before["decoder"])
    assert all(graph.live_residuals == 0 for graph in frozen.translator.model.graphs.values())

    unfrozen = {'optimizer__groups__"encoder/.*"__frozen': False, "optimizer__last_step": 2}
    thawed = train(experiment, tmp_path / "run", **unfrozen, training__steps=4)
    told = capsys.readouterr().err
    assert 'changed in this run: optimizer.last_step, optimizer.groups."encoder/.*".frozen' in told
    assert same(before["decoder"], after(thawed)["decoder"]), "the last step of the others was the second"
    assert same(before["encoder"], after(thawed)["encoder"]), "inherited from [optimizer]"

    unfrozen['optimizer__groups__"encoder/.*"__last_step'] = 6
    thawed = train(experiment, tmp_path / "run", **unfrozen, training__steps=6)
    assert same(before["decoder"], after(thawed)["decoder"])
    assert not same(before["encoder"], after(thawed)["encoder"])


def test_a_group_that_matches_nothing(experiment, tmp_path):
    with pytest.raises(ValueError, match=r"optimizer\.groups has 'encodr/\.\*'.*The paths are encoder/embeddings"):
        Trainer(configure(experiment, **{'optimizer__groups__"encodr/.*"__frozen': True}), tmp_path)


def test_own_optimizers_may_change_their_rate(experiment, tmp_path, monkeypatch, capsys):
    own = {"optimizer__encoder__name": "sgd"}
    without_model(Trainer(configure(experiment, **own, training__steps=1), tmp_path), monkeypatch).train()
    # Both keys: the encoder's optimizer has its rate from [optimizer].
    Trainer(configure(experiment, **own, optimizer__learning_rate=0.5, training__steps=2), tmp_path)
    told = capsys.readouterr().err
    assert "changed in this run: optimizer.learning_rate, optimizer.encoder.learning_rate, training.steps" in told


def test_mistakes_can_be_mended_before_the_first_checkpoint(experiment, tmp_path):
    """The settings of a run that never began are no reason to refuse; nothing that they made is kept."""
    run = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match=r"missing\.source"):
        Trainer(configure(experiment, data__valid_source=tmp_path / "missing.source"), run)
    with pytest.raises(ValueError, match=r"vocabulary\.size"):
        Trainer(configure(experiment, vocabulary__size=5), run)
    Trainer(configure(experiment, vocabulary__size=20, buckets__source=1, buckets__target=1), run)
    trainer = Trainer(configure(experiment), run)
    assert trainer.translator.vocabularies["source"].size == 21
    assert len(trainer.translator.buckets["source"]) == 2


# Choosing the best


BLEU = [Result(loss, bleu) for loss, bleu in ((3.0, 1.0), (2.0, 5.0), (1.0, 4.0), (1.5, 5.0), (1.2, 3.0), (1.1, 2.0))]


@pytest.mark.parametrize(("criterion", "best"), [("bleu", 2), ("loss", 3)])
def test_early_stopping_and_the_best(experiment, tmp_path, monkeypatch, capsys, criterion, best):
    """Two validations without improvement end the training; an equal figure is none. What is kept is the best."""
    options = {"criterion": criterion, "patience": 2, "validate_every": 1, "steps": 20}
    config = configure(experiment, **{f"training__{key}": value for key, value in options.items()})
    trainer = scripted(without_model(Trainer(config, tmp_path), monkeypatch), monkeypatch, BLEU)
    weights = {}
    judge = trainer.progress.judge

    def note(figure):
        weights[int(trainer.progress.step)] = state_of_parts(trainer.translator)
        return judge(figure)

    monkeypatch.setattr(trainer.progress, "judge", note)
    trainer.train()
    assert sorted(weights) == list(range(1, best + 3))
    assert_same_state(state_of_parts(Translator.load(tmp_path)), weights[best])
    told = capsys.readouterr().err
    figure = {"bleu": "bleu 5.00", "loss": "loss 1.00"}[criterion]
    ending = f"2 validations without improvement; best validation {figure} at step {best}"
    assert f"finished after step {best + 2}: {ending}" in told
    assert told.count("the best so far") == best
    assert [path.name for path in (tmp_path / "best").glob("*.index")] == [f"ckpt-{best}.index"]
    # Started again it stays finished, and knows its best.
    again = Trainer(config, tmp_path)
    again.train()
    assert (int(again.progress.step), int(again.progress.best_step)) == (best + 2, best)


def average_run(experiment, path, monkeypatch, results, **overrides):
    """A run whose validations find these figures, the last that of the average; what the parts were at each."""
    options = {"validate_every": 2, "steps": 8, "average": 2, "patience": 0} | overrides
    config = configure(experiment, **{f"training__{key}": value for key, value in options.items()})
    trainer = without_model(Trainer(config, path), monkeypatch)
    found, seen = iter([Result(1.0, bleu) for bleu in results]), []

    def run():
        seen.append(state_of_parts(trainer.translator))
        return next(found)

    monkeypatch.setattr(trainer._validation, "run", run)
    trainer.train()
    return trainer, seen


def mean(*states):
    return {name: np.mean([state[name] for state in states], axis=0, dtype=np.float32) for name in states[0]}


@pytest.mark.parametrize(("which", "places"), [("best", (0, 2)), ("last", (2, 3))])
def test_a_better_average_is_the_model(experiment, tmp_path, monkeypatch, capsys, which, places):
    results = [5.0, 1.0, 4.0, 3.0, 6.0]
    trainer, seen = average_run(experiment, tmp_path, monkeypatch, results, average_of=f'"{which}"')
    assert len(seen) == 5
    expected = mean(*(seen[place] for place in places))
    for found in (state_of_parts(Translator.load(tmp_path)), seen[4]):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-7)
    assert_same_state(state_of_parts(trainer.translator), seen[3])
    steps = ", ".join(str(2 * place + 2) for place in places)
    assert f"average of the models of steps {steps}: validation loss 1.000" in capsys.readouterr().err


def test_a_worse_average_is_not_the_model(experiment, tmp_path, monkeypatch, capsys):
    """Nor one of a training that has been gone on with, until that ends."""
    _, seen = average_run(experiment, tmp_path, monkeypatch, [1.0, 5.0, 4.0, 3.0, 5.0])
    assert_same_state(state_of_parts(Translator.load(tmp_path)), seen[1])
    assert "no better than the best" in capsys.readouterr().err
    average_run(experiment, tmp_path, monkeypatch, [])  # finished, and the average is known
    history = tmp_path / "history.jsonl"
    *entries, average = history.read_text().splitlines()
    assert json.loads(average)["average_bleu"] == 5.0
    history.write_text("".join(line + "\n" for line in entries))  # killed before it was known
    average_run(experiment, tmp_path, monkeypatch, [5.5])
    assert (tmp_path / "average").exists()
    assert [each["average_bleu"] for each in read_history(history) if "average_bleu" in each] == [5.5]
    shutil.rmtree(tmp_path / "candidates")
    average_run(experiment, tmp_path, monkeypatch, [])
    assert (tmp_path / "average").exists()
    with pytest.raises(StopIteration):
        average_run(experiment, tmp_path, monkeypatch, [], steps=12)
    assert not (tmp_path / "average").exists()


def test_one_model_is_no_average(experiment, tmp_path, monkeypatch, capsys):
    average_run(experiment, tmp_path, monkeypatch, [1.0], steps=2)
    assert "no average: 1 validated models are kept, and it takes two" in capsys.readouterr().err


def test_the_best_is_not_lost_with_the_steps_after_a_checkpoint(experiment, tmp_path, monkeypatch):
    """A checkpoint goes with it, so that a run which is set back still knows the best that it keeps."""
    options = {"validate_every": 3, "checkpoint_every": 100, "patience": 0}
    config = configure(experiment, **{f"training__{key}": value for key, value in options.items()})
    trainer = without_model(Trainer(config, tmp_path), monkeypatch)
    trainer._updater = until(5, trainer._updater)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    again = Trainer(config, tmp_path)
    assert "3 steps are done" in again._checkpoints.restore()
    assert int(again.progress.best_step) == 3


def test_a_run_that_was_never_validated_says_so(experiment, tmp_path, monkeypatch, capsys):
    trainer = without_model(Trainer(configure(experiment, training__checkpoint_every=1), tmp_path), monkeypatch)
    trainer._updater = until(5, trainer._updater)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    without_model(Trainer(configure(experiment, training__steps=3), tmp_path), monkeypatch).train()
    assert "finished after step 4; never validated; " in capsys.readouterr().err


def test_models_of_lost_steps_are_not_averaged(experiment, tmp_path, monkeypatch):
    options = {"average": 9, "validate_every": 2, "patience": 0}
    config = configure(experiment, **{f"training__{key}": value for key, value in options.items()})
    trainer = without_model(Trainer(config, tmp_path), monkeypatch)
    scripted(trainer, monkeypatch, [Result(1.0, 3.0 - place) for place in range(3)])
    trainer._updater = until(7, trainer._updater)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    assert trainer._candidates.steps == [2, 4, 6]
    trainer, _ = average_run(experiment, tmp_path, monkeypatch, [2.0, 1.0], **options, steps=5)
    assert trainer._candidates.steps == [2, 4, 5]


def test_a_moving_average_is_validated_and_kept(experiment, tmp_path, monkeypatch):
    """And the training goes on from the variables as they are."""
    states = {}
    for ema in (0.0, 0.5):
        path = tmp_path / str(ema)
        trainer, seen = average_run(experiment, path, monkeypatch, [1.0, 2.0, 3.0, 4.0], average=0, ema=ema)
        states[ema] = state_of_parts(trainer.translator), seen[-1], state_of_parts(Translator.load(path))
    assert_same_state(states[0.5][0], states[0.0][0])
    assert_same_state(states[0.5][1], states[0.5][2])
    trained = [name for name, value in states[0.5][0].items() if not np.array_equal(value, states[0.5][1][name])]
    assert len(trained) == len(states[0.5][0])
    assert not any(np.array_equal(seen[0][name], seen[-1][name]) for name in trained)


def test_patience_zero_never_stops(experiment, tmp_path, monkeypatch):
    config = configure(experiment, training__patience=0, training__validate_every=1, training__steps=6)
    trainer = without_model(Trainer(config, tmp_path), monkeypatch)
    scripted(trainer, monkeypatch, [Result(1.0 + step, 0.0) for step in range(6)])
    trainer.train()
    assert (int(trainer.progress.step), int(trainer.progress.stale)) == (6, 5)


def test_latest_checkpoints_are_two(experiment, tmp_path, monkeypatch):
    config = configure(experiment, training__checkpoint_every=1, training__steps=4)
    without_model(Trainer(config, tmp_path), monkeypatch).train()
    assert sorted(path.stem for path in (tmp_path / "checkpoints").glob("*.index")) == ["ckpt-3", "ckpt-4"]


def test_a_run_can_be_moved(experiment, copied, tmp_path):
    before = state_of_parts(Translator.load(copied))
    copied.rename(tmp_path / "new")
    trainer = Trainer(configure(experiment, training__steps=2), tmp_path / "new")
    assert "2 steps are done" in trainer._checkpoints.restore()
    for translator in (Translator.load(tmp_path / "new"), trainer.translator):
        assert_same_state(state_of_parts(translator), before)


def test_progress_counts():
    progress = Progress()
    assert [progress.judge(figure) for figure in (-3.0, -3.0, -2.0, math.nan)] == [True, False, True, False]
    assert int(progress.stale) == 1


# Trouble


def test_divergence(experiment, tmp_path, monkeypatch):
    """It is an error that says what to do, and the checkpoints from before are still there."""
    trainer = without_model(Trainer(configure(experiment, training__checkpoint_every=1), tmp_path), monkeypatch)
    update, count = trainer._updater, iter(range(100))

    def poisoned(gradients, step):
        if next(count) == 2:
            gradients["encoder"][0] = tf.convert_to_tensor(gradients["encoder"][0]) * math.nan
        return update(gradients, step)

    poisoned.optimizers, poisoned.learning_rates, poisoned.frozen = update.optimizers, {}, update.frozen
    poisoned.variables = update.variables
    trainer._updater = poisoned
    expected = r"in step 3.*norm is nan.*optimizer\.learning_rate, lower training\.clip_norm, which is \d"
    with pytest.raises(FloatingPointError, match=expected):
        trainer.train()
    again = Trainer(configure(experiment, training__checkpoint_every=1), tmp_path)
    assert "2 steps are done" in again._checkpoints.restore()
    assert all(np.isfinite(value).all() for name, value in state(again).items() if "best" not in name)


def test_divergence_by_learning_rate(experiment, tmp_path):
    overrides = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e38, "training__clip_norm": 0}
    with pytest.raises(FloatingPointError, match=r"(loss|norm) is (nan|inf).*set training\.clip_norm, such as 1,"):
        train(experiment, tmp_path, **overrides)


LONG = {"buckets__source": "[2,4]"}


def overlong_counts(experiment, vocabulary):
    lines = (experiment.parent / "train.source").read_text().splitlines()
    return sum(len(row) > 4 for row in vocabulary.encode(lines))


def test_overlong_is_an_error(experiment, tmp_path):
    with pytest.raises(ValueError, match="4") as caught:
        Trainer(configure(experiment, **LONG), tmp_path)
    notes = " ".join(caught.value.__notes__)
    assert "training corpus, source side" in notes
    assert "data.overlong" in notes


def test_overlong_in_the_validation_corpus(experiment, tmp_path):
    """It is named too, and not found out after hours of training."""
    source = experiment.parent / "valid.source"
    long = tmp_path / "valid.source"
    long.write_text(source.read_text().replace("\n", " a b c d e\n", 1))
    with pytest.raises(ValueError, match=r"longer|exceed|pieces|bucket") as caught:
        Trainer(configure(experiment, data__valid_source=long), tmp_path / "run")
    assert "validation corpus, source side" in " ".join(caught.value.__notes__)


def test_overlong_truncated_or_skipped(experiment, tmp_path, capsys):
    trainer = Trainer(configure(experiment, data__overlong="truncate", **LONG), tmp_path / "cut")
    count = overlong_counts(experiment, trainer.translator.vocabularies["source"])
    assert 0 < count < len(trainer._corpus.sides["source"]) == 60
    assert f"training corpus: truncated {count} source sentences, longer than" in capsys.readouterr().err
    cut = [row for row in trainer._corpus.sides["source"] if len(row) == 4]
    assert len(cut) >= count
    assert all(row[-1] == trainer.translator.vocabularies["source"].eos for row in trainer._corpus.sides["source"])

    trainer = Trainer(configure(experiment, data__overlong="skip", **LONG), tmp_path / "skip")
    assert f"training corpus: skipped {count} of 60 pairs, longer than" in capsys.readouterr().err
    assert [len(rows) for rows in trainer._corpus.sides.values()] == [60 - count] * 2


def test_all_skipped(experiment, tmp_path):
    with pytest.raises(ValueError, match=r"all 60 pairs of the training corpus.*\[buckets\]"):
        Trainer(configure(experiment, data__overlong="skip", buckets__source="[1]"), tmp_path)


def test_given_vocabularies(experiment, tmp_path):
    """Those that the configuration names are copied into the run."""
    lines = (experiment.parent / "train.source").read_text().splitlines()
    given = Vocabulary.train(lines, tmp_path / "given.model", 20, "bpe").path
    config = configure(experiment, vocabulary__joint=False, vocabulary__source_model=given)
    Trainer(config, tmp_path / "run")
    given.unlink()
    trainer = Trainer(config, tmp_path / "run")
    assert [trainer.translator.vocabularies[side].size for side in ("source", "target")] == [20, 21]


# Killed and stopped, as processes


@pytest.fixture
def start(experiment):
    """Starts a training as a process; none outlives the test."""
    started = []

    def begin(run, *settings):
        pairs = [argument for setting in settings for argument in ("--set", setting)]
        arguments = command("train", experiment, "--run", run, *pairs)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        started.append(subprocess.Popen(arguments, env=environment(), **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_for(path, process, seconds=120):
    """Waits until a file is there, for as long as the process runs."""
    until = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.005)


LONG_RUN = {"checkpoint_every": 1, "validate_every": 1000, "steps": 150, "patience": 0}


def test_killed_at_any_moment(experiment, start, tmp_path):
    """In start-up, when the vocabulary is written, and while checkpoints are written all the time."""
    run, settings = tmp_path / "run", [f"training.{key}={value}" for key, value in LONG_RUN.items()]
    moments = [None, run / ".*.tmp", run / "checkpoints" / "checkpoint"]
    random.seed(os.getpid())
    steps = []
    for moment in moments:
        process = start(run, *settings)
        if moment is None:
            time.sleep(random.uniform(0, 3))
        else:
            wait_first(moment, run / "checkpoints" / "checkpoint", process)
            time.sleep(random.uniform(0, 0.5))
        process.kill()
        told = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL
        steps += [int(step) for step in re.findall(r"resuming from .*: (\d+) steps are done", told)]
    final = seq2split("train", experiment, "--run", run, *[a for s in settings for a in ("--set", s)])
    assert final.returncode == 0, final.stderr
    resumed = re.search(r"resuming from (\S+ckpt-(\d+)): (\d+) steps are done, next is batch", final.stderr)
    assert resumed, final.stderr
    assert resumed[2] == resumed[3]
    assert "finished after step 150" in final.stderr
    assert [*steps, int(resumed[3])] == sorted([*steps, int(resumed[3])])
    config = configure(experiment, **{f"training__{key}": value for key, value in LONG_RUN.items()})
    straight = seq2split("train", experiment, "--run", tmp_path / "whole", *[a for s in settings for a in ("--set", s)])
    assert straight.returncode == 0, straight.stderr
    whole, resumed = Trainer(config, tmp_path / "whole"), Trainer(config, run)
    for trainer in (whole, resumed):
        trainer._checkpoints.restore()
    assert_same_state(state(resumed), state(whole))


def wait_first(moment, other, process):
    """Waits for a short-lived file; where it is missed, for the other."""
    until = time.monotonic() + 120
    while not list(moment.parent.glob(moment.name)) and not other.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(experiment, start, tmp_path, number):
    """It ends the step, saves, says how to go on, and exits with the shell's status of an interrupt."""
    process = start(tmp_path, "training.steps=100000", "training.checkpoint_every=10")
    wait_for(tmp_path / "checkpoints" / "checkpoint", process)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    found = re.search(r"seq2split: stopped after step (\d+); start it again to resume", told)
    assert found, told
    assert "Traceback" not in told
    saved = tf.train.latest_checkpoint(tmp_path / "checkpoints")
    assert saved.endswith(f"-{found[1]}")
    shutil.rmtree(tmp_path / "events")
    trainer = Trainer(configure(experiment, training__steps=100000, training__checkpoint_every=10), tmp_path)
    assert f"{found[1]} steps are done" in trainer._checkpoints.restore()
