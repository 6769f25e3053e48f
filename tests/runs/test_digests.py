"""Digests of files: what is told of those that are not as they were written."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from seq2split.runs.digests import digest, digest_of, digests_of, find_damage, read_digests, write_digests


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "a second"):
        (tmp_path / name).write_text(name * 1000)
    write_digests(tmp_path / "all.sha256", digests_of(tmp_path / name for name in ("one", "a second")))
    return tmp_path


def test_whole_files(folder):
    found = read_digests(folder / "all.sha256")
    assert found == {name: digest(folder / name) for name in ("one", "a second")}
    assert digest(folder / "one") == digest_of(b"one" * 1000)
    assert find_damage(folder, found) is None


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_other_tools_read_them(folder):
    assert (
        subprocess.run(["sha256sum", "-c", "all.sha256"], cwd=folder, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "one isn't what was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "one isn't what was written"),
        (lambda path: path.write_bytes(b""), "one isn't what was written"),
        (lambda path: path.unlink(), "one is missing"),
        (lambda path: (path.unlink(), path.mkdir()), "one can't be read"),
    ],
)
def test_damage(folder, harm, told):
    harm(folder / "one")
    assert told in find_damage(folder, read_digests(folder / "all.sha256"))


def test_no_digests(tmp_path):
    assert read_digests(tmp_path / "none") == {}


@pytest.mark.parametrize("line", ["", "0" * 64, "g" * 64 + "  one", "0" * 63 + "  one", "0" * 64 + " one", "\x00\xff"])
def test_damaged_digests(tmp_path, line):
    (tmp_path / "all.sha256").write_text("0" * 64 + "  one\n" + line + "\n")
    with pytest.raises(ValueError, match=r"all\.sha256, line 2: expected a digest and the name of a file"):
        read_digests(tmp_path / "all.sha256")
