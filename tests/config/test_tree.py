"""TOML files and overrides, and what is told of those that are malformed."""

import pytest
from configurations import DATA, only_problem_of

from seq2split.config import load


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf" + DATA.encode())
    assert load(path).seed == 1


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("seed=3", "seed", 3),
        ("model.cell=gru", "model.cell", "gru"),
        ('model.cell="gru"', "model.cell", "gru"),
        (" model . cell = gru ", "model.cell", "gru"),
        ("optimizer.learning_rate=1e-4", "optimizer.learning_rate", 1e-4),
        ("buckets.source=[8, 16]", "buckets.source", (8, 16)),
        ("model.bidirectional=false", "model.bidirectional", False),
        ("vocabulary.source_model=", "vocabulary.source_model", ""),
        ("vocabulary.source_model=/a=b", "vocabulary.source_model", "/a=b"),
        ("model={units = 5}", "model.units", 5),
    ],
)
def test_an_override_is_toml_or_a_bare_string(write, override, key, expected):
    read = load(write("[model]\nunits = 4\nembedding = 12\n"), [override])
    assert read.model.embedding == 12
    for name in key.split("."):
        read = getattr(read, name)
    assert read == expected


def test_the_later_override_wins(write):
    assert load(write("seed = 2\n"), ["seed=3", "seed=4"]).seed == 4


@pytest.mark.parametrize(
    ("content", "line", "expected"),
    [
        (
            b"seed = 1\n[model]\ncell = lstm\n",
            3,
            "not valid TOML: Invalid value (at line 3, column 8), in `cell = lstm`",
        ),
        (b"seed = 1\nseed = 2\n", 2, "Cannot overwrite a value"),
        (b"[buckets]\nsource = [8,\n16\n\n\n", 3, "Unclosed array (at end of document), in `16`"),
        (b"seed = 1\n# caf\xe9\n", 2, "not UTF-8 text, as TOML must be; save the file as UTF-8"),
    ],
)
def test_malformed_toml_names_file_and_line(tmp_path, content, line, expected):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    problem = only_problem_of(path)
    assert problem.startswith(f"{path}, line {line}: ")
    assert expected in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = " + "[" * 5000, "tables or lists in one another, too deep to be read"),
        ("[" + "a." * 5000 + "a]\nb = 1\n", "tables or lists in one another, too deep to be read"),
        ("x = {" + "a." * 100_000 + "a = 1}\n", "tables or lists in one another, too deep to be read"),
        ("[model.options]\n" + "a." * 5000 + "a = 1\n", "tables or lists in one another, too deep to be read"),
        ("seed = " + "9" * 5000, "an integer of thousands of digits, more than TOML has"),
        ("[optimizer.groups.'a{99999999999}']\n", "no regular expression: the repetition number is too large"),
        ("x = `" + "y" * 5000, "y...`; write `key = value`"),
    ],
    ids=lambda text: text[:20],
)
def test_what_python_can_not_read(write, text, expected):
    problem = only_problem_of(write(text))
    assert expected in problem
    assert "run.toml" in problem
    assert len(problem) < 500


def test_an_option_of_more_than_64_bits(write):
    text = '[model]\narchitecture = "mine.py:make"\n[model.options]\ndeep = [{x = 0x1' + "0" * 5000 + "}]\n"
    assert "model.options.deep: got an integer of more than 64 bits" in only_problem_of(write(text))


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = only_problem_of("none.toml")
    assert problem.startswith(f"none.toml: No such file or directory (current directory {tmp_path}); give the path")
    assert "Is a directory" in only_problem_of(tmp_path)
