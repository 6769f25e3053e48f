"""What is written reads back equal, and differences are named."""

import dataclasses
import os
import re
from typing import get_type_hints

import pytest
from configurations import DEFAULT, config_with
from hypothesis import given
from hypothesis import strategies as st

from seq2split.config import (
    BatchesConfig,
    BucketsConfig,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainingConfig,
    VocabularyConfig,
    differences,
    dumps,
    load,
)


def numbers(**bounds):
    return st.floats(**bounds, allow_nan=False, allow_infinity=False)


counts = st.integers(1, 2**63 - 1)
paths = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1).map(
    lambda name: os.path.abspath(f"/x/{name}")
)
lengths = counts | st.sets(counts, min_size=1).map(lambda values: tuple(sorted(values)))
optimizers = st.builds(
    OptimizerConfig,
    learning_rate=numbers(min_value=0, exclude_min=True),
    warmup_steps=st.integers(0, 2**63 - 1),
    weight_decay=numbers(min_value=0),
    frozen=st.booleans(),
    first_step=counts,
    every=counts,
    encoder=st.none(),
    encoder2=st.none(),
    decoder=st.none(),
    groups=st.just({}),
)
configs = st.builds(
    Config,
    seed=st.integers(0, 2**32 - 1),
    data=st.lists(paths, min_size=1).map(
        lambda files: DataConfig(**dict.fromkeys(get_type_hints(DataConfig).keys() - {"overlong"}, tuple(files)))
    ),
    vocabulary=st.builds(
        VocabularyConfig,
        joint=st.just(False),
        size=counts,
        source_model=paths,
        source2_model=paths,
        target_model=paths,
    ),
    buckets=st.builds(BucketsConfig, source=lengths, target=lengths),
    batches=st.builds(BatchesConfig, tokens=counts),
    model=st.builds(
        ModelConfig,
        embedding=counts,
        units=counts,
        encoder_layers=counts,
        decoder_layers=counts,
        dropout=numbers(min_value=0, max_value=1, exclude_max=True),
        label_smoothing=numbers(min_value=0, max_value=1, exclude_max=True),
        tied_embeddings=st.just(False),
    ),
    optimizer=st.builds(
        dataclasses.replace,
        optimizers,
        encoder=st.none() | optimizers,
        encoder2=st.none() | optimizers,
        decoder=st.none() | optimizers,
        groups=st.dictionaries(st.text().map(re.escape), optimizers, max_size=3),
    ),
    training=st.builds(
        TrainingConfig,
        clip_norm=numbers(min_value=0),
        build_ahead=st.booleans(),
        steps=counts,
        criterion=st.just("loss"),
    ),
    search=st.builds(
        SearchConfig,
        beam=counts,
        length_penalty=numbers(min_value=0),
        coverage=numbers(min_value=0),
        min_length_ratio=numbers(min_value=0),
    ),
)


@given(config=configs)
def test_what_is_written_reads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(dumps(config), encoding="utf-8")
    read = load(path)
    assert read == config
    assert differences(read, config) == []


def test_the_default_reads_back_equal(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(dumps(load(DEFAULT)))
    assert load(path) == load(DEFAULT)


def test_a_string_that_toml_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match=r"'/\\udcff': expected valid Unicode text"):
        dumps(config_with(vocabulary=VocabularyConfig(source_model="/\udcff")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"seed": 2}, ["seed"]),
        ({"training": TrainingConfig(steps=3), "model": ModelConfig(units=3)}, ["model.units", "training.steps"]),
        ({"optimizer": OptimizerConfig(encoder=OptimizerConfig())}, ["optimizer.encoder"]),
        ({"optimizer": OptimizerConfig(groups={"a.*": OptimizerConfig()})}, ['optimizer.groups."a.*"']),
    ],
)
def test_differences_are_dotted_keys(change, expected):
    assert differences(config_with(), config_with(**change)) == expected
    assert differences(config_with(**change), config_with()) == expected


def test_differences_reach_into_sub_tables():
    ours = config_with(optimizer=OptimizerConfig(encoder=OptimizerConfig(name="sgd")))
    theirs = config_with(optimizer=OptimizerConfig(encoder=OptimizerConfig(learning_rate=1.0)))
    assert differences(ours, theirs) == ["optimizer.encoder.name", "optimizer.encoder.learning_rate"]
    ours, theirs = (
        config_with(optimizer=OptimizerConfig(groups={"a": OptimizerConfig(every=each), "b.": OptimizerConfig()}))
        for each in (2, 3)
    )
    assert differences(ours, theirs) == ["optimizer.groups.a.every"]
