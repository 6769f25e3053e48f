"""The records of what a run was made by."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import tensorflow as tf

from seq2split.runs import sessions
from seq2split.runs.sessions import PACKAGES, add_session, git_revision, read_sessions


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path):
    """A working copy with one committed file."""
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_sessions_are_added(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["seq2split", "train", "a config.toml"])
    for step in (0, 7):
        add_session(tmp_path / "run.json", step=step, seed=3)
    first, second = read_sessions(tmp_path / "run.json")
    assert (first["step"], second["step"], second["seed"]) == (0, 7, 3)
    assert shlex.split(first["command"]) == ["seq2split", "train", "a config.toml"]
    assert first["versions"].keys() == set(PACKAGES)
    assert (first["versions"]["tensorflow"], first["versions"]["numpy"]) == (tf.__version__, np.__version__)
    assert first["python"] == ".".join(map(str, sys.version_info[:3]))
    assert first["cores"] >= 1
    assert datetime.now(UTC) - datetime.fromisoformat(first["started"]) < timedelta(minutes=1)
    assert (tmp_path / "run.json").read_text().count("\n") > 20, "people read it"


HARMS = (lambda text: text[:-20], lambda text: text.replace('"seed": 1', '"seed": 3'), lambda _: "{}")


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file(tmp_path, harm):
    """It is named, kept, and stands in nobody's way."""
    path = tmp_path / "run.json"
    add_session(path, step=0, seed=1)
    path.write_text(harm(path.read_text()))
    damaged = path.read_text()
    with pytest.raises(ValueError, match=r"run\.json is damaged: .*Delete it"):
        read_sessions(path)
    told = add_session(path, step=7)
    assert told == [f"{path} is damaged: it begins anew; as it was it is in {tmp_path / 'run.damaged.json'}"]
    assert (tmp_path / "run.damaged.json").read_text() == damaged
    assert [session["step"] for session in read_sessions(path)] == [7]


def test_a_lost_file(tmp_path):
    assert add_session(tmp_path / "run.json", step=0) == []
    (tmp_path / "run.json").unlink()
    assert add_session(tmp_path / "run.json", step=7) == [
        f"{tmp_path / 'run.json'} is lost: it begins anew, without the sessions before"
    ]


def test_a_run_that_goes_on_elsewhere(tmp_path, monkeypatch):
    """On other cores, threads or versions the last bits are others."""
    path = tmp_path / "run.json"
    add_session(path, step=0, threads=2)
    assert add_session(path, step=3, threads=2) == []
    (told,) = add_session(path, step=6, threads=1)
    assert "this session isn't like the one before (threads 2 -> 1): the run won't go on bit for bit" in told
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(77))
    monkeypatch.setattr(sessions, "_version", lambda package: "0.0" if package == "numpy" else None)
    (told,) = add_session(path, step=9, threads=1)
    assert re.search(r"\(cores \d+ -> 77, .*numpy [\d.]+ -> 0\.0", told)
    monkeypatch.undo()
    assert add_session(path, step=0, threads=9) == [], "nothing goes on"


def test_revision(copy):
    head = git(copy, "rev-parse", "HEAD")
    git(copy, "tag", "-a", "v1", "-m", "a tag must not stand in for the revision")
    assert git_revision(copy / "code.py") == head
    (copy / "untracked").write_text("changes nothing")
    assert git_revision(copy / "code.py") == head
    (copy / "code.py").write_text("2\n")
    assert git_revision(copy / "code.py") == f"{head}-dirty"


def test_no_revision(copy, tmp_path_factory, monkeypatch):
    """Of what is installed, be it into a folder of some working copy; without Git; outside of any working copy."""
    (copy / "installed.py").write_text("")
    assert git_revision(copy / "installed.py") is None
    outside = tmp_path_factory.mktemp("outside") / "code.py"
    outside.write_text("")
    assert git_revision(outside) is None
    monkeypatch.setenv("PATH", str(outside.parent))
    assert git_revision(copy / "code.py") is None


def test_the_file_is_json(tmp_path):
    add_session(tmp_path / "run.json")
    (session,) = json.loads((tmp_path / "run.json").read_text())
    assert {"started", "command", "revision", "python", "versions", "platform", "cores"} <= session.keys()
