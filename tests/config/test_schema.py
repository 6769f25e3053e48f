"""Keys, their types and their defaults, from dataclasses alone."""

from __future__ import annotations

import dataclasses

import pytest
from configurations import config_with

from seq2split.config import Config, DataConfig, ModelConfig, OptimizerConfig
from seq2split.config.schema import (
    defaults_of,
    dotted,
    hints_of,
    is_table,
    items_of,
    keys_by_table,
    plain_items,
    table_class,
)


def test_tables_of_a_configuration():
    tables = keys_by_table()
    assert tables.keys() == {"", "data", "vocabulary", "buckets", "batches", "model", "optimizer", "training", "search"}
    assert tables["model"].keys() == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize(
    ("table", "key", "expected"),
    [
        (Config, "data", (DataConfig, False)),
        (OptimizerConfig, "encoder", (OptimizerConfig, True)),
        (Config, "seed", None),
        (OptimizerConfig, "groups", None),
    ],
)
def test_keys_that_are_tables(table, key, expected):
    assert table_class(hints_of(table)[key]) == expected


def test_hints_without_sub_tables():
    assert hints_of(Config).keys() - hints_of(Config, sub_tables=False).keys() >= {"data", "model", "optimizer"}
    assert "groups" not in hints_of(OptimizerConfig, sub_tables=False)


def test_items():
    config = config_with(seed=7)
    assert items_of(config)["seed"] == 7
    assert items_of({"a": 1}) == {"a": 1}
    assert plain_items(items_of(config)) == {"seed": 7, "precision": "float32"}
    assert [is_table(value) for value in (config.data, {}, 7, None)] == [True, True, False, False]


def test_required_keys_have_no_default():
    assert "train_source" not in defaults_of(DataConfig)
    assert defaults_of(OptimizerConfig)["groups"] == {}
    assert "seed" in defaults_of(Config)


def test_names_of_keys():
    assert [dotted("", "seed"), dotted("optimizer.encoder", "frozen")] == ["seed", "optimizer.encoder.frozen"]
