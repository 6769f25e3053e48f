"""How gradients move the variables: clipping over all parts, learning-rate schedules, Keras optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

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

    The variables are dealt out over threads, so that each moves as many numbers as any other; what moves those of one
    thread is compiled into passes that read and write each number once.

    Args:
        variables: For each part its trainable variables.
        config: The optimizer of every part, but those that it names one of their own for.
        clip_norm: The global norm over all parts that gradients are scaled down to; 0 for no clipping.
        total_steps: Steps of the training, which end some schedules.
        threads: How many threads share the work; as of `SplitModel`.

    Attributes:
        optimizers: By part; `shared` is that of the parts that have none of their own.
    """

    def __init__(
        self,
        variables: Mapping[str, list],
        config: OptimizerConfig,
        *,
        clip_norm: float,
        total_steps: int,
        threads: int = 1,
    ):
        configs = {part: getattr(config, part, None) for part in variables}
        owners = {part: part if configs[part] else "shared" for part in variables}
        self._clip_norm = clip_norm
        self._parts = list(variables)
        self._targets = [
            _Target(variable, owners[part], (configs[part] or config).weight_decay)
            for part in self._parts
            for variable in variables[part]
        ]
        self.optimizers = {
            owner: _optimizer(configs.get(owner) or config, total_steps) for owner in dict.fromkeys(owners.values())
        }
        for owner, optimizer in self.optimizers.items():
            optimizer.build([target.variable for target in self._targets if target.owner == owner])
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._moves = [
            (share, tf.function(partial(self._move, share), autograph=False, jit_compile=True))
            for share in _deal([math.prod(target.variable.shape) for target in self._targets], threads)
        ]

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
        flat = list(self._map(lambda each: each if each is None else tf.convert_to_tensor(each), flat))
        present = [gradient for gradient in flat if gradient is not None]
        norm = tf.sqrt(2.0 * tf.add_n(list(self._map(tf.nn.l2_loss, present))))
        scale = self._clip_norm / tf.maximum(norm, self._clip_norm) if self._clip_norm else tf.ones_like(norm)
        list(self._map(lambda move: move[1]([flat[index] for index in move[0]], scale), self._moves))
        moved = {target.owner for target, each in zip(self._targets, flat, strict=True) if each is not None}
        for owner in moved:
            self.optimizers[owner].iterations.assign_add(1)
        return norm

    @property
    def _map(self) -> Callable:
        return self._pool.map if self._pool else map

    def _move(self, share: list[int], gradients: list[tf.Tensor | None], scale: tf.Tensor) -> None:
        """Moves the variables of one thread; what `apply_gradients` does but for the count of steps."""
        for index, gradient in zip(share, gradients, strict=True):
            target = self._targets[index]
            optimizer = self.optimizers[target.owner]
            rate = tf.cast(optimizer.learning_rate, target.variable.dtype)
            if gradient is not None:
                if target.decay:
                    target.variable.assign_sub(target.variable * (target.decay * rate))
                optimizer.update_step(gradient * tf.cast(scale, gradient.dtype), target.variable, rate)


class _Target(NamedTuple):
    """A variable, the key of its optimizer, and the share of it that decays in a step, before the learning rate."""

    variable: keras.Variable
    owner: str
    decay: float


def _deal(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The indices of `sizes` in up to `count` shares of about one sum, the largest dealt first."""
    shares: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    loads = [0] * len(shares)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        lightest = loads.index(min(loads))
        shares[lightest].append(index)
        loads[lightest] += sizes[index]
    return shares


def _optimizer(config: OptimizerConfig, total_steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a configuration, without the weight decay, which is `Updater`'s."""
    schedule = WarmupSchedule(config.learning_rate, config.warmup_steps, config.schedule, total_steps)
    none = {"weight_decay": 0.0} if config.name == "adamw" else {}  # Keras insists on a number there
    return OPTIMIZERS[config.name](schedule, **none)
