"""The figures of the last steps."""

from __future__ import annotations

import math

import pytest
import tensorflow as tf

from seq2split.corpus import Batch
from seq2split.split.results import BatchLosses
from seq2split.training.meter import Meter, perplexity

STEPS = [([(6, 8)], 3.0, 2.0), ([(3, 4), (9, 12)], 1.0, 6.0)]  # real and padded positions of each batch, loss, weight


@pytest.fixture
def meter(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))  # each look takes a second
    return Meter(0, 10, progress=False)


def count(meter, batches, loss, weight, **metrics):
    batches = [Batch(0, 0, 1, {}, tokens, positions) for tokens, positions in batches]
    metrics = {name: tf.constant(value) for name, value in metrics.items()}
    return meter.count(batches, BatchLosses(tf.constant(loss), metrics, {"decoder": weight}))


def test_window(meter):
    assert [count(meter, *step, nll=2.0) for step in STEPS] == [1.0, 1.0]
    expected = {
        "loss": (3.0 * 2 + 1.0 * 6) / 8,
        "nll": 2.0,
        "perplexity": math.exp(2.0),
        "tokens_per_second": 18 / 2,
        "padding": 1 - 18 / 24,
    }
    assert meter.window() == pytest.approx(expected)
    count(meter, *STEPS[0])
    assert meter.window() == pytest.approx({"loss": 3.0, "tokens_per_second": 6.0, "padding": 0.25})


def test_a_step_without_figures_counts_its_time(meter):
    """One that was left out: the others' figures are those of the window."""
    count(meter, *STEPS[0])
    meter.count([Batch(0, 0, 1, {}, 6, 8)], None)
    assert meter.window() == pytest.approx({"loss": 3.0, "tokens_per_second": 6.0, "padding": 0.25, "left_out": 1})
    meter.count([Batch(0, 0, 1, {}, 6, 8)], None)
    assert "loss" not in meter.window()
    count(meter, *STEPS[0])
    assert "left_out" not in meter.window()


def test_what_lies_between_steps_is_left_out(meter):
    count(meter, *STEPS[0])
    assert meter.skip() == 1.0
    count(meter, *STEPS[0])
    assert meter.window()["tokens_per_second"] == 12 / 2


def test_a_window_goes_on_in_another_session(meter):
    for step in STEPS:
        count(meter, *step, nll=2.0)
    second = Meter(0, 10, progress=False)
    second.resume(meter.state())
    assert second.window() == meter.window()


def test_a_window_goes_on_from_nothing(meter):
    meter.resume({})
    count(meter, *STEPS[0])
    assert meter.window()["loss"] == 3.0


@pytest.mark.parametrize("name", ["padding", "perplexity", "learning_rate"])
def test_a_metric_has_a_name_of_its_own(meter, name):
    with pytest.raises(ValueError, match=f"returns a metric '{name}', which is the name of another figure"):
        count(meter, *STEPS[0], **{name: 1.0})


def test_a_bar_tells_the_figures(capsys):
    with Meter(4, 10) as meter:
        count(meter, *STEPS[0], nll=0.0)
    shown = capsys.readouterr().err
    assert "5/10" in shown
    assert shown.endswith("\n")


@pytest.mark.parametrize("nll", [50.0, 1e9, math.inf])
def test_perplexity_of_a_lost_model(nll):
    assert perplexity(nll) == math.exp(50.0)
