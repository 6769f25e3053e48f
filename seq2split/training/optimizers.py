"""How gradients move the variables: clipping over all parts, learning-rate schedules, Keras optimizers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from seq2split.config import OptimizerConfig
from seq2split.split.gradients import add_up

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
        variables: For each part its trainable variables. One that stands in several parts belongs to the first.
        config: The optimizer of every variable, but those that it names one of their own for: by a regular expression
            that matches the whole path of the variable, such as `encoder/.*`, or else by part.
        clip_norm: The global norm over all variables that gradients are scaled down to; 0 for no clipping.
        total_steps: Steps of the training, which end some schedules.
        threads: How many threads share the work; as of `SplitModel`.

    Attributes:
        optimizers: By part or regular expression; `shared` is that of the variables that have none of their own.

    Raises:
        ValueError: A regular expression matches no variable, or none that another before it doesn't match.
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
        own = {part: each for part in variables if isinstance(each := getattr(config, part, None), OptimizerConfig)}
        configs = {"shared": config, **own, **config.groups}
        self._clip_norm = clip_norm
        self._targets: list[_Target] = []
        self._places: dict[str, list[int]] = {}
        known: dict[int, int] = {}
        for part, each in variables.items():
            for variable in each:
                if known.setdefault(id(variable), len(self._targets)) == len(self._targets):
                    owner = _owner(variable, part, configs)
                    self._targets.append(_Target(variable, owner, configs[owner].weight_decay))
            self._places[part] = [known[id(variable)] for variable in each]
        _check_groups(config.groups, self._targets)
        owners = dict.fromkeys(target.owner for target in self._targets)
        self._steps = {owner: _steps(configs[owner], total_steps) for owner in owners}
        self.optimizers = {owner: _optimizer(configs[owner], len(self._steps[owner])) for owner in owners}
        for owner, optimizer in self.optimizers.items():
            optimizer.build([target.variable for target in self._targets if target.owner == owner])
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._moves = [
            (share, tf.function(partial(self._move, share), autograph=False, jit_compile=True))
            for share in _deal([math.prod(target.variable.shape) for target in self._targets], threads)
        ]

    @property
    def variables(self) -> list:
        """Those of all parts, each once."""
        return [target.variable for target in self._targets]

    @property
    def learning_rates(self) -> dict[str, float]:
        """That of each optimizer now."""
        return {owner: float(optimizer.learning_rate) for owner, optimizer in self.optimizers.items()}

    def frozen(self, step: int) -> list[str]:
        """The parts of which a step updates nothing.

        Args:
            step: Of the training, counted from 1.
        """
        moving = {owner for owner, steps in self._steps.items() if step in steps}
        owners = {part: {self._targets[place].owner for place in places} for part, places in self._places.items()}
        return [part for part, each in owners.items() if not each & moving]

    def __call__(self, gradients: Mapping[str, list], step: int) -> tf.Tensor:
        """Applies gradients.

        Args:
            gradients: For each part one for each variable; `None` leaves a variable where it is.
            step: Of the training, counted from 1; it decides which variables move.

        Returns:
            The global norm of those that are applied, before clipping, a scalar. If it is not finite, the variables are
            lost.
        """
        flat = list(self._map(_total, self._addends(gradients, step)))
        present = [gradient for gradient in flat if gradient is not None]
        squares = list(self._map(tf.nn.l2_loss, present)) or [tf.zeros([])]
        norm = tf.sqrt(2.0 * tf.add_n(squares))
        scale = self._clip_norm / tf.maximum(norm, self._clip_norm) if self._clip_norm else tf.ones_like(norm)
        list(self._map(lambda move: move[1]([flat[index] for index in move[0]], scale), self._moves))
        moved = {target.owner for target, each in zip(self._targets, flat, strict=True) if each is not None}
        for owner in moved:
            self.optimizers[owner].iterations.assign_add(1)
        return norm

    def _addends(self, gradients: Mapping[str, list], step: int) -> list[list]:
        """For each variable its gradients, from all parts that it stands in, if the step updates it."""
        addends: list[list] = [[] for _ in self._targets]
        for part, places in self._places.items():
            for place, gradient in zip(places, gradients[part], strict=True):
                if step in self._steps[self._targets[place].owner]:
                    addends[place].append(gradient)
        return addends

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


def _owner(variable: Any, part: str, configs: Mapping[str, OptimizerConfig]) -> str:
    """The key of a variable's optimizer: the first group that matches it, or its part's, or the shared one."""
    groups = configs["shared"].groups
    matching = (pattern for pattern in groups if re.fullmatch(pattern, _path(variable)))
    return next(matching, part if part in configs else "shared")


def _path(variable: Any) -> str:
    return getattr(variable, "path", variable.name.removesuffix(":0"))


def _check_groups(groups: Mapping[str, OptimizerConfig], targets: Sequence[_Target]) -> None:
    owners = {target.owner for target in targets}
    for pattern in groups:
        if pattern not in owners:
            paths = ", ".join(_path(target.variable) for target in targets)
            raise ValueError(
                f"optimizer.groups has {pattern!r}, which matches the whole path of no variable, or of none that a "
                f"group before it doesn't match. The paths are {paths}."
            )


def _steps(config: OptimizerConfig, total_steps: int) -> range:
    """The training steps, counted from 1, in which an optimizer updates."""
    return range(0) if config.frozen else range(config.first_step, (config.last_step or total_steps) + 1, config.every)


def _total(addends: list) -> tf.Tensor | None:
    total = add_up(addends)
    return total if total is None else tf.convert_to_tensor(total)


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
