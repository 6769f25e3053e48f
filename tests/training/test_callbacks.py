"""Callbacks: called at the documented moments, in order, with the trainer."""

from __future__ import annotations

import keras
from tiny_models import make_batches, make_model

import seq2split as s2s


class Recorder(s2s.Callback):
    def __init__(self):
        self.moments = []

    def on_step(self, trainer, result):
        assert isinstance(result, s2s.LossAndGradients)
        self._note(trainer, "step")

    def on_validation(self, trainer, figures):
        self._note(trainer, f"validation {figures['score']:g}")

    def on_checkpoint(self, trainer, path):
        assert path.endswith(f"ckpt-{int(trainer.progress.step)}")
        self._note(trainer, "checkpoint")

    def on_end(self, trainer):
        self._note(trainer, "end")

    def _note(self, trainer, moment):
        assert isinstance(trainer, s2s.Trainer)
        assert trainer.history is not None
        self.moments.append(f"{int(trainer.progress.step)} {moment}")


def recorded(run, steps=4, **options):
    model, recorder, scores = make_model(), Recorder(), iter((3.0, 4.0))
    trainer = s2s.Trainer(model, keras.optimizers.SGD(0.1), run=run)
    options = {"validation": lambda _: next(scores), "validate_every": 2, "monitor": "score"} | options
    trainer.fit(make_batches(model), steps=steps, callbacks=[s2s.Callback(), recorder], progress=False, **options)
    return recorder.moments


def test_moments(tmp_path):
    """A step, then its validation, then its checkpoint; the end after all."""
    assert recorded(tmp_path, checkpoint_every=3) == [
        "1 step",
        "2 step",
        "2 validation 3",
        "2 checkpoint",
        "3 step",
        "3 checkpoint",
        "4 step",
        "4 validation 4",
        "4 checkpoint",
        "4 end",
    ]
    assert recorded(tmp_path) == ["4 end"], "finished before"


def test_moments_without_a_run_directory():
    """No checkpoints are written."""
    assert recorded(None, steps=2) == ["1 step", "2 step", "2 validation 3", "2 end"]
