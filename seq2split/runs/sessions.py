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

PACKAGES = ("seq2split", "tensorflow", "keras", "numpy", "sentencepiece", "sacrebleu")
Session = dict[str, Any]


def add_session(path: Path, **facts: Any) -> None:
    """Add a record of this process to a run's file.

    Args:
          path: The file; made if it is missing.
          **facts: The facts to record beside those of `describe_session`.
    """
    sessions = read_sessions(path) if path.exists() else []
    write_atomically(path, (json.dumps([*sessions, facts | describe_session()], indent=2) + "\n").encode())


def read_sessions(path: Path) -> list[Session]:
    """Return the records of a run's file, in order.

    Raises:
          ValueError: The file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}. Delete it; it only tells how the run was made.") from error


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
