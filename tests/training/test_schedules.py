"""Schedules against their formulas."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from seq2split.training import WarmupSchedule
from seq2split.training.schedules import DECAYS

PEAK, TOTAL = 0.3, 200
STEPS = (0, 1, 8, 9, 10, 11, 50, 105, 199, 200, 500)


def fall(decay, step, warmup):
    """Return the share of the peak after the rise, as one would write it by hand."""
    done = min(1.0, max(0.0, (step - warmup) / (TOTAL - warmup)))
    after = max(step, warmup, 1)
    return {
        "constant": 1.0,
        "inverse_sqrt": math.sqrt(max(warmup, 1)) / math.sqrt(after),
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
    }[decay]


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("decay", DECAYS)
def test_schedule(decay, warmup):
    schedule = WarmupSchedule(PEAK, warmup, decay, TOTAL)
    found = [float(schedule(step)) for step in STEPS]
    expected = [PEAK * min(1.0, (step + 1) / max(1, warmup)) * fall(decay, step, warmup) for step in STEPS]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
    assert max(found) <= PEAK * (1 + 1e-6)
    assert found[0] > 0


@pytest.mark.parametrize("decay", DECAYS)
def test_schedule_when_warmup_outlasts_the_training(decay):
    schedule = WarmupSchedule(PEAK, 10, decay, 5)
    rates = [float(schedule(step)) for step in range(5)]
    np.testing.assert_allclose(rates, [PEAK * (step + 1) / 10 for step in range(5)], rtol=1e-6)


@pytest.mark.parametrize("decay", DECAYS)
def test_schedule_from_config(decay):
    schedule = WarmupSchedule(PEAK, 3, decay, TOTAL)
    again = WarmupSchedule.from_config(schedule.get_config())
    assert [float(again(step)) for step in STEPS] == [float(schedule(step)) for step in STEPS]


def test_keras_saves_it_with_an_optimizer():
    optimizer = keras.optimizers.Adam(WarmupSchedule(PEAK, 3, "cosine", TOTAL))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert float(again.learning_rate) == float(optimizer.learning_rate) == pytest.approx(PEAK / 3)


def test_no_such_decay():
    with pytest.raises(ValueError, match=r"decay.*'cosinus'.*cosine"):
        WarmupSchedule(PEAK, 3, "cosinus", TOTAL)
