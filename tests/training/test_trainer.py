"""Training a model of any kind: what is learned, measured, kept, said, and refused."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import islice

import keras
import numpy as np
import pytest
import tensorflow as tf
from run_states import assert_same_state, parts_state, scalars, state, texts
from tiny_models import (
    BUCKETS,
    PIECES,
    UNITS,
    TinyDecoder,
    TinyEncoder,
    make_batches,
    make_layers,
    make_model,
    make_rows,
    mean_over_time,
    summed_loss,
)

import seq2split as s2s
from seq2split.runs.sessions import read_sessions
from seq2split.training.accumulation import accumulate


def make_trainer(run=None, optimizer=None, model=None, **options):
    return s2s.Trainer(model or make_model(), optimizer or keras.optimizers.SGD(0.5), run=run, **options)


def fit(trainer, steps=4, batches=None, **options):
    return trainer.fit(batches or make_batches(trainer.model), steps=steps, **{"progress": False} | options)


def scripted(*figures):
    """Return a validation that finds these scores."""
    found = iter(figures)
    return lambda _model: next(found)


class Recorder(s2s.Callback):
    """Notes the model at each validation."""

    def __init__(self):
        self.models = []

    def on_validation(self, trainer, _figures):
        self.models.append(parts_state(trainer.model))


# Learning


def test_loss_falls(tmp_path):
    """And is written, with the other figures, for TensorBoard."""
    trainer = make_trainer(tmp_path, keras.optimizers.Adam(0.05))
    history = fit(trainer, 30, validation=make_batches(trainer.model), validate_every=15, log_every=5)
    found = scalars(tmp_path)
    assert found["loss"][30] < found["loss"][5] - 0.3
    assert found["validation_loss"][30] < found["validation_loss"][15]
    assert found["validation_perplexity"][30] == pytest.approx(math.exp(found["validation_nll"][30]), rel=1e-5)
    for entry in history:
        figures = entry.keys() - {"step", "seconds", "tokens"}
        assert {name: found[name][entry["step"]] for name in figures} == pytest.approx(
            {name: entry[name] for name in figures}, rel=1e-6
        )
    assert [entry["seconds"] for entry in history] == sorted(entry["seconds"] for entry in history)


def test_steps_equal_those_of_the_unsplit_model():
    """A plain Keras optimizer on an ordinary tape over the same batches, clipped by TensorFlow."""
    model, (encoder, decoder) = make_model(), make_layers()
    optimizer, trainer = (
        keras.optimizers.Adam(0.05),
        make_trainer(None, keras.optimizers.Adam(0.05), model, clip_norm=0.5),
    )
    batches = list(islice(make_batches(model).stream(), 6))
    losses = []
    for batch in batches:
        with tf.GradientTape() as tape:
            fields = {side: s2s.Sequences(*map(tf.constant, each)) for side, each in batch.items()}
            loss = decoder(encoder(fields["source"]), fields["target"])[0] / batch["target"].lengths.sum()
        variables = encoder.trainable_variables + decoder.trainable_variables
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 0.5)
        optimizer.apply_gradients(zip(map(tf.convert_to_tensor, gradients), variables, strict=True))
        losses.append(float(loss))
    history = fit(trainer, 6, log_every=1)
    np.testing.assert_allclose([entry["loss"] for entry in history], losses, rtol=1e-12)
    for found, expected in zip(model.trainable_variables, variables, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_several_batches_are_one_update():
    """Of plain gradient descent: as if they were one batch."""
    model = make_model()
    model.create_variables()
    rows = {side: [*map(np.asarray, each)] for side, each in make_rows().items()}
    batches = list(islice(make_batches(model, rows).stream(), 3))
    whole = {
        side: [row[:length] for batch in batches for row, length in zip(*batch[side], strict=True)] for side in rows
    }
    expected = {part: [one.numpy() for one in each.part.trainable_variables] for part, each in model.parts.items()}
    for part, gradients in model.loss_and_gradients(whole).gradients.items():
        pairs = zip(expected[part], gradients, strict=True)
        expected[part] = [value - 0.5 * tf.convert_to_tensor(gradient).numpy() for value, gradient in pairs]
    trainer = make_trainer(model=model, accumulate=3)
    fit(trainer, 1, make_batches(model, rows))
    for part, values in expected.items():
        for one, value in zip(model.parts[part].part.trainable_variables, values, strict=True):
            np.testing.assert_allclose(one, value, rtol=1e-12, atol=1e-14)
    assert int(trainer.progress.tokens) == sum(batch.tokens for batch in batches)
    epoch, index = divmod(3, batches[0].epoch_batches)
    assert (int(trainer.progress.epoch), int(trainer.progress.index)) == (epoch, index)


def test_figures_are_right():
    """Recomputed by hand: means over the positions of all batches since the last entry, tokens and padding in all."""
    trainer = make_trainer(accumulate=2, optimizer=keras.optimizers.SGD(0.0))
    model, valid = trainer.model, make_rows(9, seed=2)
    history = fit(trainer, 4, log_every=2, validation=make_batches(model, valid), validate_every=3)
    batches = list(islice(make_batches(model).stream(), 8))
    assert [entry["step"] for entry in history] == [2, 3, 4, 4]
    for entry, used, so_far in ((history[0], batches[:4], batches[:4]), (history[2], batches[4:], batches)):
        weights = [batch["target"].lengths.sum() for batch in used]
        losses = [model.losses(batch) for batch in used]
        for name, values in (
            ("loss", [each.loss for each in losses]),
            ("accuracy", [each.metrics["accuracy"] for each in losses]),
        ):
            assert entry[name] == pytest.approx(np.average(values, weights=weights), rel=1e-12)
        assert entry["perplexity"] == pytest.approx(math.exp(entry["loss"]), rel=1e-12)
        assert entry["tokens"] == sum(batch.tokens for batch in so_far)
        padded = sum(BUCKETS[side].padded(batch[side].lengths).sum() for batch in used for side in BUCKETS)
        assert entry["padding"] == pytest.approx(1 - sum(batch.tokens for batch in used) / padded)
        assert entry["learning_rate"] == 0.0
        assert entry["tokens_per_second"] > 0
    expected = model.losses(valid)
    for entry in (history[1], history[3]):
        assert entry["validation_loss"] == pytest.approx(float(expected.loss), rel=1e-12)
        assert entry["validation_accuracy"] == pytest.approx(float(expected.metrics["accuracy"]), rel=1e-12)


def test_learning_rates_are_those_of_each_rule():
    schedule = s2s.WarmupSchedule(0.4, 4, "constant", 9)
    trainer = make_trainer(optimizer=keras.optimizers.SGD(schedule), groups={"decoder": keras.optimizers.SGD(0.25)})
    history = fit(trainer, 3, log_every=1)
    assert [entry["learning_rate"] for entry in history] == pytest.approx([0.1, 0.2, 0.3])
    assert [entry["learning_rate decoder"] for entry in history] == [0.25] * 3


def test_float_features():
    random_rows = make_rows(frames=UNITS)
    encoder = TinyEncoder(embeds=False, dtype="float64")
    model = make_model(encoder=encoder, fields={"source": tf.TensorSpec([UNITS], tf.float64)})
    history = fit(make_trainer(model=model), 20, make_batches(model, random_rows), log_every=1)
    assert history[-1]["loss"] < history[0]["loss"]


def two_sources():
    """Return a model whose decoder reads two encoders, and rows of its three sides."""
    (one, _), (two, _) = make_layers(1), make_layers(2)

    class Joint(keras.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.inner = TinyDecoder(dtype="float64")

        def call(self, one, two, target):
            values = tf.concat([mean_over_time(each)[:, None] for each in (one, two)], 1)
            return self.inner(s2s.Sequences(values, 2 * tf.ones_like(one.lengths)), target)

    first = s2s.Node(one, "source", BUCKETS["source"], name="first")
    second = s2s.Node(two, "source2", BUCKETS["source"], name="second")
    decoder = s2s.Node(Joint(), [first, second, "target"], BUCKETS["target"], loss=True, name="decoder")
    return s2s.SplitModel([first, second, decoder]), make_rows(sides=("source", "source2", "target"))


def test_three_sides():
    model, rows = two_sources()
    trainer = make_trainer(
        model=model, optimizer={"first": keras.optimizers.SGD(0.5), "decoder": keras.optimizers.Adam(0.1)}
    )
    before = parts_state(model)
    history = fit(trainer, 12, make_batches(model, rows, tokens=80), log_every=1)
    assert history[-1]["loss"] < history[0]["loss"]
    still = {name for name, value in parts_state(model).items() if np.array_equal(value, before[name])}
    assert still == {name for name in before if name.startswith("second")}, "which has no optimizer"


def test_several_losses(tmp_path):
    """Of two decoders of one encoder: the loss is their sum, and each is measured by its name."""
    encoder, decoder = make_layers()
    encoder = s2s.Node(encoder, "source", BUCKETS["source"], name="encoder")
    nodes = [
        s2s.Node(decoder, [encoder, "target"], BUCKETS["target"], loss=True, name="forth"),
        s2s.Node(TinyDecoder(dtype="float64"), [encoder, "back"], BUCKETS["target"], loss=True, name="back_part"),
    ]
    model = s2s.SplitModel([encoder, *nodes])
    rows = make_rows()
    rows["back"] = [row[::-1] for row in rows["target"]]
    trainer = make_trainer(tmp_path, model=model)
    batches = make_batches(model, rows, tokens=80)
    history = fit(trainer, 6, batches, log_every=1, validation=batches, monitor="back_part/loss")
    assert history[-2]["loss"] < history[0]["loss"]
    for entry, before in ((history[0], ""), (history[-1], "validation_")):
        parts = [entry[f"{before}{name}/loss"] for name in ("forth", "back_part")]
        assert entry[f"{before}loss"] == pytest.approx(sum(parts), rel=1e-9)
        assert entry[f"{before}forth/accuracy"] <= 1
    assert -float(trainer.progress.best) == history[-1]["validation_back_part/loss"]


# What is kept


def test_no_run_directory_writes_nothing(tmp_path, monkeypatch):
    """Neither here nor where temporary files go; the best model is kept in memory."""
    for name in ("TMPDIR", "TEMP", "TMP", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    trainer, recorder = make_trainer(ema=0.5), Recorder()
    fit(trainer, 4, validation=scripted(3.0, 1.0, 2.0, 4.0), validate_every=1, monitor="score", callbacks=[recorder])
    trainer.write_text("note", "text")
    last = parts_state(trainer.model)
    assert not any(np.array_equal(last[name], value) for name, value in recorder.models[1].items())
    trainer.load_best()
    assert_same_state(parts_state(trainer.model), recorder.models[1])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_load_best(tmp_path):
    """From the run directory, also in a new trainer that has trained nothing."""
    trainer, recorder = make_trainer(tmp_path), Recorder()
    with pytest.raises(ValueError, match=r"nothing was validated yet.*call fit\(\.\.\., validation=\.\.\.\)"):
        trainer.load_best()
    options = {"validation": scripted(0.1, 0.9, 0.5), "validate_every": 1, "monitor": "score", "mode": "max"}
    fit(trainer, 3, callbacks=[recorder], **options)
    trainer.load_best()
    assert_same_state(parts_state(trainer.model), recorder.models[1])
    again = make_trainer(tmp_path)
    again.load_best()
    assert_same_state(parts_state(again.model), recorder.models[1])


def test_files_of_a_run(tmp_path):
    trainer = make_trainer(tmp_path / "run")
    assert not (tmp_path / "run").exists(), "until something is to be written"
    fit(trainer, 4, checkpoint_every=1, validation=scripted(1.0), monitor="score")
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {"batches.json", "best", "checkpoints", "events", "history.jsonl", "lock", "run.json"}
    checkpoints = [path.stem for path in (tmp_path / "run" / "checkpoints").glob("*.index")]
    assert sorted(checkpoints) == ["ckpt-3", "ckpt-4"]
    fit(make_trainer(tmp_path / "run"), 6)
    first, second = read_sessions(tmp_path / "run" / "run.json")
    assert (first["step"], second["step"], first["seed"], first["threads"]) == (0, 4, 3, 1)
    assert first["parameters"] == sum(math.prod(each.shape) for each in trainer.model.trainable_variables)


def test_checkpoint_holds_every_variable(tmp_path):
    """Also those of layers that a layer keeps in lists, and plain ones: none is restored by the optimizer alone."""

    class Listed(keras.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.held = [TinyEncoder(dtype="float64", normalize=True)]

        def call(self, source):
            return self.held[0](source)

    tables = [tf.Variable(np.ones([PIECES]), name="table") for _ in range(3)]

    def decode(encoded, target):
        logits = (tf.add_n(tables) + mean_over_time(encoded)[:, :1])[:, None]
        return summed_loss(tf.repeat(logits, tf.shape(target.values)[1], 1), target)

    model = make_model(encoder=Listed(), decoder=s2s.Part(decode, variables=tables))
    trainer = make_trainer(tmp_path, model=model)
    fit(trainer, 2, validation=scripted(1.0), monitor="score")
    for folder in ("checkpoints", "best"):
        stored = tf.train.list_variables(tf.train.latest_checkpoint(tmp_path / folder))
        for part, each in trainer.model.parts.items():
            assert sum(name.startswith(f"{part}/") for name, _ in stored) == len(each.part.variables)
    assert len(trainer.model.parts["encoder"].part.variables) == 7
    assert len(trainer.model.parts["decoder"].part.variables) == 3


SCORES = (1.0, 5.0, 4.0, 5.0, 3.0, 2.0)


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 1)])
@pytest.mark.parametrize("in_memory", [False, True])
def test_early_stopping_and_the_best(tmp_path, capsys, mode, best, in_memory):
    """Two validations without improvement end the training; an equal figure is none. What is kept is the best."""
    trainer, recorder = make_trainer(None if in_memory else tmp_path), Recorder()
    options = {"validate_every": 1, "monitor": "score", "mode": mode, "patience": 2}
    fit(trainer, 20, validation=scripted(*SCORES), callbacks=[recorder], progress=True, **options)
    assert int(trainer.progress.step) == best + 2
    assert (int(trainer.progress.best_step), int(trainer.progress.stale)) == (best, 2)
    told = capsys.readouterr().err
    ending = f"2 validations without improvement; best validation score {SCORES[best - 1]:.2f} at step {best}"
    assert f"finished after step {best + 2}: {ending}" in told
    assert told.count("the best so far") == best
    trainer.load_best()
    assert_same_state(parts_state(trainer.model), recorder.models[best - 1])
    if not in_memory:
        again = make_trainer(tmp_path)
        fit(again, 20, validation=scripted(), **options)
        assert (int(again.progress.step), int(again.progress.best_step)) == (best + 2, best)


def test_patience_zero_never_stops():
    trainer = make_trainer()
    fit(trainer, 6, validation=scripted(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), validate_every=1, monitor="score")
    assert (int(trainer.progress.step), int(trainer.progress.stale)) == (6, 5)


def test_a_figure_that_is_not_a_number_is_never_the_best():
    trainer = make_trainer()
    fit(trainer, 3, validation=scripted(math.nan, 2.0, math.nan), validate_every=1, monitor="score")
    assert (int(trainer.progress.best_step), float(trainer.progress.best)) == (2, -2.0)


# Averages


def average_run(path, scores, steps=8, **options):
    """Return a training whose validations find these scores, the last that of the average, and the models at each."""
    trainer, seen = make_trainer(path, **{"average": 2} | options), []
    found = iter(scores)

    def validate(model):
        seen.append(parts_state(model))
        return next(found)

    fit(trainer, steps, validation=validate, validate_every=2, monitor="score", mode="max", progress=True)
    return trainer, seen


@pytest.mark.parametrize(("which", "places"), [("best", (0, 2)), ("last", (2, 3))])
def test_a_better_average_is_the_model(tmp_path, capsys, which, places):
    trainer, seen = average_run(tmp_path, [5.0, 1.0, 4.0, 3.0, 6.0], average_of=which)
    assert len(seen) == 5
    assert_same_state(parts_state(trainer.model), seen[3])
    trainer.load_best()
    for found in (parts_state(trainer.model), seen[4]):
        for name, value in found.items():
            np.testing.assert_allclose(value, np.mean([seen[place][name] for place in places], axis=0), rtol=1e-14)
    steps = ", ".join(str(2 * place + 2) for place in places)
    assert f"average of the models of steps {steps}: score 6.000, better than the best" in capsys.readouterr().err
    assert trainer.history[-1]["average_score"] == 6.0


def test_a_worse_average_is_not_the_model(tmp_path, capsys):
    """Nor one of a training that has been gone on with, until that ends."""
    trainer, seen = average_run(tmp_path, [1.0, 5.0, 4.0, 3.0, 5.0])
    trainer.load_best()
    assert_same_state(parts_state(trainer.model), seen[1])
    assert "no better than the best" in capsys.readouterr().err
    average_run(tmp_path, [])  # finished, and the average is known
    history = tmp_path / "history.jsonl"
    *entries, average = history.read_text().splitlines()
    assert '"average_score": 5.0' in average
    history.write_text("".join(line + "\n" for line in entries))  # killed before it was known
    average_run(tmp_path, [5.5])
    assert (tmp_path / "average").exists()
    with pytest.raises(StopIteration):
        average_run(tmp_path, [], steps=12)
    assert not (tmp_path / "average").exists()


def test_one_model_is_no_average(tmp_path, capsys):
    average_run(tmp_path, [1.0], steps=2)
    assert "no average: 1 validated models are kept, and it takes two" in capsys.readouterr().err


def test_a_moving_average_is_validated_and_kept(tmp_path):
    """And the training goes on from the variables as they are."""
    plain, _ = average_run(tmp_path / "plain", [1.0, 2.0, 3.0, 4.0], average=0)
    moving, seen = average_run(tmp_path / "moving", [1.0, 2.0, 3.0, 4.0], average=0, ema=0.5)
    assert_same_state(parts_state(moving.model), parts_state(plain.model))
    moving.load_best()
    assert_same_state(parts_state(moving.model), seen[-1])
    assert not any(np.array_equal(value, seen[-1][name]) for name, value in parts_state(plain.model).items())


def test_the_best_is_not_lost_with_the_steps_after_a_checkpoint(tmp_path):
    """A checkpoint goes with it, so that a run which is set back still knows the best that it keeps."""

    class PowerCut(s2s.Callback):
        def on_step(self, trainer, _result):
            if int(trainer.progress.step) == 5:
                raise RuntimeError("power cut")

    options = {"validate_every": 3, "monitor": "score"}
    with pytest.raises(RuntimeError, match="power cut"):
        fit(make_trainer(tmp_path), 9, validation=scripted(1.0), callbacks=[PowerCut()], **options)
    again = make_trainer(tmp_path)
    fit(again, 4, validation=scripted(2.0), **options)
    assert [entry["step"] for entry in read_sessions(tmp_path / "run.json")] == [0, 3]
    assert int(again.progress.best_step) == 3


def test_models_of_lost_steps_are_not_averaged(tmp_path):
    class PowerCut(s2s.Callback):
        def on_step(self, trainer, _result):
            if int(trainer.progress.step) == 7:
                raise RuntimeError("power cut")

    trainer = make_trainer(tmp_path, average=9)
    options = {"validate_every": 2, "monitor": "score", "mode": "max"}
    with pytest.raises(RuntimeError, match="power cut"):
        fit(trainer, 9, validation=scripted(3.0, 2.0, 1.0), callbacks=[PowerCut()], **options)
    trainer, _ = average_run(tmp_path, [1.0, 1.5, 0.5], average=9, steps=5)
    assert trainer._records.candidates.steps == [2, 4, 5]
    assert [entry["step"] for entry in trainer.history if "validation_score" in entry] == [2, 4, 5]


def test_a_run_can_be_moved(tmp_path):
    trainer = make_trainer(tmp_path / "old")
    fit(trainer, 2, validation=scripted(1.0), monitor="score")
    before = parts_state(trainer.model)
    (tmp_path / "old").rename(tmp_path / "new")
    again = make_trainer(tmp_path / "new")
    fit(again, 2)
    assert_same_state(parts_state(again.model), before)
    again.load_best()
    assert_same_state(parts_state(again.model), before)


# What is said


def test_nothing_is_printed_without_progress(capfd):
    """On neither stream, by whatever code."""
    trainer = make_trainer(ema=0.5)
    options = {"validation": make_batches(trainer.model), "validate_every": 2, "patience": 5}
    capfd.readouterr()
    fit(trainer, 4, **options, callbacks=[Recorder()])
    trainer.say("nothing")
    assert capfd.readouterr() == ("", "")


def test_what_is_said(tmp_path, capsys):
    trainer = make_trainer(tmp_path)
    fit(trainer, 2, validation=scripted(1.0), monitor="score", progress=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert f"starting a new run; checkpoints go to {tmp_path / 'checkpoints'}" in told.err
    assert "step 2: validation score 1.000, the best so far" in told.err
    assert "finished after step 2; best validation score 1.00 at step 2; 0." in told.err
    fit(make_trainer(tmp_path), 3, progress=True)
    assert "2 steps are done, next is batch 3 of epoch 1" in capsys.readouterr().err
    fit(make_trainer(), 1, progress=True)
    told = capsys.readouterr().err
    assert "starting; nothing is written" in told
    assert "finished after step 1; never validated; 0." in told


class Compilations(s2s.Callback):
    """Notes how many programs XLA has compiled at each step."""

    def __init__(self):
        self.counts = []

    def on_step(self, trainer, _result):
        self.counts.append(trainer.model.compilations)


def test_xla_compiles_everything_before_the_first_step_and_says_so(capsys):
    model, noted = make_model(compiled_rows=8), Compilations()
    validation = make_batches(model)
    fit(make_trainer(model=model), 2, validation=validation, callbacks=[noted], progress=True)
    assert "compiling part graphs: 100%" in capsys.readouterr().err
    assert noted.counts == [(2 * 2 + 2) + (2 + 2)] * 2
    assert model.compilations == noted.counts[0]


def test_texts_for_tensorboard(tmp_path):
    class Note(s2s.Callback):
        def on_step(self, trainer, _result):
            trainer.write_text("note", f"after {int(trainer.progress.step)}")

    fit(make_trainer(tmp_path), 2, callbacks=[Note()])
    assert texts(tmp_path, "note") == ["after 1", "after 2"]


# Mistakes


def poison(trainer, monkeypatch, steps, bad=math.nan, what="gradients"):
    """Make the loss or a gradient of some steps, counted from 1, something else."""
    loss_and_gradients = trainer.model.loss_and_gradients

    def poisoned(*arguments):
        result = loss_and_gradients(*arguments)
        if int(trainer.progress.step) + 1 in steps:
            if what == "loss":
                return replace(result, loss=result.loss * bad)
            result.gradients["encoder"][1] *= bad
        return result

    monkeypatch.setattr(trainer.model, "loss_and_gradients", poisoned)
    return trainer


@pytest.mark.parametrize("what", ["loss", "gradients"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_left_out(tmp_path, monkeypatch, capsys, bad, what):
    """It is told with its batch and the largest gradient; nothing of it reaches the model, and the rest goes on."""
    trainer = poison(make_trainer(tmp_path, model=make_model(normalize=True)), monkeypatch, {3}, bad, what)
    states, watch = [], Recorder()
    watch.on_step = lambda trainer, _result: states.append((int(trainer.progress.step), parts_state(trainer.model)))
    history = fit(trainer, 4, log_every=2, progress=True, callbacks=[watch])
    told = capsys.readouterr().err
    assert f"left out: in step 3 the loss is {'nan' if what == 'loss' and bad != bad else ''}" in told
    assert re.search(r"; batch \d of epoch \d, lines \d+(, \d+)*( and \d+ others)? of the corpus", told)
    if what == "gradients":
        assert re.search(r"the gradient norm is (nan|inf); the largest gradient is (nan|inf), of encoder/\S+;", told)
    assert [step for step, _ in states] == [1, 2, 4]
    assert history[1]["left_out"] == 1
    assert all(math.isfinite(value) for entry in history for value in entry.values())
    assert all(np.isfinite(value).all() for value in parts_state(trainer.model).values())


def test_a_left_out_step_changes_nothing(monkeypatch):
    """Neither variables, optimizers and moving averages, nor the statistics that a forward moves."""
    trainer = make_trainer(optimizer=keras.optimizers.Adam(0.1), model=make_model(normalize=True), ema=0.5)
    fit(trainer, 2)
    before = state(trainer)
    fit(poison(trainer, monkeypatch, {3}), 3)
    changed = {name for name, value in state(trainer).items() if not np.array_equal(value, before[name])}
    assert changed == {"progress step", "progress index", "progress tokens"}


def test_divergence(tmp_path, monkeypatch):
    """Too many such steps in a row end the training; the best model stays, and the run can go on from before."""
    options = {"clip_norm": 2.0, "most_left_out": 3}
    trainer = poison(make_trainer(tmp_path, **options), monkeypatch, {3, 4, 6, 7, 8})
    fitting = {"checkpoint_every": 1, "validation": scripted(1.0, 2.0, 3.0), "validate_every": 2, "monitor": "score"}
    expected = (
        r"the training diverged: in step 8 .* None of the last 3 steps was applied\. The best model, of step 2, is"
    )
    with pytest.raises(FloatingPointError, match=expected + r" kept\. .*lower clip_norm, which is 2, or warm up"):
        fit(trainer, 9, **fitting)
    assert int(trainer.progress.step) == 7
    trainer.load_best()
    again = make_trainer(tmp_path)
    fit(again, 9)
    assert all(np.isfinite(value).all() for value in parts_state(again.model).values())


def test_divergence_by_learning_rate():
    model = make_model(dtype="float32")
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf).*set clip_norm, such as 1, or warm up"):
        fit(make_trainer(optimizer=keras.optimizers.SGD(1e38), model=model, most_left_out=2))


def test_a_checkpoint_from_before_a_divergence_stays(tmp_path, monkeypatch):
    """However many are written while the loss, though finite, rises; and the advice to go on from it works."""
    trainer = make_trainer(tmp_path, most_left_out=1)
    loss_and_gradients = trainer.model.loss_and_gradients

    def rising(*arguments):
        result, step = loss_and_gradients(*arguments), int(trainer.progress.step) + 1
        return result if step < 4 else replace(result, loss=result.loss * (math.nan if step > 8 else 100.0))

    monkeypatch.setattr(trainer.model, "loss_and_gradients", rising)
    with pytest.raises(FloatingPointError) as caught:
        fit(trainer, 20, checkpoint_every=1)
    checkpoints = tmp_path / "checkpoints"
    kept = sorted(path.stem for path in checkpoints.glob("*.index"))
    assert kept == ["ckpt-3", "ckpt-7", "ckpt-8"]
    told = str(caught.value)
    assert f"Checkpoint {checkpoints}/ckpt-3 is of before. To go on from that, delete {checkpoints}/ckpt-7.*" in told
    for pattern in re.findall(r"(ckpt-\d+\.\*)", told):
        for path in checkpoints.glob(pattern):
            path.unlink()
    again = make_trainer(tmp_path)
    fit(again, 4, log_every=1)
    assert [entry["step"] for entry in read_sessions(tmp_path / "run.json")] == [0, 3]


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_an_absurd_validation_is_never_the_best(tmp_path, capsys, monkeypatch, monitor):
    """Of a model that is far worse than one which has learned nothing."""
    trainer = make_trainer(tmp_path, average=2)
    valid = make_batches(trainer.model)
    losses = trainer.model.losses

    def lost(batch):
        found = losses(batch)
        return found if int(trainer.progress.step) == 2 else replace(found, loss=found.loss * 2e9)

    monkeypatch.setattr(trainer.model, "losses", lost)
    options = {"validation": valid, "validate_every": 1, "monitor": monitor}
    fit(trainer, 3, progress=True, mode="min" if monitor == "loss" else "max", **options)
    told = capsys.readouterr().err
    assert told.count("far worse than before any training") == 2
    assert told.count("the best so far") == 1
    assert int(trainer.progress.best_step) == 2
    assert trainer._records.candidates.steps == [2]


def test_a_function_of_ones_own_may_find_any_loss():
    """Which may be a sum, where that of the training is a mean."""
    trainer = make_trainer()
    fit(trainer, 2, validation=lambda _: {"loss": 2e9})
    assert int(trainer.progress.best_step) == 2


def test_a_full_disk(tmp_path, monkeypatch):
    """One line; the last checkpoint stands, and the run goes on from there when there is room."""
    trainer = make_trainer(tmp_path)

    def fail(_self, path):
        raise tf.errors.ResourceExhaustedError(None, None, f"{path}; No space left on device")

    with monkeypatch.context() as patch:
        fit(trainer, 2, checkpoint_every=2)
        patch.setattr(tf.train.Checkpoint, "write", fail)
        expected = r"ckpt-4 can't be written: No space left on device; free some space, and try again; .*ckpt-2 stands"
        with pytest.raises(OSError, match=expected):
            fit(trainer, 6, checkpoint_every=2)
    again = make_trainer(tmp_path)
    fit(again, 4)
    assert [entry["step"] for entry in read_sessions(tmp_path / "run.json")] == [0, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": -1.0}, "clip_norm is -1.0; expected a finite number, at least 0"),
        ({"clip_norm": math.nan}, "clip_norm is nan"),
        ({"most_left_out": 0}, "most_left_out is 0; expected a finite number, at least 1"),
        ({"accumulate": 0}, "accumulate is 0; expected a finite number, at least 1"),
        ({"ema": 1.0}, "ema is 1.0; expected at least 0, for no moving average, and below 1"),
        ({"average": 2}, r"average = 2 keeps models on disk; give a run directory: Trainer\(\.\.\., run=\.\.\.\)"),
        ({"groups": {"encodr/.*": None}}, "'encodr/.*', which matches the whole path of no variable"),
        ({"optimizer": {"encodr": None}}, r"no parts \['encodr'\] to give an optimizer"),
    ],
    ids=str,
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


def test_wrong_arguments_of_an_average(tmp_path):
    with pytest.raises(ValueError, match=r"average_of.*'first'"):
        make_trainer(tmp_path, average=2, average_of="first")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file is a file; a run needs a directory"):
        make_trainer(tmp_path / "file")


@pytest.fixture(scope="module")
def trainer():
    return make_trainer()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps is -1; expected a finite number, at least 0"),
        ({"mode": "minimum"}, r"mode.*'minimum'"),
        ({"validate_every": 0}, "validate_every is 0; expected a finite number, at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"patience": -1}, "patience is -1"),
    ],
    ids=str,
)
def test_wrong_arguments_of_fit(trainer, options, message):
    with pytest.raises(ValueError, match=message):
        fit(trainer, **options)
    assert int(trainer.progress.step) == 0


def test_what_is_no_batches(trainer):
    for wrong in (make_rows(), [make_rows()]):
        with pytest.raises(TypeError, match=r"expected Batches.*s2s\.Batches\("):
            trainer.fit(wrong, steps=1, progress=False)


def test_no_figure_to_monitor():
    trainer = make_trainer()
    with pytest.raises(ValueError, match=r"figures \['bleu'\]; expected 'loss' among them.*fit\(\.\.\., monitor="):
        fit(trainer, 2, validation=lambda _: {"bleu": 1.0})


def test_accumulation_of_frozen_parts():
    """A frozen part costs no backward: nothing is left over."""
    trainer = make_trainer(optimizer={"decoder": keras.optimizers.SGD(0.1)}, accumulate=2)
    fit(trainer, 2)
    assert all(graph.live_residuals == 0 for graph in trainer.model.graphs.values())
    result = accumulate(trainer.model, [make_rows(3)], trainer._updater.frozen(1))
    assert not any(gradient is not None for gradient in result.gradients["encoder"])


def test_other_batches_in_a_later_fit_are_refused():
    """Without a run directory too: the place in the data would mean something else."""
    model = make_model()
    trainer = s2s.Trainer(model, keras.optimizers.SGD(0.1))
    trainer.fit(make_batches(model), steps=2, progress=False)
    with pytest.raises(ValueError, match=r"this trainer holds a training on other batches \(tokens 60 -> 50"):
        trainer.fit(make_batches(model, tokens=50), steps=4, progress=False)


def test_another_figure_to_judge_by_is_refused():
    model = make_model()
    trainer, batches = s2s.Trainer(model, keras.optimizers.SGD(0.1)), make_batches(model)
    trainer.fit(batches, steps=2, validation=batches, progress=False)
    with pytest.raises(ValueError, match=r"chosen by .*'loss'.*can't be compared by .*'accuracy'"):
        trainer.fit(batches, steps=4, validation=batches, monitor="accuracy", mode="max", progress=False)


def test_a_metric_with_the_name_of_another_figure_is_refused():
    class Decoder(TinyDecoder):
        def call(self, encoded, target):
            loss, metrics = super().call(encoded, target)
            return loss, {"tokens": metrics["accuracy"]}

    model = make_model(decoder=Decoder(dtype="float64"))
    with pytest.raises(ValueError, match="a metric 'tokens', which is the name of another figure"):
        s2s.Trainer(model, keras.optimizers.SGD(0.1)).fit(make_batches(model), steps=1, progress=False)


@pytest.mark.parametrize("optimizer", [None, {}])
def test_training_nothing_is_refused(optimizer):
    with pytest.raises(ValueError, match=r"no variable .* has an optimizer, so that nothing would be trained"):
        s2s.Trainer(make_model(), optimizer)


def test_state_does_not_depend_on_which_thread_comes_first():
    """The seeds of Keras's dropout are a state that every call moves."""
    losses = set()
    for _ in range(3):
        model = make_model(dropout=0.5, threads=2)
        batch = next(iter(make_batches(model, mode="mixed")))
        losses.add(tuple(float(model.loss_and_gradients(batch).loss) for _ in range(4)))
    assert len(losses) == 1
