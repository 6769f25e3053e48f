"""A folder of checkpoints, found by listing it, with their digests.

TensorFlow's `CheckpointManager` goes by a file called `checkpoint`: where that is lost, so are the checkpoints. Here
the files themselves tell which there are. A checkpoint is written in this order: its variables, its index, its digests;
so one without an index and without digests was never finished, and one with digests that don't fit is damaged.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import tensorflow as tf

from seq2split.common.files import explain_failure, sync, write_atomically
from seq2split.runs.digests import digests_of, find_damage, read_digests, write_digests

_FINISHED = re.compile(r"ckpt-(\d+)\.(index|sha256)")
_OWN = re.compile(r"ckpt-(\d+)[._]")
_UNFINISHED = re.compile(r"_temp$|\.tempstate")
_DAMAGED = "damaged"


class CheckpointFolder:
    """The checkpoints of a folder, each called by the step that it was written at.

    Args:
        path: The folder; made when the first checkpoint is written.
    """

    def __init__(self, path: Path):
        self.path = path

    def prefix(self, step: int) -> str:
        """Return the path of a checkpoint, as TensorFlow takes it."""
        return str(self.path / f"ckpt-{step}")

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that were finished, the damaged ones among them, in order."""
        found = (_FINISHED.fullmatch(path.name) for path in self._entries())
        return sorted({int(match[1]) for match in found if match})

    def find_damage(self, step: int) -> str | None:
        """Return what is wrong with a checkpoint; `None` if its files are as they were written.

        One without digests, by an earlier version or a process killed at that moment, has TensorFlow's own checksums.
        """
        try:
            digests = read_digests(self._digests(step))
        except ValueError:
            return f"{self._digests(step).name} is damaged"
        if digests:
            return find_damage(self.path, digests)
        if self._digests(step).exists():
            return f"{self._digests(step).name} is empty"
        index, data = self.path / f"ckpt-{step}.index", self.path.glob(f"ckpt-{step}.data-*")
        return None if index.exists() and any(data) else "its data is missing"

    def write(self, checkpoint: tf.train.Checkpoint, step: int, keep: Collection[int] = ()) -> str:
        """Write a checkpoint, and delete those that are not to be kept.

        Args:
            checkpoint: The objects to write.
            step: The step.
            keep: The steps of the others to keep.

        Returns:
            Its path.

        Raises:
            OSError: It can't be written; those that were there still are.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._delete(step)
            checkpoint.save_counter.assign_add(1)  # makes it, too: `restore` expects it
            checkpoint.write(self.prefix(step))
            for path in self._files(step):
                sync(path)  # before others are deleted
            write_digests(self._digests(step), digests_of(self._files(step)))
        except (OSError, tf.errors.OpError) as error:
            with suppress(OSError):  # room for what else is to be written
                self._delete(step)
                self.sweep(self.steps())
            raise OSError(self._explain(step, error)) from error
        self.sweep({step, *keep})
        return self.prefix(step)

    def sweep(self, keep: Collection[int]) -> None:
        """Delete all checkpoints but some, and what was never finished; tell TensorFlow's own tools which are there."""
        kept = [step for step in self.steps() if step in keep]
        for step in self.steps():
            if step not in kept:
                self._delete(step)
        for path in self._entries():
            match = _OWN.match(path.name)
            if path.name.endswith(".tmp") or (match and (_UNFINISHED.search(path.name) or int(match[1]) not in kept)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if kept:
            names = [f'"ckpt-{step}"' for step in kept]
            lines = [f"model_checkpoint_path: {names[-1]}", *(f"all_model_checkpoint_paths: {name}" for name in names)]
            write_atomically(self.path / "checkpoint", "".join(line + "\n" for line in lines).encode())

    def set_aside(self, step: int) -> Path:
        """Move a damaged checkpoint out of the way, and return where it went."""
        aside = self.path / _DAMAGED
        aside.mkdir(exist_ok=True)
        for path in self._files(step):
            path.replace(aside / path.name)
        return aside

    def _entries(self) -> list[Path]:
        return sorted(self.path.iterdir()) if self.path.is_dir() else []

    def _files(self, step: int) -> list[Path]:
        return [path for path in self._entries() if path.name.startswith(f"ckpt-{step}.") and path.is_file()]

    def _digests(self, step: int) -> Path:
        return self.path / f"ckpt-{step}.sha256"

    def _delete(self, step: int) -> None:
        """Delete a checkpoint, its digests first: what is left of it when that is interrupted isn't called damaged."""
        for path in sorted(self._files(step), key=lambda path: (path.suffix != ".sha256", path.suffix != ".index")):
            path.unlink(missing_ok=True)

    def _explain(self, step: int, error: Exception) -> str:
        left = self.steps()
        stands = f"{self.prefix(left[-1])} stands" if left else "there is no earlier one"
        return f"checkpoint {self.prefix(step)} can't be written: {explain_failure(error)}; {stands}."
