"""A run that stops at any moment goes on as if it had not, whatever is trained and however."""

from __future__ import annotations

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
    with pytest.raises(ValueError, match=rf"{run} holds a training on other batches {named}.*another run directory"):
        fit(trainer, make_batches(trainer.model, rows, **options))
    assert contents(run) == before
    fit(*make(with_plain_variables, run), steps=3)


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
        ValueError, match=r"checkpoint .*ckpt-2 can't be read; it is damaged or of another model, optimizer or version"
    ):
        fit(s2s.Trainer(model, optimizer, run=run), make_batches(model))
    assert contents(run) == before


def test_a_model_of_another_shape(tmp_path):
    def fit_with(units):
        encoder, _ = make_layers(units=units)
        model = make_model(encoder=encoder, decoder=TinyDecoder(units, dtype="float64"))
        fit(s2s.Trainer(model, keras.optimizers.SGD(0.1), run=tmp_path), make_batches(model), steps=1)

    fit_with(4)
    with pytest.raises(ValueError, match="can't be read; it is damaged or of another model"):
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
