"""A run that stops at any moment goes on as if it had not, whatever is trained and however."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from run_states import assert_same_state, contents, measured, measured_in, parts_state, state
from tiny_models import (
    PIECES,
    UNITS,
    TinyDecoder,
    make_batches,
    make_layers,
    make_model,
    make_rows,
    mean_over_time,
    summed_loss,
)

import seq2split as s2s
from seq2split.runs.sessions import read_sessions

STEPS = 8


class PlainEncoder(tf.Module):
    """A module of plain TensorFlow variables, one of which is not trained but counts calls."""

    def __init__(self):
        super().__init__(name="encoder")
        draw = np.random.default_rng(1)
        self.table = tf.Variable(draw.normal(size=[PIECES, UNITS]), name="table")
        self.kernel = tf.Variable(draw.normal(size=[UNITS, UNITS]), name="kernel")
        self.calls = tf.Variable(0, trainable=False, name="calls")

    def __call__(self, source, training=False):
        if training:
            self.calls.assign_add(1)
        values = tf.tanh(tf.gather(self.table, source.values) @ self.kernel)
        return s2s.Sequences(values, source.lengths)


def plain_decoder():
    """Return a function of plain variables as a part."""
    draw = np.random.default_rng(2)
    kernel = tf.Variable(draw.normal(size=[UNITS, PIECES]), name="kernel")
    bias = tf.Variable(np.zeros(PIECES), name="bias")

    def decode(encoded, target):
        logits = tf.repeat((mean_over_time(encoded) @ kernel + bias)[:, None], tf.shape(target.values)[1], 1)
        return summed_loss(logits, target)

    return s2s.Part(decode, variables=[kernel, bias], name="decoder")


def with_dropout():
    """Also a moving average, accumulated gradients, and batches of all buckets at once."""
    return make_model(dropout=0.3), keras.optimizers.Adam(0.05), {"ema": 0.9, "accumulate": 2}, {"mode": "mixed"}


def with_batch_normalization():
    """Also an optimizer for each part, one with a schedule, the other with options of its own."""
    schedule = s2s.WarmupSchedule(0.1, 2, "cosine", STEPS)
    own = keras.optimizers.Adam(0.05, use_ema=True, ema_overwrite_frequency=3, gradient_accumulation_steps=2)
    return make_model(normalize=True), {"encoder": own, "decoder": keras.optimizers.SGD(schedule, 0.9)}, {}, {}


def with_rules():
    """Variables that begin late, end early, or never move; gradients are clipped, threads share the work."""
    late = s2s.UpdateRule(keras.optimizers.Adagrad(0.1), first_step=3)
    groups = {
        ".*/embeddings": s2s.UpdateRule(keras.optimizers.RMSprop(0.01), last_step=5, every=2),
        "decoder/.*/bias": s2s.UpdateRule(keras.optimizers.SGD(0.1), frozen=True),
        "encoder": late,
    }
    return make_model(threads=2), keras.optimizers.AdamW(0.05), {"groups": groups, "clip_norm": 0.5}, {}


def with_plain_variables():
    model = make_model(encoder=PlainEncoder(), decoder=plain_decoder())
    return model, keras.optimizers.Adam(0.05), {"groups": {"kernel": keras.optimizers.SGD(0.1, 0.9)}}, {}


WAYS = (with_dropout, with_batch_normalization, with_rules, with_plain_variables)


def make(way, run=None):
    model, optimizer, options, batch_options = way()
    return s2s.Trainer(model, optimizer, run=run, **options), make_batches(model, **batch_options)


def fit(trainer, batches, steps=STEPS, **options):
    options = {"validation": make_batches(trainer.model, make_rows(6, seed=2)), "validate_every": 4} | options
    return trainer.fit(batches, steps=steps, **{"checkpoint_every": 2, "log_every": 1, "progress": False} | options)


class Moment(s2s.Callback):
    """Does something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, trainer, _result):
        if int(trainer.progress.step) == self.step:
            self.action()


def power_cut():
    raise RuntimeError("power cut")


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("way", WAYS)
def test_stops_change_nothing(way, tmp_path):
    """Ctrl-C after three steps, and a power cut in the seventh, which costs the sixth's successor: bit for bit."""
    whole, batches = make(way)
    fit(whole, batches)
    assert int(whole.progress.epoch) > 0, "the data should end within these steps"
    trainer, batches = make(way, tmp_path)
    with pytest.raises(s2s.Interrupted, match="stopped after step 3; start it again to resume"):
        fit(trainer, batches, callbacks=[Moment(3, interrupt)])
    trainer, batches = make(way, tmp_path)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(trainer, batches, callbacks=[Moment(7, power_cut)])
    trainer, batches = make(way, tmp_path)
    fit(trainer, batches)
    assert_same_state(state(trainer), state(whole))
    assert measured(trainer.history) == measured(whole.history) == measured_in(tmp_path)
    start = parts_state(make(way)[0].model)
    moved = [name for name, value in parts_state(whole.model).items() if not np.array_equal(value, start[name])]
    frozen = [name for name in start if name not in moved]
    assert frozen == (["decoder 2 bias"] if way is with_rules else []), "all others should move"


def test_fit_goes_on_in_the_same_trainer(tmp_path):
    """Without a run directory too: from where it stands, with what was measured so far."""
    whole, batches = make(with_dropout)
    fit(whole, batches)
    for run in (None, tmp_path):
        trainer, batches = make(with_dropout, run)
        fit(trainer, batches, steps=4)
        assert len(trainer.history) == 5, "four steps and a validation"
        fit(trainer, batches)
        assert_same_state(state(trainer), state(whole))
        assert measured(trainer.history) == measured(whole.history)


def test_a_finished_training_stays_as_it_is(tmp_path):
    trainer, batches = make(with_plain_variables, tmp_path)
    fit(trainer, batches, steps=2)
    before = contents(tmp_path / "checkpoints") | contents(tmp_path / "best")
    again, batches = make(with_plain_variables, tmp_path)
    history = fit(again, batches, steps=2)
    assert contents(tmp_path / "checkpoints") | contents(tmp_path / "best") == before
    assert measured(history) == measured(trainer.history)
    assert_same_state(state(again), state(trainer))


def test_in_another_thread(tmp_path):
    """Which can handle no signals."""
    whole, batches = make(with_plain_variables)
    fit(whole, batches)
    trainer, batches = make(with_plain_variables, tmp_path)
    failed = []

    def work():
        try:
            fit(trainer, batches)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert_same_state(state(trainer), state(whole))


def test_signals_are_handled_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer, batches = make(with_plain_variables)
    handlers = []
    fit(trainer, batches, steps=2, callbacks=[Moment(1, lambda: handlers.append(signal.getsignal(signal.SIGINT)))])
    with pytest.raises(s2s.Interrupted):
        fit(trainer, batches, callbacks=[Moment(3, interrupt)])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert handlers[0] not in before


def test_a_second_interrupt_acts_at_once():
    trainer, batches = make(with_plain_variables)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, batches, callbacks=[Moment(3, interrupt), Moment(3, interrupt)])
    assert int(trainer.progress.step) == 3


def test_asked_to_stop_in_the_last_step(tmp_path):
    """Then it is finished, and not interrupted."""
    trainer, batches = make(with_plain_variables, tmp_path)
    fit(trainer, batches, steps=3, callbacks=[Moment(3, interrupt)])
    assert tf.train.latest_checkpoint(tmp_path / "checkpoints").endswith("-3")


# Another training in the same directory


@pytest.fixture
def run(tmp_path):
    trainer, batches = make(with_plain_variables, tmp_path / "run")
    fit(trainer, batches, steps=2)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("rows", "options", "named"),
    [
        (make_rows(), {"tokens": 50}, r"\(tokens 60 -> 50\)"),
        (make_rows(), {"seed": 4, "mode": "mixed"}, r"\(mode homogeneous -> mixed, seed 3 -> 4\)"),
        (make_rows(23), {}, r"\(digest \w+ -> \w+, rows 24 -> 23\)"),
        (make_rows(seed=5), {}, r"\(digest \w+ -> \w+\)"),
    ],
)
def test_other_batches(run, rows, options, named):
    """The place in the data would be another; nothing is overwritten."""
    before = contents(run)
    trainer, _ = make(with_plain_variables, run)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=rf"{run} holds a training on other batches {named}.*another run directory"
        ):
            fit(trainer, make_batches(trainer.model, rows, **options))
    assert contents(run) == before
    fit(*make(with_plain_variables, run), steps=3)
    fit(trainer, make_batches(trainer.model, rows, **options), steps=4, changed_batches=True)
    changed = read_sessions(run / "run.json")[-1]["changed"]
    assert changed["digest" if "digest" in named else "tokens" if "tokens" in named else "seed"][0]
    with pytest.raises(ValueError, match="holds a training on other batches"):
        fit(*make(with_plain_variables, run), steps=5)


def test_another_validation(run, capsys):
    """Its figures can't be compared: it is refused, or the best is judged anew; one that isn't known is let in."""
    trainer, batches = make(with_plain_variables, run)
    other = make_batches(trainer.model, make_rows(7, seed=2))
    with pytest.raises(ValueError, match=r"on other batches \(validation digest \w+ -> \w+, validation rows 6 -> 7\)"):
        fit(trainer, batches, validation=other)
    fit(trainer, batches, validation=lambda _: {"loss": 1e9}, steps=3)
    assert int(trainer.progress.best_step) == 2
    trainer, batches = make(with_plain_variables, run)
    fit(trainer, batches, validation=make_batches(trainer.model, make_rows(7, seed=2)), changed_batches=True, steps=4)
    assert int(trainer.progress.best_step) == 4


def test_a_second_training_in_one_directory(run):
    """Is refused while the first goes on; reading the model is not. Afterwards it goes on."""
    refused, best = [], parts_state(loaded(run).model)

    def try_another():
        other, batches = make(with_plain_variables, run)
        with pytest.raises(BlockingIOError, match=rf"{run} is being trained by process {os.getpid()} on "):
            fit(other, batches)
        assert_same_state(parts_state(loaded(run).model), best)
        refused.append(True)

    trainer, batches = make(with_plain_variables, run)
    fit(trainer, batches, steps=3, callbacks=[Moment(3, try_another)])
    assert refused
    fit(*make(with_plain_variables, run), steps=4)
    with pytest.raises(ValueError, match="trained up to step 4 by another trainer, since this one left it at step 3"):
        fit(trainer, batches, steps=5)


def loaded(run):
    trainer, _ = make(with_plain_variables, run)
    trainer.load_best()
    return trainer


HARMS = {
    "checkpoint": lambda run: (run / "checkpoints" / "ckpt-8.index").write_bytes(b"x"),
    "state file": lambda run: (run / "checkpoints" / "checkpoint").unlink(),
    "best": lambda run: shutil.rmtree(run / "best"),
    "average": lambda run: shutil.rmtree(run / "average"),
    "candidate": lambda run: (run / "candidates" / "8" / "ckpt-8.index").write_bytes(b"x"),
    "figures": lambda run: (run / "candidates" / "figures.json").write_text("{"),
    "figures lost": lambda run: (run / "candidates" / "figures.json").unlink(),
    "figure": lambda run: replace(run / "candidates" / "figures.json", "-1.8", "-1.7"),
    "batches": lambda run: (run / "batches.json").write_text("{"),
    "batches lost": lambda run: (run / "batches.json").unlink(),
    "batch": lambda run: replace(run / "batches.json", "60", "61"),
    "history": lambda run: (run / "history.jsonl").write_text("{\n"),
    "history lost": lambda run: (run / "history.jsonl").unlink(),
    "sessions": lambda run: (run / "run.json").write_text("{"),
    "sessions lost": lambda run: (run / "run.json").unlink(),
}
TOLD = {
    "checkpoint": "ckpt-8 is damaged: ckpt-8.index isn't what was written",
    "state file": "",
    "best": "the best model, of step 8, is written again from",
    "average": "",
    "candidate": "the model of step 8, kept for the average, is damaged, and left out",
    "figures": "figures.json is damaged or lost: it is written again from the history",
    "figures lost": "figures.json is damaged or lost: it is written again from the history",
    "figure": "figures.json is damaged or lost: it is written again from the history",
    "batches": "batches.json is damaged: it is written again from the checkpoint",
    "batches lost": "batches.json is lost: it is written again from the checkpoint",
    "batch": "batches.json was changed or damaged: it is written again from the checkpoint",
    "history": "history.jsonl was damaged or changed: it goes on without its lines 1, which can't be trusted",
    "history lost": "history.jsonl is lost: what was measured before isn't in the history any more",
    "sessions": "run.json is damaged: it begins anew",
    "sessions lost": "run.json is lost: it begins anew",
}


def replace(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def averaged(run=None):
    model, optimizer, options, batch_options = with_plain_variables()
    options |= {"average": 3} if run else {}
    return s2s.Trainer(model, optimizer, run=run, **options), make_batches(model, **batch_options)


@pytest.fixture(scope="module")
def damageable(tmp_path_factory):
    """A run of 8 steps, four of them validated, and what undisturbed ones of 8 and 12 come to."""
    run = tmp_path_factory.mktemp("damageable") / "run"
    fit(*averaged(run), validate_every=2)
    whole, batches = averaged()
    fit(whole, batches, validate_every=2)
    states = [state(whole)]
    fit(whole, batches, 12, validate_every=2)
    return run, [*states, state(whole)], measured(whole.history)


@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_told_and_mended(damageable, tmp_path, capsys, harm):
    """The run goes on to what an undisturbed one comes to, bit for bit, and nothing is lost but what is told."""
    run, (_, expected), history = damageable
    run = shutil.copytree(run, tmp_path / "run")
    if harm == "average":
        (run / "average").mkdir(exist_ok=True)
    HARMS[harm](run)
    trainer, batches = averaged(run)
    fit(trainer, batches, 12, validate_every=2, progress=True)
    told = capsys.readouterr().err
    assert TOLD[harm] in told
    assert_same_state(state(trainer), expected)
    found = [entry for entry in measured(trainer.history) if not any(name.startswith("average_") for name in entry)]
    assert found == (history if not harm.startswith("history") else found)
    assert trainer._records.candidates.steps == [8, 10, 12] or harm == "candidate"


def test_a_lost_average_is_made_again(damageable, tmp_path, capsys, monkeypatch):
    run, _, _ = damageable
    run = shutil.copytree(run, tmp_path / "run")
    average = {"validation": lambda _: {"loss": -1.0}}
    replace(run / "history.jsonl", '"average_loss": ', '"average_loss": -9')
    shutil.rmtree(run / "average", ignore_errors=True)
    trainer, batches = averaged(run)
    fit(trainer, batches, 8, validate_every=2, progress=True, **average)
    assert "the average of models in" in capsys.readouterr().err
    assert (run / "average").exists()
    assert trainer.history[-1]["average_loss"] == -1.0


@pytest.mark.parametrize(
    "make_other",
    [
        lambda: (make_model(), keras.optimizers.Adam(0.05)),
        lambda: (make_model(encoder=PlainEncoder(), decoder=plain_decoder()), keras.optimizers.Adam(0.05)),
        lambda: (make_model(encoder=PlainEncoder(), decoder=plain_decoder()), keras.optimizers.SGD(0.05)),
    ],
    ids=["model", "groups", "optimizer"],
)
def test_another_model_or_optimizer(run, make_other):
    before = contents(run)
    model, optimizer = make_other()
    with pytest.raises(
        ValueError, match=r"checkpoint .*ckpt-2 is of another model, optimizer or version: .* another run directory"
    ):
        fit(s2s.Trainer(model, optimizer, run=run), make_batches(model))
    assert contents(run) == before


def test_a_model_of_another_shape(tmp_path):
    def fit_with(units):
        encoder, _ = make_layers(units=units)
        model = make_model(encoder=encoder, decoder=TinyDecoder(units, dtype="float64"))
        fit(s2s.Trainer(model, keras.optimizers.SGD(0.1), run=tmp_path), make_batches(model), steps=1)

    fit_with(4)
    with pytest.raises(ValueError, match="is of another model, optimizer or version"):
        fit_with(6)


def fit_until(run, steps, rate=0.05, **options):
    model = make_model()
    trainer = s2s.Trainer(model, keras.optimizers.SGD(rate), run=run)
    trainer.fit(make_batches(model), steps=steps, progress=False, **options)
    return trainer


def test_figures_go_on_from_where_they_were(tmp_path):
    """An entry of the history is of all steps since the one before, those of the session that was stopped too."""
    whole = measured(fit_until(tmp_path / "whole", STEPS, log_every=4).history)
    fit_until(tmp_path / "stopped", 3, log_every=4)
    assert measured(fit_until(tmp_path / "stopped", STEPS, log_every=4).history) == whole
    assert len(whole) == 2


def test_a_changed_learning_rate_holds_from_then_on(tmp_path, capsys):
    fit_until(tmp_path, 2)
    model = make_model()
    trainer = s2s.Trainer(model, keras.optimizers.SGD(0.5), run=tmp_path, clip_norm=3.0)
    trainer.fit(make_batches(model), steps=4, log_every=1)
    assert "changed in this run: clip_norm, shared: learning_rate" in capsys.readouterr().err
    assert [entry["learning_rate"] for entry in trainer.history[-2:]] == [0.5, 0.5]


def test_a_learning_rate_that_a_callback_changed_goes_on(tmp_path):
    class Slower(s2s.Callback):
        def on_step(self, trainer, result):
            optimizer.learning_rate = 0.01

    model, optimizer = make_model(), keras.optimizers.SGD(0.05)
    trainer = s2s.Trainer(model, optimizer, run=tmp_path)
    trainer.fit(make_batches(model), steps=2, callbacks=[Slower()], progress=False)
    assert fit_until(tmp_path, 4, log_every=1).history[-1]["learning_rate"] == pytest.approx(0.01)
