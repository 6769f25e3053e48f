"""The objects that a configuration describes: optimizers with their schedules and rules."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from seq2split.config import OptimizerConfig
from seq2split.training import UpdateRule, WarmupSchedule

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "adagrad": keras.optimizers.Adagrad,
    "rmsprop": keras.optimizers.RMSprop,
}


def make_update_rules(
    config: OptimizerConfig, parts: Sequence[str], total_steps: int
) -> tuple[UpdateRule, dict[str, UpdateRule]]:
    """Return the update rules of a configuration, as `Trainer` takes them.

    Args:
        config: The `[optimizer]` table.
        parts: The names of the model's parts.
        total_steps: The steps of the training, which end some schedules.

    Returns:
        The rule of all variables that have none of their own, and those of parts and of groups by name.

    Example:
        >>> shared, own = make_update_rules(OptimizerConfig(encoder=OptimizerConfig(name="sgd")), ["encoder"], 100)
        >>> type(shared.optimizer).__name__, type(own["encoder"].optimizer).__name__
        ('Adam', 'SGD')
    """
    tables = {part: table for part in parts if (table := getattr(config, part, None)) is not None} | config.groups
    return _rule(config, total_steps), {name: _rule(table, total_steps) for name, table in tables.items()}


def _rule(config: OptimizerConfig, total_steps: int) -> UpdateRule:
    steps = range(config.first_step, (config.last_step or total_steps) + 1, config.every)
    schedule = WarmupSchedule(config.learning_rate, config.warmup_steps, config.schedule, len(steps))
    optimizer = OPTIMIZERS[config.name](schedule, weight_decay=config.weight_decay)
    return UpdateRule(
        optimizer,
        first_step=config.first_step,
        last_step=config.last_step or None,
        every=config.every,
        frozen=config.frozen,
    )
