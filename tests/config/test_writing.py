"""What is written reads back equal, and differences are named."""

import dataclasses
import datetime
import os
import re
import tomllib
from typing import get_type_hints

import pytest
from configurations import DEFAULT, config_with, only_problem_of
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
    return st.floats(**{"max_value": 3e38} | bounds, allow_nan=False, allow_infinity=False)


counts = st.integers(1, 10**12)
sizes = st.integers(1, 2**20)
paths = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).map(
    lambda name: os.path.abspath(f"/x/{name}")
)
lengths = sizes | st.sets(sizes, min_size=1).map(lambda values: tuple(sorted(values)))
optimizers = st.builds(
    OptimizerConfig,
    learning_rate=numbers(min_value=0, exclude_min=True),
    warmup_steps=st.integers(0, 10**12),
    weight_decay=numbers(min_value=0),
    frozen=st.booleans(),
    first_step=counts,
    every=counts,
    encoder=st.none(),
    encoder2=st.none(),
    decoder=st.none(),
    groups=st.just({}),
)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers() | st.text() | st.dates()
options = st.dictionaries(
    st.text(),
    st.recursive(scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3)),
    max_size=3,
)
built_in_models = st.builds(
    ModelConfig,
    architecture=st.just("recurrent"),
    embedding=sizes,
    units=sizes,
    encoder_layers=st.integers(1, 1000),
    decoder_layers=st.integers(1, 1000),
    dropout=numbers(min_value=0, max_value=1, exclude_max=True),
    label_smoothing=numbers(min_value=0, max_value=1, exclude_max=True),
    tied_embeddings=st.just(False),
    options=st.just({}),
)
own_models = st.builds(lambda options: ModelConfig(architecture="/x/mine.py:make", options=options), options)
configs = st.builds(
    Config,
    seed=st.integers(0, 2**32 - 1),
    data=st.lists(paths, min_size=1).map(
        lambda files: DataConfig(**dict.fromkeys(get_type_hints(DataConfig).keys() - {"overlong"}, tuple(files)))
    ),
    vocabulary=st.builds(
        VocabularyConfig,
        joint=st.just(False),
        size=sizes,
        source_model=paths,
        source2_model=paths,
        target_model=paths,
    ),
    buckets=st.builds(BucketsConfig, source=lengths, target=lengths),
    batches=st.builds(BatchesConfig, tokens=sizes),
    model=built_in_models | own_models,
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
        beam=st.integers(1, 10_000),
        length_penalty=numbers(min_value=0, max_value=10),
        coverage=numbers(min_value=0, max_value=1000),
        min_length_ratio=numbers(min_value=0, max_value=1000),
    ),
)


@given(config=configs)
def test_what_is_written_reads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(dumps(config), encoding="utf-8")
    read = load(path)
    assert read == config
    assert differences(read, config) == []
    assert repr(read) == repr(config)  # which tells true from 1, and the order of free keys
    assert hash(read) == hash(config)


def test_keys_that_an_architecture_leaves_unread_are_written_only_if_they_were_changed(tmp_path):
    """So that none of them is lost in silence."""
    path = tmp_path / "run.toml"
    own = ModelConfig(architecture="/x/mine.py:make", options={"when": datetime.time(7, 32), "width": {"a": 1}})
    path.write_text(dumps(config_with(model=own)))
    written = tomllib.loads(path.read_text())["model"]
    assert written == {"architecture": own.architecture, "options": own.options}
    assert load(path).model == own
    path.write_text(dumps(config_with(model=dataclasses.replace(own, units=3))))
    assert "got model.units with model.architecture" in only_problem_of(path)


def test_the_default_reads_back_equal(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(dumps(load(DEFAULT)))
    assert load(path) == load(DEFAULT)


def test_differences_reach_into_options():
    ours, theirs = (
        config_with(model=ModelConfig(architecture="a:b", options={"same": [1], "deep": {"width": width, "depth": 2}}))
        for width in (3, 4)
    )
    assert differences(ours, theirs) == ["model.options.deep.width"]


def test_a_string_that_toml_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match=r'^source_model = "/\\udcff": expected valid Unicode text'):
        dumps(config_with(vocabulary=VocabularyConfig(source_model="/\udcff")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"seed": 2}, ["seed"]),
        ({"training": TrainingConfig(steps=3), "model": ModelConfig(units=3)}, ["model.units", "training.steps"]),
        ({"optimizer": OptimizerConfig(encoder=OptimizerConfig())}, ["optimizer.encoder"]),
        ({"model": ModelConfig(options={"a b": 3})}, ['model.options."a b"']),
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
