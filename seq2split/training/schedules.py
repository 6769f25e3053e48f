"""Learning rates that change with the step."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice

DECAYS = ("constant", "inverse_sqrt", "cosine", "linear")


@keras.saving.register_keras_serializable(package="seq2split")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to a peak, and a decay from there.

    Args:
        peak: The highest learning rate.
        warmup_steps: The steps of the rise.
        decay: `constant`; `inverse_sqrt`, which falls with the root of the step (Vaswani et al., 2017,
            https://arxiv.org/abs/1706.03762, section 5.3); `cosine` or `linear`, which fall to zero at `total_steps`.
        total_steps: The steps of the training.

    Raises:
        ValueError: There is no such decay.

    Example:
        >>> schedule = WarmupSchedule(0.5, warmup_steps=10, decay="linear", total_steps=110)
        >>> [round(float(schedule(step)), 3) for step in (0, 9, 10, 60, 110)]
        [0.05, 0.5, 0.5, 0.25, 0.0]
    """

    def __init__(self, peak: float, warmup_steps: int, decay: str, total_steps: int):
        check_choice("decay", decay, DECAYS)
        self.peak, self.warmup_steps, self.decay, self.total_steps = peak, warmup_steps, decay, total_steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Return the learning rate of a step, counted from 0."""
        step = tf.cast(step, tf.float32)
        warm = float(max(1, self.warmup_steps))
        rest = tf.clip_by_value((step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps), 0.0, 1.0)
        decays = {
            "constant": lambda: 1.0,
            "inverse_sqrt": lambda: tf.sqrt(warm / tf.maximum(step, warm)),
            "cosine": lambda: 0.5 * (1.0 + tf.cos(math.pi * rest)),
            "linear": lambda: 1.0 - rest,
        }
        rise = tf.minimum(1.0, (step + 1.0) / warm)
        return self.peak * rise * decays[self.decay]()

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, for Keras."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "decay": self.decay,
            "total_steps": self.total_steps,
        }
