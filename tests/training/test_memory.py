"""Steps and validations leave nothing in the memory; `experiments/long_run.py` takes as many of them as one likes."""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys

import keras
import numpy as np
import pytest

import seq2split as s2s

PIECES, UNITS = 20, 4
_SIZES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class Mallinfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in _SIZES.split()]


def allocated():
    """Return the bytes that are allocated in this process, to the byte, where what is resident goes by pages."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    found = mallinfo()
    return found.uordblks + found.hblkhd


class Watch(s2s.Callback):
    """Notes what is allocated after each step or validation."""

    def __init__(self):
        self.steps, self.validations = [], []

    def on_step(self, trainer, result):
        if int(trainer.progress.step) % 25 == 0:
            self.steps.append(allocated())

    def on_validation(self, trainer, figures):
        self.validations.append(allocated())


@pytest.fixture(scope="module")
def model():
    encoder = s2s.Node(s2s.models.RecurrentEncoder(PIECES, UNITS, UNITS, name="encoder"), "source", s2s.Buckets([4]))
    decoder = s2s.models.RecurrentDecoder(PIECES, UNITS, 2, UNITS, UNITS, name="decoder")
    calls = itertools.count(1)

    def weight(fields):  # a new number for each batch
        return fields["target"].lengths.sum() * (1 + 1e-9 * next(calls))

    node = s2s.Node(decoder, [encoder, "target"], s2s.Buckets([4]), loss=True, weight=weight)
    return s2s.SplitModel([encoder, node])


def batches(model, count):
    draw = np.random.default_rng(count)
    rows = {side: [draw.integers(4, PIECES, draw.integers(1, 5)) for _ in range(count)] for side in model.fields}
    return s2s.Batches(rows, model, tokens=64, seed=1)


def growth(values):
    """Return the bytes by which what was noted grows from one to the next: the median, as some of it is noise."""
    return np.median(np.diff(values))


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_steps_and_validations_leave_nothing(model):
    """TensorFlow caches each Python number that it is given for ever, 0.7 kB each."""
    watch = Watch()
    trainer = s2s.Trainer(model, keras.optimizers.Adam(0.001), ema=0.9999, clip_norm=1.0)
    options = {"validation": batches(model, 8), "callbacks": [watch], "progress": False, "log_every": 10**6}
    trainer.fit(batches(model, 64), steps=150, validate_every=10**6, **options)
    assert growth(watch.steps[1:]) < 25 * 250  # bytes a step; a cached number takes 700
    trainer.fit(batches(model, 64), steps=165, validate_every=1, **options)
    assert growth(watch.validations[3:]) < 3000  # an entry of the history, and a step
