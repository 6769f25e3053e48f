"""Settings that do nothing."""

import dataclasses

import pytest
from configurations import DEFAULT

from seq2split.config import idle_settings, load
from seq2split.config.idle import IDLE

SECOND = ["data.train_source2=a", "data.valid_source2=b"]


def keys_told(overrides):
    return [sentence.partition(" ")[0] for sentence in idle_settings(load(DEFAULT, overrides), overrides)]


def test_the_example_has_none():
    assert keys_told([]) == []


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["optimizer.encoder2.name=sgd"], ["optimizer.encoder2"]),
        (["buckets.source2=3"], ["buckets.source2"]),
        (["vocabulary.joint=false", "vocabulary.source2_model=a"], ["vocabulary.source2_model"]),
        ([*SECOND, "optimizer.encoder2.name=sgd", "buckets.source2=3"], []),
        (["model.heads=8", "model.norm=post"], ["model.heads", "model.norm"]),
        (["model.architecture=transformer", "model.cell=lstm"], ["model.cell"]),
        (["model.architecture=transformer", "model.attention=bahdanau"], ["model.attention"]),
        (["model.architecture=transformer", "model.heads=8"], []),
        (["vocabulary.source_model=a"], ["vocabulary.size", "vocabulary.algorithm"]),
        (["training.average_of=last"], ["training.average_of"]),
        (["training.average_of=last", "training.average=2"], []),
    ],
    ids=str,
)
def test_what_is_told(overrides, keys):
    """What an override gives is told also where it is the default; of a file only what is another."""
    assert keys_told(overrides) == keys


def test_a_sentence_names_key_and_reason():
    (sentence,) = idle_settings(load(DEFAULT, ["model.heads=8"]))
    assert sentence == 'model.heads does nothing: only model.architecture = "transformer" reads it.'


def test_every_key_is_one():
    config = load(DEFAULT)
    for key in (key for idle in IDLE for key in idle.keys):
        table, _, name = key.rpartition(".")
        assert name in {field.name for field in dataclasses.fields(getattr(config, table))}, key
