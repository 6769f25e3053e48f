"""Configurations for tests, and what is wrong with those that are refused."""

from pathlib import Path

import pytest

from seq2split.config import Config, ConfigError, DataConfig, load

DEFAULT = Path(__file__).parents[1] / "data" / "default.toml"
DATA = """
[data]
train_source = "train.en"
train_target = "train.de"
valid_source = ["valid.en"]
valid_target = ["valid.de"]
"""


def problems_of(path, overrides=()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def only_problem_of(path, overrides=()) -> str:
    problems = problems_of(path, overrides)
    assert len(problems) == 1, problems
    return problems[0]


def config_with(**tables) -> Config:
    data = DataConfig(train_source=("/a",), train_target=("/b",), valid_source=("/c",), valid_target=("/d",))
    return Config(**{"data": data, **tables})
