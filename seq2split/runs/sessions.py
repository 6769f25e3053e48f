"""The sessions of a run: versions, machine, revision of the code, command line; one record for each session.

A run that is started again with the same configuration, on as many cores and with the same versions, measures the same
losses; these records tell whether it was.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from seq2split.common.files import write_atomically
from seq2split.runs.digests import digest_of

PACKAGES = ("seq2split", "tensorflow", "keras", "numpy", "sentencepiece", "sacrebleu")
Session = dict[str, Any]
_DECISIVE = ("cores", "threads", "versions", "processor")  # what decides about the last bits of what is computed


def add_session(path: Path, **facts: Any) -> list[str]:
    """Add a record of this process to a run's file.

    Args:
          path: The file; made if it is missing.
          **facts: The facts to record beside those of `describe_session`.

    Returns:
          What to tell: that the file was damaged or lost, and what of this process is such that the run doesn't go on
          bit for bit.
    """
    told, sessions = [], []
    try:
        sessions = read_sessions(path) if path.exists() else []
        if not sessions and facts.get("step"):
            told.append(f"{path} is lost: it begins anew, without the sessions before")
    except ValueError:
        aside = path.with_name("run.damaged.json")
        path.replace(aside)
        told.append(f"{path} is damaged: it begins anew; as it was it is in {aside}")
    now = facts | describe_session()
    if sessions and facts.get("step"):
        told += _changes(sessions[-1], now)
    records = [*sessions, now | {"digest": _digest(now)}]
    write_atomically(path, (json.dumps(records, indent=2) + "\n").encode())
    return told


def read_sessions(path: Path) -> list[Session]:
    """Return the records of a run's file, in order.

    Raises:
          ValueError: The file is damaged.
    """
    try:
        sessions = json.loads(path.read_bytes())
        if not (isinstance(sessions, list) and all(isinstance(each, dict) for each in sessions)):
            raise ValueError("expected a list of objects")
        for number, session in enumerate(sessions, 1):
            if session.pop("digest", None) not in (None, _digest(session)):
                raise ValueError(f"the record of session {number} isn't what was written")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}. Delete it; it only tells how the run was made.") from error
    return sessions


def _digest(session: Session) -> str:
    """Return the digest of a record, which tells a damaged one."""
    facts = {name: value for name, value in session.items() if name != "digest"}
    return digest_of(json.dumps(facts, sort_keys=True).encode())


def _changes(before: Session, now: Session) -> list[str]:
    """Return what to tell of a run that goes on where it computes otherwise."""
    names = [name for name in _DECISIVE if name in before and before[name] != now.get(name)]
    if not names:
        return []
    changes = ", ".join(_change(name, before[name], now.get(name)) for name in names)
    return [f"this session isn't like the one before ({changes}): the run won't go on bit for bit as it would have"]


def _change(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [each for each in now if before.get(each) != now[each]]
        return ", ".join(f"{each} {before.get(each)} -> {now[each]}" for each in changed)
    return f"{name} {before} -> {now}"


def describe_session() -> Session:
    """Return when, where and by what this process was started, as JSON can hold it."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "directory": str(Path.cwd()),
        "revision": git_revision(Path(__file__)),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def git_revision(file: Path) -> str | None:
    """Return the revision of the working copy of a file, `-dirty` after it if tracked files were changed.

    Args:
          file: The file.

    Returns:
          The revision; `None` if the file is tracked in none, as that of an installed package, or Git is missing.
    """
    folder = file.resolve().parent
    if _git(folder, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what a Git command prints, or `None` if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the model of the processor, whose instructions decide how products are added up."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
