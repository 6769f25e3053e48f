"""Damaged files of every kind that the project reads: a clear error or what they say, never a traceback, never a hang.

`SEQ2SPLIT_FUZZ=20000 pytest tests/test_damaged_files.py` tries so many of each kind rather than a few.
"""

from __future__ import annotations

import functools
import gzip
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sentencepiece
import tensorflow as tf
from corpora import SETTINGS, configure, write_experiment
from damaged import at_once, damaged
from hypothesis import HealthCheck, given, settings

from seq2split.config import dumps, load
from seq2split.corpus.parallel_text import read_lines
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.runs import best_model
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import History, read_history
from seq2split.runs.sessions import add_session
from seq2split.training.averages import Candidates
from seq2split.training.fingerprints import read_fingerprint, write_fingerprint
from seq2split.translation.architectures import find_architecture
from seq2split.translation.experiment_files import ExperimentFiles
from seq2split.translation.made_files import MadeFiles
from seq2split.translation.plots import plot_curves

EXAMPLES = int(os.environ.get("SEQ2SPLIT_FUZZ", "30"))
CLEAR = ValueError, OSError, ImportError  # what the command line prints and ends with, rather than with a traceback
SECONDS = 30  # of a machine that is busy


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        path: The path of a file of this kind, in a folder with all that belongs to it.
        read: A function that reads the file, in whatever way the project does.
        cost: How many of another kind could be read in the time that one of this kind takes.
    """

    path: str
    read: Callable[[Path], object]
    cost: int = 1


def read_config(path):
    config = load(path)
    again = path.with_name("again.toml")
    again.write_text(dumps(config), encoding="utf-8")
    assert load(again) == config


def read_corpus(path):
    assert not any("\n" in line for line in read_lines(path))


def read_vocabulary(path):
    vocabulary = Vocabulary(path)
    rows = vocabulary.encode(["a b", "", "ä"])
    assert all(row[-1] == vocabulary.eos for row in rows)
    assert len(vocabulary.decode([range(vocabulary.size), *rows])[0].splitlines()) <= 1
    assert all(len(vocabulary.pieces(row)) == len(row) for row in rows)


def read_and_draw_history(path):
    plot_curves({path.parent.name: read_history(path)}, path.with_name("curves.png"))


def read_variables(path):
    """Restore a checkpoint, of which one file is damaged."""
    variable = tf.Variable([0.0, 0.0])
    assert best_model.restore_model(RunDirectory(path.parent.parent), {"part": [variable]})


def read_buckets(path):
    ExperimentFiles(path.parent).buckets(load(path.with_name("own.toml")))


def read_figures(path):
    """Go on with the models that are kept for an average."""
    Candidates(path.parent, {"part": [tf.Variable([0.0, 0.0])]}, 2, "best").rewind(9, {2: 1.0})


def read_digests_of_a_run(path):
    made = MadeFiles(RunDirectory(path.parent))
    assert made.find_fault(path.with_name("config.toml")) is None or made.known(path.with_name("config.toml"))


KINDS = {
    "sessions": Kind("run.json", lambda path: add_session(path, step=1)),
    "history of a run": Kind("history.jsonl", lambda path: History(path).rewind(2)),
    "batches": Kind("batches.json", lambda path: read_fingerprint(path, None)),
    "batches, known": Kind("batches.json", lambda path: read_fingerprint(path, {"rows": 3})),
    "buckets": Kind("buckets.json", read_buckets),
    "figures": Kind("candidates/figures.json", read_figures),
    "digests": Kind("files.sha256", read_digests_of_a_run),
    "configuration": Kind("own.toml", read_config),
    "corpus": Kind("corpus.txt", read_corpus),
    "compressed corpus": Kind("corpus.gz", read_corpus),
    "unigram model": Kind("unigram.model", read_vocabulary),
    "bpe model": Kind("bpe.model", read_vocabulary),
    "history": Kind("history.jsonl", lambda path: read_history(path)),
    "drawn history": Kind("history.jsonl", read_and_draw_history, cost=20),
    "state of checkpoints": Kind("best/checkpoint", read_variables, cost=2),
    "index of a checkpoint": Kind("best/ckpt-1.index", read_variables, cost=2),
    "data of a checkpoint": Kind("best/ckpt-1.data-00000-of-00001", read_variables, cost=2),
    "architecture": Kind("architecture.py", lambda path: find_architecture(f"{path}:make")),
}


@functools.cache
def folder() -> Path:
    """Return a folder with a file of each kind, all of them right."""
    made = Path(tempfile.mkdtemp())
    write_files(made)
    return made


def write_files(folder: Path) -> None:
    config = configure(write_experiment(folder))
    (folder / "config.toml").write_text(dumps(config))
    (folder / "own.toml").write_text(SETTINGS + OWN)
    (folder / "corpus.txt").write_text("a b\nä\r\n\nc d e\n", encoding="utf-8")
    (folder / "corpus.gz").write_bytes(gzip.compress(b"a b\n" * 20, mtime=0))
    draw = random.Random(1)
    lines = [" ".join(draw.choices("abcdefgh", k=6)) for _ in range(50)]
    Vocabulary.train(lines, folder / "unigram.model", 20)
    bare = {"vocab_size": 20, "model_type": "bpe", "normalization_rule_name": "identity", "minloglevel": 2}
    with (folder / "bpe.model").open("wb") as file:  # without the 240 kB that normalize text, and get most damage
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=file, **bare)
    history = History(folder / "history.jsonl")
    for step in (2, 4):
        history.add(step=step, seconds=1.5 * step, tokens=90 * step, loss=2.0, nll=3.5 / step, learning_rate=1e-3)
        history.add(step=step, seconds=1.5 * step, tokens=90 * step, validation_loss=2.5, validation_bleu=3.0)
    add_session(folder / "run.json", step=0)
    write_fingerprint(folder / "batches.json", {"digest": "abc", "rows": 3})
    MadeFiles(RunDirectory(folder)).write(folder / "config.toml", (folder / "config.toml").read_bytes())
    Candidates(folder / "candidates", {"part": [tf.Variable([0.0, 0.0])]}, 2, "best").add(2, 1.0)
    (folder / "buckets.json").write_text('{"source": [3, 5], "target": [3, 6]}')
    (folder / "architecture.py").write_text("import math\n\ndef make(request):\n    return {}, print\n")
    best = tf.train.Checkpoint(part={"0_Variable": tf.Variable([1.0, 2.0])})
    tf.train.CheckpointManager(best, str(folder / "best"), 1, checkpoint_name="ckpt").save(1)


OWN = """
[optimizer.groups.".*/embeddings"]
frozen = true
[optimizer.encoder]
learning_rate = 1e-3
[search]
max_length_ratio = 2.0
"""


def error_of(use: Callable[[], object]) -> str:
    """Return what the user is told when something is used, "" if nothing is wrong; any other error is raised."""
    try:
        with at_once(SECONDS):
            use()
    except CLEAR as error:
        return "\n".join([str(error), *getattr(error, "__notes__", [])])
    return ""


@pytest.mark.parametrize("name", KINDS)
def test_damaged_file(name, monkeypatch):
    monkeypatch.setattr(best_model, "_PAUSE", 0)  # there is no training whose next checkpoint is worth to wait for
    kind = KINDS[name]
    path = folder() / kind.path
    valid = path.read_bytes()
    kind.read(path)

    @settings(
        max_examples=max(3, EXAMPLES // kind.cost),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(valid))
    def read(data):
        path.write_bytes(data)
        error = error_of(lambda: kind.read(path))
        assert not error or path.name in error or path.parent.name in error, "it names the file"

    try:
        read()
    finally:
        path.write_bytes(valid)


@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(damaged(b'optimizer.groups."a".learning_rate=0.5'))
def test_damaged_override(data):
    error = error_of(lambda: load(folder() / "own.toml", [os.fsdecode(data)]))
    assert not error or "--set" in error
