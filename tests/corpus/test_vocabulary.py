"""The SentencePiece vocabulary."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from seq2split.corpus import vocabulary as module
from seq2split.corpus.vocabulary import Vocabulary

LINES = [f"The {animal} number {i} saw {i * 7919 % 1000} hills." for i in range(60) for animal in ("dog", "cat", "yak")]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary.train(LINES, tmp_path_factory.mktemp("vocabulary") / "shared.model", size=80)


def test_import_needs_no_tensorflow():
    # The package's __init__ may import TensorFlow; the module itself must not, so it is loaded on its own.
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, module.__file__]).returncode == 0


def test_properties(vocabulary):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary.path))
    assert (vocabulary.size, vocabulary.bos, vocabulary.eos) == (80, 2, 3)
    assert len(processor) == 80
    assert (processor.pad_id(), processor.unk_id()) == (0, 1)


def test_encode(vocabulary):
    rows = vocabulary.encode(iter([*LINES, ""]))
    assert len(rows) == len(LINES) + 1
    assert all(row.dtype == np.int32 and row.ndim == 1 for row in rows)
    assert all(np.flatnonzero(row == vocabulary.eos).tolist() == [len(row) - 1] for row in rows)
    assert not any(vocabulary.bos in row for row in rows)
    assert rows[-1].tolist() == [vocabulary.eos]
    assert vocabulary.encode([]) == []


def test_special_pieces_in_text_stay_text(vocabulary):
    (row,) = vocabulary.encode(["<s> dog </s> <pad>"])
    assert vocabulary.bos not in row
    assert 0 not in row
    assert np.count_nonzero(row == vocabulary.eos) == 1


def test_decode_inverts_encode(vocabulary):
    assert vocabulary.decode(vocabulary.encode([*LINES, ""])) == [*LINES, ""]


def test_decode_stops_at_the_first_eos_and_skips_bos_and_padding(vocabulary):
    (dog,) = vocabulary.encode(["dog"])
    (cat,) = vocabulary.encode(["cat"])
    bos, eos, dog = vocabulary.bos, vocabulary.eos, dog[:-1].tolist()
    rows = [dog, [bos, *dog], [*dog, eos, *cat], [bos, *dog, eos, 0, 0], [0, bos, *dog], [eos, *dog], [], [0, 0]]
    assert vocabulary.decode(rows) == ["dog"] * 5 + ["", "", ""]
    assert vocabulary.decode([]) == []
    assert vocabulary.decode(np.array([[*dog, eos], [*dog, 0]], np.int64)) == ["dog", "dog"]


@pytest.mark.parametrize("index", [-1, 80])
def test_decode_of_an_id_outside(vocabulary, index):
    with pytest.raises(ValueError, match=f"row 1 holds id {index}, but the ids of .* run from 0 to 79"):
        vocabulary.decode([[5], [5, index]])


@pytest.mark.parametrize("rows", [[5, 6], [[1.5]], [["a"]], [[[5]]]])
def test_decode_of_what_is_no_row(vocabulary, rows):
    with pytest.raises(TypeError, match="row 0 must be a sequence of integer ids"):
        vocabulary.decode(rows)


def test_one_string_for_lines(vocabulary, tmp_path):
    with pytest.raises(TypeError, match="list of lines"):
        vocabulary.encode("dog")
    with pytest.raises(TypeError, match="list of lines"):
        Vocabulary.train("dog", tmp_path / "a.model", size=10)


@pytest.mark.parametrize("algorithm", module.ALGORITHMS)
def test_every_algorithm(tmp_path, algorithm):
    vocabulary = Vocabulary.train(LINES, tmp_path / "a.model", size=40, algorithm=algorithm)
    assert vocabulary.size <= 40
    assert vocabulary.decode(vocabulary.encode(["The dog"])) == ["The dog"]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
@pytest.mark.parametrize("sample", [None, 100])
def test_training_twice_gives_the_same_bytes(tmp_path, algorithm, sample):
    def train(name, seed=0):
        path = tmp_path / "new" / name
        Vocabulary.train(iter(LINES), path, size=70, algorithm=algorithm, sample=sample, seed=seed)
        return path.read_bytes()

    assert train("one") == train("two")
    assert (train("three", seed=1) != train("four", seed=2)) == (sample is not None)


def test_training_asks_for_one_thread(tmp_path, monkeypatch):
    # The pieces of a unigram model differ between 1, 2 and 16 threads (seen on Multi30k).
    train, asked = sentencepiece.SentencePieceTrainer.train, {}
    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", lambda **kw: (asked.update(kw), train(**kw)))
    Vocabulary.train(LINES, tmp_path / "a.model", size=80)
    assert asked["num_threads"] == 1


def test_training_is_quiet(tmp_path, capfd):
    Vocabulary.train(LINES, tmp_path / "a.model", size=80)
    assert capfd.readouterr() == ("", "")


def test_training_reads_lines_of_any_length(tmp_path):
    long_line = "x " * 2000 + "☃ " * 1000  # 7,000 bytes, beyond SentencePiece's own limit of 4192
    vocabulary = Vocabulary.train([*LINES, long_line], tmp_path / "a.model", size=80)
    assert vocabulary.decode(vocabulary.encode(["☃"])) == ["☃"]


@pytest.mark.parametrize("failing", ["replace", "train"])
def test_interrupted_training_leaves_the_old_file(tmp_path, monkeypatch, failing):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    path = write(tmp_path / "a.model", b"old")
    owner = os if failing == "replace" else sentencepiece.SentencePieceTrainer
    monkeypatch.setattr(owner, failing, interrupt)
    with pytest.raises(KeyboardInterrupt):
        Vocabulary.train(LINES, path, size=80)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.model": b"old"}


def test_killed_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    def write_half(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    path = write(tmp_path / "a.model", b"old")
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(KeyboardInterrupt):
        Vocabulary.train(LINES, path, size=80)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("algorithm", ["unigram", "bpe", "word"])
def test_size_too_large_names_one_that_works(tmp_path, algorithm):
    path = tmp_path / "a.model"
    with pytest.raises(ValueError, match=r"vocabulary\.size is 9000, .* at most (\d+) pieces: lower") as caught:
        Vocabulary.train(LINES, path, size=9000, algorithm=algorithm)
    assert not path.exists()
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    assert Vocabulary.train(LINES, path, size=largest, algorithm=algorithm).size == largest


def test_size_too_small_names_one_that_works(tmp_path):
    path = tmp_path / "a.model"
    with pytest.raises(ValueError, match=r"vocabulary\.size is 10, .* need (\d+): raise") as caught:
        Vocabulary.train(LINES, path, size=10)
    smallest = int(str(caught.value).split("need ")[1].split(":")[0])
    assert Vocabulary.train(LINES, path, size=smallest).size == smallest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4}, "must exceed the 4 special pieces.*got 4"),
        ({"size": -1}, "must exceed the 4 special pieces.*got -1"),
        ({"algorithm": "wordpiece"}, "algorithm is 'wordpiece'; expected one of unigram, bpe, char, word"),
        ({"character_coverage": 0.5}, "from 0.98 to 1, got 0.5"),
        ({"character_coverage": 1.5}, "from 0.98 to 1, got 1.5"),
        ({"sample": 0}, "sample must be at least 1 line, got 0"),
        ({"lines": []}, "all of the 0 lines are empty"),
        ({"lines": ["", "  "]}, "all of the 2 lines are empty"),
    ],
)
def test_bad_training_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.train(**{"lines": LINES, "path": tmp_path / "new" / "a.model", "size": 80} | arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"<s>\t0\n</s>\t0\n", b"\0" * 100, "half"])
def test_file_that_is_no_model(tmp_path, vocabulary, data):
    model = vocabulary.path.read_bytes()
    path = write(tmp_path / "a.model", model[: len(model) // 2] if data == "half" else data)
    with pytest.raises(ValueError, match=r"a\.model is no SentencePiece model"):
        Vocabulary(path)


def test_missing_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no vocabulary .*a\.model: train it"):
        Vocabulary(tmp_path / "a.model")


@pytest.mark.parametrize("name", ["bos", "eos"])
def test_model_without_a_special_piece(tmp_path, monkeypatch, name):
    monkeypatch.setitem(module.SPECIAL_PIECES, f"{name}_id", -1)
    with pytest.raises(ValueError, match=rf"a\.model has no {name} piece"):
        Vocabulary.train(LINES, tmp_path / "a.model", size=80)
