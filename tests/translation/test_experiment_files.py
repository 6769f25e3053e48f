"""The files of an experiment: what may change in a run, and what is made once."""

from __future__ import annotations

import pytest
from corpora import WORDS, configure, write_experiment

from seq2split.config import ConfigError
from seq2split.corpus import Corpus
from seq2split.translation.experiment_files import ExperimentFiles

LINES = {"source": [" ".join(WORDS)] * 9, "target": [" ".join(WORDS[::-1])] * 9}


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path / "data")


@pytest.fixture
def files(tmp_path):
    return ExperimentFiles(tmp_path / "run")


def write_checkpoint(files):
    files.run.latest.mkdir(parents=True)
    (files.run.latest / "ckpt-1.index").touch()


def test_a_configuration_is_kept(experiment, files):
    config = configure(experiment)
    assert files.freeze(config) == []
    assert files.config() == config


@pytest.mark.parametrize("key", ["training.steps", "optimizer.learning_rate", "search.beam"])
def test_what_may_change_in_a_run(experiment, files, key):
    files.freeze(configure(experiment))
    write_checkpoint(files)
    changed = configure(experiment, **{key.replace(".", "__"): 7})
    assert files.freeze(changed) == [key]
    assert files.config() == changed


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.units", 7), ("training.ema", 0.5), ("training.criterion", '"loss"'), ("batches.tokens", 120), ("seed", 9)],
)
def test_what_may_not_change_in_a_run(experiment, files, key, value):
    config = configure(experiment)
    files.freeze(config)
    write_checkpoint(files)
    with pytest.raises(ConfigError, match=f"with other settings of {key}, which cannot change in a run"):
        files.freeze(configure(experiment, **{key.replace(".", "__"): value}))
    assert files.config() == config


def test_before_the_first_checkpoint_everything_may_change(experiment, files):
    """What was made by the old settings is then made again."""
    config = configure(experiment)
    files.freeze(config)
    files.vocabularies(config, LINES)
    (files.path / "buckets.json").write_text("{}")
    files.freeze(configure(experiment, vocabulary__size=20))
    assert sorted(path.name for path in files.path.iterdir()) == ["config.toml", "files.sha256"]


def test_vocabularies_are_made_once(experiment, files):
    config = configure(experiment)
    files.freeze(config)
    made = files.vocabularies(config, LINES)
    assert {side: one.path.name for side, one in made.items()} == {"source": "joint.model", "target": "joint.model"}
    before = (files.path / "joint.model").read_bytes()
    files.vocabularies(config, {"source": ["z"], "target": ["z"]})
    assert (files.path / "joint.model").read_bytes() == before


def test_buckets_are_made_once(experiment, files):
    config = configure(experiment)
    files.freeze(config)
    with pytest.raises(ValueError, match=r"has no buckets\.json\. Train it first"):
        files.buckets(config)
    made = files.buckets(config, Corpus({"source": [[1], [1, 2, 3, 4]], "target": [[1], [1, 2]]}))
    assert {side: list(each.boundaries) for side, each in made.items()} == {"source": [1, 4], "target": [3, 5]}
    assert files.buckets(config, Corpus({"source": [[1] * 9], "target": [[1]]})) == made


def test_a_folder_without_a_run(files):
    with pytest.raises(ValueError, match=r"is no run directory: it has no config\.toml"):
        files.config()


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ValueError, match="is a file; a run needs a directory"):
        ExperimentFiles(tmp_path / "run")


def test_the_file_of_an_architecture(experiment, files, tmp_path):
    source = tmp_path / "mine.py"
    source.write_text("def make(request):\n    ...\n")
    model = "[model]\nbidirectional = false\nembedding = 8\nunits = 8\ndropout = 0.2"
    experiment.write_text(experiment.read_text().replace(model, f'[model]\narchitecture = "{source}:make"'))
    config = configure(experiment)
    files.freeze(config)
    assert files.architecture_change(config) is None
    source.write_text("def make(request):\n    return 1\n")
    assert "has changed since" in files.architecture_change(config)
    files.freeze(config)
    write_checkpoint(files)
    source.write_text("def make(request):\n    return 2\n")
    with pytest.raises(ConfigError, match=r"has changed since .* Restore it, or give another directory"):
        files.freeze(config)
