"""The directory of a run, and what lies in it; it can be moved and shared as it is."""

from __future__ import annotations

import re
from pathlib import Path

from seq2split.runs.checkpoint_folder import CheckpointFolder
from seq2split.runs.lock import RunLock

_UNFINISHED = re.compile(r"\.(config\.toml|.*\.jsonl?|.*\.model|.*\.sha256|.*\.digest)\.\d+\.tmp")


class RunDirectory:
    """The places of a run's files.

    Args:
        path: The directory; made when something is written.

    Attributes:
        path: The directory.
        latest: The directory of the latest checkpoints.
        best: The directory of the best one.
        candidates: The directory of validated models that are kept to be averaged.
        average: The directory of their average, if it is better than the best one.
        events: The directory of TensorBoard's event files.
        sessions: The file of the sessions that made it; see `sessions`.
        history: The file of what was measured; see `history`.
        batches: The file that tells the batches that it is trained on from others.
        lock: The lock that a training holds.

    Raises:
        ValueError: The path is a file, is empty, or is no UTF-8, which TensorFlow needs.

    Example:
        >>> RunDirectory("runs/mine").history.as_posix()
        'runs/mine/history.jsonl'
    """

    def __init__(self, path: str | Path):
        if not str(path):
            raise ValueError('a run needs a directory, got ""; the current one is "."')
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{str(path)!a} is no UTF-8; a run needs a directory with a name that is.") from None
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; a run needs a directory. Give another path.")
        self.latest, self.best, self.events = (self.path / name for name in ("checkpoints", "best", "events"))
        self.candidates, self.average = self.path / "candidates", self.path / "average"
        self.sessions, self.batches = self.path / "run.json", self.path / "batches.json"
        self.history = self.path / "history.jsonl"
        self.lock = RunLock(self.path / "lock")

    def has_checkpoint(self) -> bool:
        """Return whether a checkpoint was written, be it of a best model alone."""
        return any(CheckpointFolder(folder).steps() for folder in (self.latest, self.best, self.average))

    def sweep(self) -> None:
        """Delete what a killed training left half-written."""
        for folder in (self.path, self.candidates):
            for path in folder.iterdir() if folder.is_dir() else ():
                if _UNFINISHED.fullmatch(path.name):
                    path.unlink(missing_ok=True)
