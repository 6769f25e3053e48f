"""The lock of a run directory: one training at a time, whatever became of the one before."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from seq2split.runs.lock import RunLock

HOLD = """if True:
    import sys, time
    from pathlib import Path
    from seq2split.runs.lock import RunLock
    with RunLock(Path(sys.argv[1])).held():
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "lock"


@pytest.fixture
def other(path):
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_one_is_refused_by_name(path, other):
    with pytest.raises(BlockingIOError) as caught, RunLock(path).held():
        pass
    told = str(caught.value)
    assert f"{path.parent} is being trained by process {other.pid} on {socket.gethostname()}, since 20" in told
    assert "give another run directory" in told


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_no_lock(path, other, number):
    """Though its name still stands in the file."""
    other.send_signal(number)
    other.wait()
    assert json.loads(path.read_text())["process"] == other.pid
    with RunLock(path).held():
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_in_one_process(path):
    """Whoever has the lock may take it again; another one of the same directory may not, until it is released."""
    lock, other = RunLock(path), RunLock(path)
    with lock.held():
        with lock.held():
            pass
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()}"), other.held():
            pass
    assert path.read_text() == ""
    with other.held(), pytest.raises(BlockingIOError), lock.held():
        pass


def test_it_is_released_by_an_error(path):
    with pytest.raises(ZeroDivisionError), RunLock(path).held():
        1 / 0  # noqa: B018
    with RunLock(path).held():
        pass


@pytest.mark.parametrize("data", ["", "{", "[]", '{"process": 3}'])
def test_a_holder_that_tells_nothing(path, data):
    path.parent.mkdir()
    with path.open("w+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(data)
        file.flush()
        told = "is being trained by another process, which holds lock"
        with pytest.raises(BlockingIOError, match=told), RunLock(path).held():
            pass


def test_a_file_system_without_locks(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="file system without locks.*no other training"), RunLock(path).held():
        pass


def test_a_full_disk(path):
    """The lock holds nevertheless."""
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    with RunLock(path).held():
        told = "is being trained by another process"
        with pytest.raises(BlockingIOError, match=told), RunLock(path).held():
            pass


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    told = r"lock can't be written \(.*a training writes into its run directory"
    with pytest.raises(OSError, match=told), RunLock(tmp_path / "file" / "lock").held():
        pass
