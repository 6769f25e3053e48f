"""The scripts of experiments/ that no other test runs."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (["training_apart.py", "--steps", "4"], ["equal: no loss and no variable differs"]),
        (
            ["save_policies.py", "--rows", "4", "--time", "3", "--rounds", "1"],
            ["LSTM, 4 x 3", "Transformer", "products"],
        ),
        pytest.param(
            ["compilation.py", "--quick", "--rounds", "1"],
            ["split, no XLA", "joint pairs, XLA", "context_buckets=2"],
            marks=pytest.mark.long,
        ),
    ],
    ids=["training_apart", "save_policies", "compilation"],
)
def test_a_script_runs(script, expected):
    command = [sys.executable, EXPERIMENTS / script[0], *script[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for text in expected:
        assert text in done.stdout


@pytest.fixture
def multi30k(tmp_path):
    """A folder of files with the names of Multi30k, of German, English and French number words."""
    numbers, folder = Path(__file__).parents[2] / "data" / "numbers", tmp_path / "data"
    folder.mkdir()
    lines = [(numbers / f"train.{language}").read_text().splitlines() for language in ("en", "de")]
    for split, start in (("train", 0), ("val", 200), ("test_2016_flickr", 220)):
        for language, side in zip(("en", "de", "fr"), (*lines, lines[1]), strict=True):
            count = 200 if split == "train" else 20
            text = "\n".join(side[start : start + count]) + "\n"
            (folder / f"{split}.{language}.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def run_translation(*options):
    command = [sys.executable, EXPERIMENTS / "translation.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


SMALL = {
    "vocabulary": ["size=60"],
    "buckets": ["source=1", "target=1"],
    "model": ["embedding=8", "units=8", "encoder_layers=1", "decoder_layers=1"],
    "training": ["steps=2", "validate_every=1", "samples=0"],
}


def test_results_table(tmp_path, multi30k):
    """Of two runs; what is done is not done again, and what was done otherwise is not mixed with it."""
    options = [
        "--runs",
        tmp_path / "runs",
        "--data",
        multi30k,
        "--only",
        "en_fr_transformer_bfloat16|en_de_lstm_mixed_2",
    ]
    options += [each for table, keys in SMALL.items() for key in keys for each in ("--set", f"{table}.{key}")]
    done = run_translation(*options)
    assert done.returncode == 0, done.stderr
    results = (tmp_path / "runs" / "results.md").read_text()
    assert done.stdout.endswith(results)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in results.splitlines()]
    models, penalties = (row for row in rows if row[0] == "en_fr_transformer_bfloat16")
    assert (len(models), models[-1]) == (9, "0.02 M")
    assert len(penalties) == 7
    assert all(float(cell) >= 0 for cell in (*models[1:6], *penalties[1:]))
    assert [row[1] for row in rows if row[0] == "en_de_lstm_mixed"] == ["test, greedy", "test, beam 5", "validation"]
    for picture in ("en_fr.png", "batches.png"):
        assert (tmp_path / "runs" / picture).stat().st_size > 10_000
    again = run_translation(*options)
    assert (again.returncode, again.stdout) == (0, results)
    other = run_translation(*options, "--set", "model.units=16", "--set", "model.embedding=16")
    assert other.returncode == 2
    assert "was done with other settings of model.embedding, model.units" in other.stderr
    longest = tmp_path / "runs" / "en_de_lstm_mixed_2" / "test_2016_flickr.beam5.txt"
    before = longest.stat().st_mtime_ns
    searched = run_translation(*options, "--only", "en_de_lstm_mixed_2", "--set", "search.length_penalty=3")
    assert searched.returncode == 0, searched.stderr
    assert "changed in this run: search.length_penalty" in searched.stderr
    assert longest.stat().st_mtime_ns > before
    other = "left out of the tables: en_fr_transformer_bfloat16, done with other search.length_penalty"
    assert other in searched.stderr
    assert "en_fr" not in searched.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "lstm"], "--only lstm: no run has such a name"),
        (["--only", "*"], "* is no regular expression: nothing to repeat"),
        (["--data", "nowhere"], "nowhere/train.en.gz is missing: run python data/multi30k.py"),
    ],
)
def test_mistakes_are_found_before_training(options, message):
    done = run_translation(*options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
