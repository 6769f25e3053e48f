"""How far a run is, as variables that a checkpoint holds."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf


class Progress(tf.Module):
    """How far a run is. Its numbers are variables, so that a checkpoint holds them.

    Attributes:
        step: The training steps done, each one update.
        epoch: The epoch of the next batch, from 0.
        index: That batch's number in the epoch, from 0.
        tokens: The real positions trained on.
        seconds: The time spent in steps and validations, over all sessions.
        best: The figure of the best validation; its sign is such that higher is better.
        best_step: The step of that validation.
        stale: The number of validations since.
        window: The sums of the figures since the last entry of the history, and what tells a divergence, as JSON.
        settings: The settings of the training, what its batches are, and what its history was, as JSON.
    """

    def __init__(self):
        super().__init__()
        for name in ("step", "epoch", "index", "tokens", "best_step", "stale"):
            setattr(self, name, tf.Variable(0, dtype=tf.int64, trainable=False, name=name))
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="seconds")
        for name in ("window", "settings"):
            setattr(self, name, tf.Variable("{}", dtype=tf.string, trainable=False, name=name))
        self.best = tf.Variable(-math.inf, dtype=tf.float64, trainable=False, name="best")

    def advance(self, *, epoch: int, index: int, tokens: int, seconds: float) -> None:
        """Note an update.

        Args:
            epoch: The epoch of the next batch.
            index: The next batch's number in it.
            tokens: The real positions of the update.
            seconds: The seconds that it took.
        """
        self.step.assign_add(1)
        # As arrays: TensorFlow caches each Python number that it is given for ever, 0.7 kB each.
        self.tokens.assign_add(np.array(tokens))
        self.count_seconds(seconds)
        self.epoch.assign(np.array(epoch))
        self.index.assign(np.array(index))

    def count_seconds(self, seconds: float) -> None:
        """Note the seconds of an update or a validation."""
        self.seconds.assign_add(np.array(seconds))

    def judge(self, figure: float) -> bool:
        """Note a validation's figure, and return whether it is the best so far; one that isn't finite never is."""
        better = math.isfinite(figure) and figure > float(self.best)
        self.stale.assign(0 if better else self.stale + 1)
        if better:
            self.best.assign(np.array(figure))
            self.best_step.assign(self.step)
        return better

    def forget_best(self) -> None:
        """Let the next validation be the best so far: the model of the best one is lost."""
        self.best.assign(-math.inf)
        self.best_step.assign(0)

    def __str__(self) -> str:
        return f"{int(self.step)} steps are done, next is batch {int(self.index) + 1} of epoch {int(self.epoch) + 1}"
