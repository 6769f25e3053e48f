"""The values of keys: their types, ranges and paths."""

import pytest

from seq2split.config import BucketsConfig, load


def test_values_are_read_as_their_types(write):
    text = """
    seed = 7
    [buckets]
    source = [8, 16]
    target = 3
    [training]
    clip_norm = 5
    build_ahead = true
    """
    read = load(write(text))
    assert (read.seed, read.buckets, read.training.build_ahead) == (7, BucketsConfig(source=(8, 16), target=3), True)
    assert read.training.clip_norm == 5.0
    assert isinstance(read.training.clip_norm, float)
    assert hash(read) == hash(load(write(text)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 0),
        ("seed", 2**32 - 1),
        ("model.dropout", 0),
        ("model.label_smoothing", 0.999),
        ("optimizer.learning_rate", 1e-9),
        ("optimizer.warmup_steps", 0),
        ("training.clip_norm", 0),
        ("training.patience", 0),
        ("training.samples", 0),
        ("training.steps", 1),
        ("search.beam", 1),
        ("search.min_length_ratio", 7),  # of a maximum of 0, which is none
    ],
)
def test_the_edges_of_ranges_are_accepted(write, key, value):
    read = load(write(), [f"{key}={value}"])
    for name in key.split("."):
        read = getattr(read, name)
    assert read == value


def test_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    text = '[vocabulary]\njoint = false\nsource_model = "models/../en.model"\ntarget_model = "/abs/de.model"\n'
    path = write(text)
    monkeypatch.chdir("/")
    read = load(path)
    assert read.data.train_source == (str(tmp_path / "train.en"),)
    assert read.data.valid_target == (str(tmp_path / "valid.de"),)
    assert read.vocabulary.source_model == str(tmp_path / "en.model")
    assert read.vocabulary.target_model == "/abs/de.model"


def test_paths_of_a_relative_file_are_absolute(write, tmp_path, monkeypatch):
    path = write()
    monkeypatch.chdir(path.parent)
    assert load("run.toml").data.train_target == (str(tmp_path / "train.de"),)


def test_an_empty_model_path_stays_empty(write):
    assert load(write('[vocabulary]\nsource_model = ""\n')).vocabulary.source_model == ""


def test_paths_of_overrides_are_relative_to_the_current_directory(write, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = write()
    monkeypatch.chdir(elsewhere)
    read = load(path, ["data.train_source=new.en", 'data.train_target=["new.de"]', "vocabulary.source_model=m.model"])
    assert read.data.train_source == (str(elsewhere / "new.en"),)
    assert read.data.train_target == (str(elsewhere / "new.de"),)
    assert read.data.valid_source == (str(tmp_path / "valid.en"),)
    assert read.vocabulary.source_model == str(elsewhere / "m.model")
