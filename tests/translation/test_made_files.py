"""Files that a run is made with once: what is made again, and what can't be."""

from __future__ import annotations

import json

import pytest

from seq2split.runs.digests import digest_of
from seq2split.runs.directory import RunDirectory
from seq2split.translation.made_files import MadeFiles, Maker


def is_json(data):
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


@pytest.fixture
def path(run):
    return run.path / "buckets.json"


def train(run):
    """Have the run a checkpoint."""
    run.latest.mkdir()
    (run.latest / "ckpt-1.index").touch()


def returning(data):
    return lambda: data


def read(run, path, *makers, writes=True):
    makers = [Maker(returning(data), sure) for data, sure in makers]
    return MadeFiles(run).read(path, makers, is_right=is_json, writes=writes)


def test_it_is_made_once(run, path):
    assert read(run, path, (b"[1]", False)) == b"[1]"
    train(run)
    assert read(run, path, (b"[2]", True)) == b"[1]"
    assert MadeFiles(run).known(path) == digest_of(b"[1]")


HARMS = {"lost": None, "emptied": b"", "cut": b"[", "another": b"[3]"}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(
    ("makers", "expected"),
    [
        ([(b"[1]", False)], b"[1]"),
        ([(None, True), (b"[2]", False), (b"[1]", False)], b"[1]"),
        ([(b"[2]", False)], None),
        ([(b"[2]", True)], None),
        ([], None),
    ],
)
def test_it_is_made_again_if_it_is_the_same(run, path, capsys, harm, makers, expected):
    """By its digest."""
    read(run, path, (b"[1]", False))
    train(run)
    path.unlink()
    if HARMS[harm] is not None:
        path.write_bytes(HARMS[harm])
    if expected is None:
        with pytest.raises(
            ValueError, match=r"buckets\.json is.*can't be made again for certain.*put back a copy of it"
        ):
            read(run, path, *makers)
        return
    assert read(run, path, *makers, writes=False) == expected
    assert "it is made again, and is the same as before" in capsys.readouterr().err
    assert path.exists() == (harm != "lost")
    assert read(run, path, *makers) == path.read_bytes() == expected


@pytest.mark.parametrize(("sure", "expected"), [(True, b"[1]"), (False, None)])
def test_without_a_digest_the_way_must_be_certain(run, path, sure, expected):
    """Of a run of an earlier version."""
    train(run)
    if expected is None:
        with pytest.raises(ValueError, match="can't be made again for certain"):
            read(run, path, (b"[1]", sure))
    else:
        assert read(run, path, (b"[1]", sure)) == expected


def test_what_is_there_of_an_earlier_version_counts(run, path):
    path.write_bytes(b"[1]")
    train(run)
    assert read(run, path, (b"[2]", True)) == b"[1]"
    assert MadeFiles(run).known(path) == digest_of(b"[1]")


def test_who_only_reads_is_told_what_to_do(run, path):
    with pytest.raises(ValueError, match=r"is no complete run directory: it has no buckets\.json\. Train it first"):
        read(run, path, writes=False)
    train(run)
    with pytest.raises(ValueError, match=r"is missing\. Put back a copy of it; or start the training again"):
        read(run, path, writes=False)


@pytest.mark.parametrize("text", ["garbage\n", "0" * 64 + "  buckets.jsom\n"])
def test_damaged_digests_are_told_once(run, path, capsys, text):
    """And written again from what is there."""
    read(run, path, (b"[1]", False))
    (run.path / "files.sha256").write_text(text)
    made = MadeFiles(run)
    assert [made.known(path), made.known(path)] == [None, None]
    assert capsys.readouterr().err.count("isn't known") == 1
    read(run, path)
    assert MadeFiles(run).known(path) == digest_of(b"[1]")
