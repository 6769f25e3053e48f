"""The SentencePiece vocabulary."""

import gzip
import io
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
        ({"size": 2**31 - 1}, "vocabulary.size must be at most 1048576, got 2147483647: lower it"),
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
    with pytest.raises(FileNotFoundError, match=r"there is no vocabulary .*a\.model: give the path of"):
        Vocabulary(tmp_path / "a.model")


# Models of others


def train_model(path, lines=tuple(LINES), **options):
    """Write a model with options that `Vocabulary.train` doesn't give."""
    model = io.BytesIO()
    options = {"vocab_size": 80, "minloglevel": 2, "num_threads": 1} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **options)
    return write(path, model.getvalue())


OTHERS = {
    "t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "marian": {"eos_id": 0, "unk_id": 1, "bos_id": -1, "pad_id": -1, "hard_vocab_limit": False},
    "llama": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 400, "normalization_rule_name": "identity"},
    "xglm": {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3},
    "high ids": {"bos_id": 40, "eos_id": 41, "unk_id": 42, "pad_id": 43},
    "bytes alone": {"model_type": "char", "byte_fallback": True, "vocab_size": 300, "hard_vocab_limit": False},
    "char": {"model_type": "char", "hard_vocab_limit": False},
    "word": {"model_type": "word", "hard_vocab_limit": False},
    "newline": {"user_defined_symbols": ["\n", "\u2028"]},
}
"""Options of models like those that others train; the default ids are unk 0, bos 1, eos 2 and no pad."""


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_others(tmp_path, name):
    options = OTHERS[name]
    path = train_model(tmp_path / "a.model", **options)
    vocabulary = Vocabulary(path)
    assert vocabulary.eos == options.get("eos_id", 2)
    assert vocabulary.bos == (vocabulary.eos if options.get("bos_id") == -1 else options.get("bos_id", 1))
    rows = vocabulary.encode(["The dog", "", "The yak saw 7 hills."])
    assert [row[-1] for row in rows] == [vocabulary.eos] * 3
    assert all(0 <= row.min() <= row.max() < vocabulary.size for row in rows)
    assert vocabulary.decode(rows)[:2] == ["The dog", ""]
    padded = np.zeros([3, 99], np.int32)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    assert vocabulary.decode(padded) == vocabulary.decode(rows), "padding is no piece, whatever has the id 0"


@pytest.mark.parametrize(("name", "start", "index"), [("t5", "pad", 0), ("t5", "eos", 1), ("xglm", "bos", 0)])
def test_what_translations_start_with(tmp_path, name, start, index):
    assert Vocabulary(train_model(tmp_path / "a.model", **OTHERS[name]), start).bos == index


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("bos", r'a\.model has no bos piece to start translations with: set vocabulary\.start to "eos"$'),
        ("pad", r'a\.model has no pad piece .* set vocabulary\.start to "eos"$'),
        ("sos", "vocabulary.start is 'sos'; expected one of auto, bos, eos, pad"),
    ],
)
def test_a_start_that_the_model_lacks(tmp_path, start, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(train_model(tmp_path / "a.model", **OTHERS["marian"]), start)


def test_model_without_an_end(tmp_path):
    with pytest.raises(ValueError, match=r"a\.model has no eos piece, which ends every sentence"):
        Vocabulary(train_model(tmp_path / "a.model", eos_id=-1))


def test_unknown_at_zero_is_no_padding(tmp_path):
    """What stands for an unknown character is decoded as such; what pads a row after its end is not."""
    vocabulary = Vocabulary(train_model(tmp_path / "a.model"))
    (row,) = vocabulary.encode(["dog \u2603"])
    assert (row[-2], vocabulary.eos) == (0, 2)
    assert vocabulary.decode([[*row, 0, 0, 0]]) == vocabulary.decode([row]) == ["dog  \u2047 "]


@pytest.mark.parametrize("name", ["llama", "bytes alone", "newline"])
def test_a_line_is_one_line(tmp_path, name):
    vocabulary = Vocabulary(train_model(tmp_path / "a.model", **OTHERS[name]))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary.path))
    ends = [[processor.piece_to_id("\n")], [processor.piece_to_id("\u2028")]]
    if name != "newline":
        ends = [[processor.piece_to_id(f"<0x{byte:02X}>") for byte in end.encode()] for end in "\n\r\v\f\x85\u2028"]
    (dog,) = vocabulary.encode(["dog"])
    for end in ends:
        row = [*dog[:-1], *end, *dog[:-1], *end]
        assert len(processor.decode(row).splitlines()) > 1
        assert vocabulary.decode([row]) in (["dog dog "], ["dog  dog "])


def test_model_with_a_piece_that_is_no_text(tmp_path):
    model = train_model(tmp_path / "a.model", vocab_size=120, model_type="word", hard_vocab_limit=False).read_bytes()
    assert model.count(b"hills") == 1
    write(tmp_path / "a.model", model.replace(b"hills", b"\xff\xff\xff\xff\xff"))
    with pytest.raises(ValueError, match=r"a\.model is no SentencePiece model"):
        Vocabulary(tmp_path / "a.model")
