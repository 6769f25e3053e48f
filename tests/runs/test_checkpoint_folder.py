"""Folders of checkpoints: which there are, whatever became of their files, and what a killed process leaves."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf

from seq2split.runs import checkpoint_folder
from seq2split.runs.checkpoint_folder import CheckpointFolder


@pytest.fixture
def variable():
    return tf.Variable(0.0)


@pytest.fixture
def folder(tmp_path, variable):
    """Checkpoints of steps 1 and 2; the variable is the step."""
    folder, checkpoint = CheckpointFolder(tmp_path / "kept"), tf.train.Checkpoint(variable=variable)
    for step in (1, 2):
        variable.assign(step)
        folder.write(checkpoint, step, keep=[1])
    return folder


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


WHOLE = [f"ckpt-{step}.{suffix}" for step in (1, 2) for suffix in ("data-00000-of-00001", "index", "sha256")]


def test_what_is_written(folder, variable):
    assert names(folder) == ["checkpoint", *WHOLE]
    assert folder.steps() == [1, 2]
    assert [folder.find_damage(step) for step in folder.steps()] == [None, None]
    variable.assign(9.0)
    tf.train.Checkpoint(variable=variable).restore(folder.prefix(1)).assert_consumed()
    assert float(variable) == 1.0


def test_other_tools_find_them(folder):
    assert tf.train.latest_checkpoint(folder.path) == folder.prefix(2)


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\xff{")])
def test_the_file_of_tensorflow_is_not_needed(folder, harm):
    harm(folder.path / "checkpoint")
    assert folder.steps() == [1, 2]


def test_those_not_kept_are_deleted(folder, variable):
    folder.write(tf.train.Checkpoint(variable=variable), 11, keep=[2, 5])
    assert folder.steps() == [2, 11]
    assert not [name for name in names(folder) if name.startswith("ckpt-1.")]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


HARMS = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("suffix", ["data-00000-of-00001", "index", "sha256"])
def test_damage_is_found(folder, suffix, harm):
    """Where the digests are lost TensorFlow's own checksums must do."""
    HARMS[harm](folder.path / f"ckpt-2.{suffix}")
    assert folder.steps() == [1, 2]
    assert (folder.find_damage(2) is None) == ((suffix, harm) == ("sha256", "deleted"))
    assert folder.find_damage(1) is None


def test_what_has_no_digests(folder):
    """Of an earlier version, or where a process was killed: it counts if it is complete."""
    (folder.path / "ckpt-2.sha256").unlink()
    assert folder.find_damage(2) is None
    (folder.path / "ckpt-2.data-00000-of-00001").unlink()
    assert folder.find_damage(2) == "its data is missing"
    (folder.path / "ckpt-2.index").unlink()
    assert folder.steps() == [1]


LITTER = ("ckpt-3.data-00000-of-00001", "ckpt-3_temp/part-00000-of-00001.index", "ckpt-2_temp/part", ".x.12.tmp")
LITTER += ("ckpt-2.index.tempstate123", "ckpt-3.index.tempstate45")


def test_what_killed_processes_leave_is_deleted(folder):
    for name in LITTER:
        path = folder.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    (folder.path / "notes.txt").write_text("mine")
    folder.sweep(folder.steps())
    assert names(folder) == ["checkpoint", *WHOLE, "notes.txt"]


def test_set_aside(folder):
    assert folder.set_aside(2) == folder.path / "damaged"
    assert folder.steps() == [1]
    assert sorted(path.name for path in (folder.path / "damaged").iterdir()) == WHOLE[3:]
    folder.sweep(folder.steps())
    assert len(list((folder.path / "damaged").iterdir())) == 3


REASONS = {
    "No space left on device": "free some space, and try again",
    "Disk quota exceeded": "free some of your quota, and try again",
    "Read-only file system": "make it writable, and try again",
    "Input/output error": "",
}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("where", ["TensorFlow", "fsync", "digests"])
def test_a_disk_that_takes_no_more(folder, variable, monkeypatch, where, reason):
    """Says so in one line, whoever finds out; what was there stays, and nothing else does."""

    def fail(*_):
        (folder.path / "ckpt-3_temp").mkdir()
        (folder.path / "ckpt-3.data-00000-of-00001").write_text("half")
        if where == "TensorFlow":
            raise tf.errors.ResourceExhaustedError(None, None, f"x/ckpt-3_temp/part; {reason} [Op:SaveV2]")
        raise OSError(5, reason)

    owner, name = {
        "TensorFlow": (tf.train.Checkpoint, "write"),
        "fsync": (os, "fsync"),
        "digests": (checkpoint_folder, "write_digests"),
    }[where]
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(OSError, match=f"ckpt-3 can't be written: {reason}; {REASONS[reason]}") as caught:
        folder.write(tf.train.Checkpoint(variable=variable), 3, keep=[2])
    assert "\n" not in str(caught.value)
    assert f"{folder.prefix(2)} stands" in str(caught.value)
    assert names(folder) == ["checkpoint", *WHOLE]


def test_nothing_is_there(tmp_path):
    folder = CheckpointFolder(tmp_path / "none")
    folder.sweep([])
    assert folder.steps() == []
    assert not folder.path.exists()
