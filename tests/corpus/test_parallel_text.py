"""Reading lines of text, and files whose lines belong together."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2split.corpus import parallel_text
from seq2split.corpus.parallel_text import locate_line, read_lines, read_parallel

LINES = [f"The {animal} number {i} saw {i * 7919 % 1000} hills." for i in range(60) for animal in ("dog", "yak")]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_import_needs_no_tensorflow():
    # The package's __init__ may import TensorFlow; the module itself must not, so it is loaded on its own.
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, parallel_text.__file__]).returncode == 0


# read_lines


@pytest.mark.parametrize("suffix", ["en", "en.gz"])
@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\n\n", ["one", ""]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b" one \t\n", [" one \t"]),
        (b"one\rstill one\r\r\n", ["one\rstill one\r"]),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n".encode(), ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        (b"\xef\xbb\xbf", []),
        (b"one\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        ("Straße ☃ 𝄞\n".encode(), ["Straße ☃ 𝄞"]),
    ],
)
def test_read_lines(tmp_path, suffix, data, lines):
    assert read_lines(write(tmp_path / f"train.{suffix}", data)) == lines


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff", codec="utf-8"))))
def test_lines_survive_a_file(tmp_path_factory, lines):
    path = write(tmp_path_factory.getbasetemp() / "any.txt", "".join(f"{line}\n" for line in lines).encode())
    assert read_lines(str(path)) == lines


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*train\.en"):
        read_lines(tmp_path / "train.en")


@pytest.mark.parametrize(("there", "asked"), [("train.en", "train.en.gz"), ("train.en.gz", "train.en")])
def test_missing_file_with_a_twin(tmp_path, there, asked):
    write(tmp_path / there, b"one\n")
    with pytest.raises(FileNotFoundError) as caught:
        read_lines(tmp_path / asked)
    assert f"there is {tmp_path / there}:" in str(caught.value)


@pytest.mark.parametrize("suffix", ["en", "en.gz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_names_file_and_line(tmp_path, suffix, mark):
    path = write(tmp_path / f"train.{suffix}", mark + b"one\ntwo\nthr\xe9e\n")
    with pytest.raises(ValueError, match=r"train\.en.*, line 3: expected UTF-8, got byte 0xe9.*iconv"):
        read_lines(path)


def test_gzip_under_a_plain_name(tmp_path):
    path = tmp_path / "train.en"
    path.write_bytes(gzip.compress(b"one\n"))
    with pytest.raises(ValueError, match=r"train\.en, line 1.*suffix \.gz"):
        read_lines(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"plain text\n", "no sound gzip file"),
        (lambda data: data[:-12], "cut short"),
        (lambda data: data[:5], "cut short"),
        (lambda data: b"", "empty file"),
        (lambda data: data[:-6] + b"\0\0" + data[-4:], "no sound gzip file"),
        (lambda data: data[:20] + b"\xff" * 20 + data[40:], "no sound gzip file"),
    ],
)
def test_damaged_gzip(tmp_path, damage, message):
    path = tmp_path / "train.en.gz"
    path.write_bytes(damage(gzip.compress("\n".join(LINES).encode())))
    with pytest.raises(ValueError, match=message) as caught:
        read_lines(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("path", [".", "/dev/null/x"])
def test_an_error_of_the_system_names_the_file(path):
    with pytest.raises(OSError, match=rf"^can't read {re.escape(path)}: [A-Z]"):
        read_lines(path)


# read_parallel


def test_read_parallel_concatenates(tmp_path):
    sources = [write(tmp_path / "a.en", b"one\ntwo\n"), write(tmp_path / "b.en.gz", b"three")]
    targets = [write(tmp_path / "a.de.gz", b"eins\nzwei"), write(tmp_path / "b.de", b"drei\n")]
    lines = {"source": ["one", "two", "three"], "target": ["eins", "zwei", "drei"]}
    assert read_parallel({"source": sources, "target": targets}) == lines
    again = read_parallel({"source": sources, "source2": targets, "target": targets})
    assert again == {**lines, "source2": lines["target"]}


def test_line_counts_must_agree_file_by_file(tmp_path):
    three, two = write(tmp_path / "three", b"1\n2\n3\n"), write(tmp_path / "two", b"1\n2\n")
    with pytest.raises(ValueError, match=r"three has 3 lines and .*two has 2"):
        read_parallel({"source": [three, two], "target": [two, three]})  # the sums agree, the files do not


def test_file_counts_must_agree(tmp_path):
    path = write(tmp_path / "one", b"1\n")
    with pytest.raises(ValueError, match=r"2 source files .* and 1 target files"):
        read_parallel({"source": [path, path], "target": [path]})


def test_line_counts_must_agree_on_every_side(tmp_path):
    three, two = write(tmp_path / "three", b"1\n2\n3\n"), write(tmp_path / "two", b"1\n2\n")
    with pytest.raises(ValueError, match=r"three has 3 lines and .*two has 2"):
        read_parallel({"source": [three], "source2": [three], "target": [two]})


@pytest.mark.parametrize("count", [0, 2])
def test_empty_corpus(tmp_path, count):
    path = write(tmp_path / "empty", b"")
    with pytest.raises(ValueError, match="the corpus is empty"):
        read_parallel({"source": [path] * count, "target": [path] * count})


@pytest.mark.parametrize("kind", [str, Path])
def test_single_path_for_a_side(tmp_path, kind):
    path = kind(write(tmp_path / "one", b"1\n"))
    with pytest.raises(TypeError, match="target side must be a list of paths"):
        read_parallel({"source": [path], "target": path})


@pytest.mark.parametrize(("row", "place"), [(0, "a.en, line 1"), (1, "a.en, line 2"), (2, "b.gz, line 1")])
def test_locate_line(tmp_path, row, place):
    paths = [write(tmp_path / "a.en", b"one\ntwo\n"), write(tmp_path / "none", b""), write(tmp_path / "b.gz", b"three")]
    assert locate_line(paths, row) == f"{tmp_path}/{place}"
    assert locate_line(paths, 3) == f"{tmp_path}/b.gz, which has changed meanwhile"
