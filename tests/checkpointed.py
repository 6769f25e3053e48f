"""A tiny training with checkpoints, and what may happen to their files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import keras
import tensorflow as tf

from seq2split.runs.checkpoint_folder import CheckpointFolder
from seq2split.runs.checkpoints import Checkpoints
from seq2split.runs.directory import RunDirectory
from seq2split.runs.progress import Progress


class Training:
    """Variables of two parts, an optimizer and a place, with their checkpoints in a directory."""

    def __init__(self, path, size=3, applied=nullcontext):
        self.run, self.progress = RunDirectory(path), Progress()
        self.parts = {name: [tf.Variable(tf.zeros([size]), name="kernel")] for name in ("encoder", "decoder")}
        self.optimizer = keras.optimizers.Adam(0.1)
        self.optimizer.build(self.variables)
        optimizers = {"": self.optimizer}
        self.checkpoints = Checkpoints(self.run, self.progress, self.parts, optimizers, applied=applied)

    @property
    def variables(self):
        return [variable for each in self.parts.values() for variable in each]

    def step(self, count=1):
        for _ in range(count):
            self.optimizer.apply([tf.ones_like(each) for each in self.variables], self.variables)
            self.progress.advance(epoch=1, index=2, tokens=3, seconds=0.5)
        return self

    def values(self):
        return [each.numpy().tolist() for each in [*self.variables, *self.optimizer.variables, self.progress.step]]


def make_run(path):
    """Return a run with checkpoints of steps 2, 4 and 6, of which 4 is the best."""
    training = Training(path)
    for step in (2, 4, 6):
        training.step(2)
        is_best = training.progress.judge(-abs(step - 4.0))
        training.checkpoints.save(2)
        if is_best:
            training.checkpoints.save_best()
    assert steps_in(training.run.latest) == [2, 4, 6]
    return training.run


def steps_in(folder):
    return CheckpointFolder(folder).steps()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HARMS = {"flipped": flip, "cut": lambda path: path.write_bytes(path.read_bytes()[:10]), "deleted": Path.unlink}


def restored(run):
    training = Training(run.path)
    return training, "\n".join(training.checkpoints.restore())
