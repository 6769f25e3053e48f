"""How gradients move the variables: clipping over all parts, learning-rate schedules, Keras optimizers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from seq2split.config import OptimizerConfig

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "adagrad": keras.optimizers.Adagrad,
    "rmsprop": keras.optimizers.RMSprop,
}


class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to a peak, and a course from there.

    Args:
        peak: The highest learning rate.
        warmup_steps: Steps of the rise.
        course: `constant`; `inverse_sqrt`, which falls with the root of the step (Vaswani et al., 2017,
            https://arxiv.org/abs/1706.03762, section 5.3); `cosine` or `linear`, which fall to zero at `total_steps`.
        total_steps: Steps of the training.

    Example:
        >>> schedule = WarmupSchedule(0.5, warmup_steps=10, course="linear", total_steps=110)
        >>> [round(float(schedule(step)), 3) for step in (0, 9, 10, 60, 110)]
        [0.05, 0.5, 0.5, 0.25, 0.0]
    """

    def __init__(self, peak: float, warmup_steps: int, course: str, total_steps: int):
        self.peak, self.warmup_steps, self.course, self.total_steps = peak, warmup_steps, course, total_steps

    def __call__(self, step: Any) -> tf.Tensor:
        """The learning rate of a step, counted from 0."""
        step = tf.cast(step, tf.float32)
        warm = float(max(1, self.warmup_steps))
        rest = tf.clip_by_value((step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps), 0.0, 1.0)
        courses = {
            "constant": lambda: 1.0,
            "inverse_sqrt": lambda: tf.sqrt(warm / tf.maximum(step, warm)),
            "cosine": lambda: 0.5 * (1.0 + tf.cos(math.pi * rest)),
            "linear": lambda: 1.0 - rest,
        }
        rise = tf.minimum(1.0, (step + 1.0) / warm)
        return self.peak * rise * courses[self.course]()

    def get_config(self) -> dict[str, Any]:
        """The arguments, for Keras."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "course": self.course,
            "total_steps": self.total_steps,
        }


class Updater:
    """Clips the gradients of all parts together and applies them.

    Args:
        variables: For each part its trainable variables.
        config: The optimizer of every part, but those that it names one of their own for.
        clip_norm: The global norm over all parts that gradients are scaled down to; 0 for no clipping.
        total_steps: Steps of the training, which end some schedules.

    Attributes:
        optimizers: By part; `shared` is that of the parts that have none of their own.
    """

    def __init__(self, variables: Mapping[str, list], config: OptimizerConfig, *, clip_norm: float, total_steps: int):
        own = {part: getattr(config, part, None) for part in variables}
        owners = {part: part if own[part] else "shared" for part in variables}
        self._parts = list(variables)
        self._clip_norm = clip_norm
        self._targets = {
            owner: [variable for part in self._parts if owners[part] == owner for variable in variables[part]]
            for owner in dict.fromkeys(owners.values())
        }
        self._owners = [owners[part] for part in self._parts for _ in variables[part]]
        self.optimizers = {owner: _optimizer(own.get(owner) or config, total_steps) for owner in self._targets}
        for owner, optimizer in self.optimizers.items():
            optimizer.build(self._targets[owner])
        self._apply = tf.function(self._clip_and_apply, autograph=False, jit_compile=True)

    @property
    def learning_rate(self) -> float:
        """That of the first optimizer now."""
        return float(next(iter(self.optimizers.values())).learning_rate)

    def __call__(self, gradients: Mapping[str, list]) -> tf.Tensor:
        """Applies gradients.

        Args:
            gradients: For each part one for each variable; `None` leaves a variable where it is.

        Returns:
            Their global norm before clipping, a scalar. If it is not finite, the variables are lost.
        """
        flat = [gradient for part in self._parts for gradient in gradients[part]]
        return self._apply([gradient if gradient is None else tf.convert_to_tensor(gradient) for gradient in flat])

    def _clip_and_apply(self, gradients: list[tf.Tensor | None]) -> tf.Tensor:
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, use_norm=norm)
        for owner, optimizer in self.optimizers.items():
            own = [gradient for gradient, of in zip(gradients, self._owners, strict=True) if of == owner]
            pairs = [pair for pair in zip(own, self._targets[owner], strict=True) if pair[0] is not None]
            if pairs:
                optimizer.apply_gradients(pairs)
        return norm


def _optimizer(config: OptimizerConfig, total_steps: int) -> keras.optimizers.Optimizer:
    schedule = WarmupSchedule(config.learning_rate, config.warmup_steps, config.schedule, total_steps)
    none = 0.0 if config.name == "adamw" else None  # Keras insists on a number there
    return OPTIMIZERS[config.name](schedule, weight_decay=config.weight_decay or none)
