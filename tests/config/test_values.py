"""The values of keys: their types, ranges and paths."""

import pytest
from configurations import only_problem_of

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
        ("training.steps", 10**12),
        ("optimizer.warmup_steps", 10**12),
        ("vocabulary.size", 2**20),
        ("vocabulary.character_coverage", 0.98),
        ("model.units", 2**20),
        ("search.beam", 10_000),
        ("search.min_length_ratio", 7),  # of a maximum of 0, which is none
    ],
)
def test_the_edges_of_ranges_are_accepted(write, key, value):
    read = load(write(), [f"{key}={value}"])
    for name in key.split("."):
        read = getattr(read, name)
    assert read == value


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model.units=1000000000", "got 1000000000 (an integer), expected an integer, at least 1 and at most 1048576"),
        ("model.embedding=1048577", "at least 1 and at most 1048576 (default: 256)"),
        ("model.encoder_layers=1001", "at least 1 and at most 1000 (default: 1)"),
        ("vocabulary.size=2147483647", "at least 1 and at most 1048576 (default: 8000)"),
        ("batches.tokens=1000000001", "at least 1 and at most 1000000000"),
        ("batches.row_multiple=65537", "at least 1 and at most 65536"),
        ("training.accumulate=65537", "at least 1 and at most 65536"),
        ("search.beam=10001", "at least 1 and at most 10000"),
        ("search.length_penalty=11", "at least 0 and at most 10"),
        ("search.coverage=1e6", "at least 0 and at most 1000"),
        ("vocabulary.character_coverage=0.5", "at least 0.98 and at most 1"),
        ("training.steps=1" + "0" * 30, "expected an integer, at least 1, and of size at most 1000000000000"),
        ("training.patience=1" + "0" * 13, "at least 0, and of size at most 1000000000000 (default: 5)"),
        ("buckets.target=[8,1048577]", "strictly increasing integers, at least 1 and at most 1048576"),
        ("buckets.target=1" + "0" * 30, 'expected "auto", a count (an integer, at least 1), or a list'),
        ("optimizer.learning_rate=1e39", "got 1e+39 (a float), expected a number, above 0, and of size at most 3.4"),
        ("training.steps=0x1" + "0" * 9000, "got a huge one (an integer), expected an integer, at least 1"),
        ("training.steps=1" + "0" * 9000, "an integer of thousands of digits, more than TOML has"),
        ('data.train_source="a\\u0000"', "expected a path in quotes, or a list of paths"),
        ('vocabulary.source_model="a\\u0000"', 'expected a path in quotes, or "" for none'),
        ('model.architecture="a\\u0000.py:make"', 'or a function of your own: "package.module:function"'),
    ],
    ids=lambda text: text[:40],
)
def test_what_makes_no_sense_is_refused_at_once(write, setting, expected):
    problem = only_problem_of(write(), [setting])
    assert expected in problem
    assert len(problem) < 20_000


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
