"""Settings that do nothing because of other settings, which a user should hear of before hours of training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from seq2split.config.schema import defaults_of, keys_by_table, table_class
from seq2split.config.settings import Config


@dataclass(frozen=True)
class Idle:
    """A condition under which settings do nothing.

    Attributes:
        keys: The dotted keys.
        holds: A function of the configuration: True if they do nothing.
        reason: The reason, as messages write it.
    """

    keys: tuple[str, ...]
    holds: Callable[[Config], bool]
    reason: str


def _only(architecture: str, *keys: str) -> Idle:
    return Idle(
        tuple(f"model.{key}" for key in keys),
        lambda config: config.model.is_built_in and config.model.architecture != architecture,
        f'only model.architecture = "{architecture}" reads it',
    )


def _trains_no_vocabulary(config: Config) -> bool:
    given, sides = config.vocabulary, config.sides
    return bool(given.source_model) if given.joint else all(getattr(given, f"{side}_model") for side in sides)


IDLE = (
    Idle(
        ("optimizer.encoder2", "buckets.source2", "vocabulary.source2_model"),
        lambda config: not config.data.train_source2,
        "there is no second source, data.train_source2",
    ),
    _only("recurrent", "cell", "bidirectional", "attention", "unroll"),
    _only("transformer", "heads", "feedforward", "norm", "positions", "attention_dropout", "activation_dropout"),
    Idle(
        ("vocabulary.size", "vocabulary.algorithm", "vocabulary.character_coverage"),
        _trains_no_vocabulary,
        "no vocabulary is trained, since models are given",
    ),
    Idle(
        ("training.average_of",),
        lambda config: not config.training.average,
        "training.average is 0, so no models are averaged",
    ),
)


def idle_settings(config: Config, overrides: Iterable[str] = ()) -> list[str]:
    """Say which settings do nothing: those that are others than the defaults, or that an override gives.

    Args:
        config: The configuration.
        overrides: What was given with `--set`, `table.key=value` each.

    Returns:
        A sentence for each.

    Example:
        >>> from seq2split.config.settings import DataConfig, ModelConfig
        >>> data = DataConfig(train_source=("a",), train_target=("b",), valid_source=("c",), valid_target=("d",))
        >>> idle_settings(Config(data=data, model=ModelConfig(heads=8)))
        ['model.heads does nothing: only model.architecture = "transformer" reads it.']
    """
    named = [override.partition("=")[0].strip() for override in overrides]
    return [
        f"{key} does nothing: {idle.reason}."
        for idle in IDLE
        if idle.holds(config)
        for key in idle.keys
        if any(name == key or name.startswith(f"{key}.") for name in named) or _value(config, key) != _default(key)
    ]


def _value(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)


def _default(key: str) -> Any:
    table, _, name = key.rpartition(".")
    cls, _ = table_class(keys_by_table()[""][table])
    return defaults_of(cls)[name]
