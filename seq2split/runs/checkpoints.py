"""What a run must not lose when it is killed: variables, optimizers, its place in the data, and its best model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from seq2split.runs.directory import RunDirectory
from seq2split.runs.progress import Progress

Variables = Mapping[str, Sequence]


class Checkpoints:
    """The latest checkpoints of a run, its best model, and an average of models.

    Args:
        run: The run directory.
        progress: How far the run is.
        parts: All variables of each part, those that are not trained among them.
        optimizers: The optimizers by name.
        moving: The variables of a moving average.
    """

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        parts: Variables,
        optimizers: Mapping[str, Any],
        moving: Sequence[tf.Variable] = (),
    ):
        self._progress, self._average = progress, run.average
        optimizers = {f"optimizer_{name}": one for name, one in optimizers.items()}
        self._whole = tf.train.Checkpoint(progress=progress, moving=list(moving), **named(parts), **optimizers)
        self._parts = tf.train.Checkpoint(**named(parts))
        self._latest = tf.train.CheckpointManager(self._whole, str(run.latest), max_to_keep=2)
        self._best = tf.train.CheckpointManager(self._parts, str(run.best), max_to_keep=1)

    def restore(self) -> str:
        """Restore the latest checkpoint if there is one, and return where the run stands."""
        path = self._latest.latest_checkpoint
        if path is None:
            return f"starting a new run; checkpoints go to {self._latest.directory}"
        read_checkpoint(self._whole, path, partly=False)
        return f"resuming from {path}: {self._progress}"

    def save(self) -> str | None:
        """Write a checkpoint of everything, unless this step has one, and return its path."""
        step = int(self._progress.step)
        if (self._latest.latest_checkpoint or "").endswith(f"-{step}"):
            return None
        return self._latest.save(checkpoint_number=step)

    def save_best(self) -> None:
        """Write the parts as the best so far."""
        self._best.save(checkpoint_number=int(self._progress.step))

    def save_average(self) -> None:
        """Write the parts as an average that is better than the best."""
        manager = tf.train.CheckpointManager(self._parts, str(self._average), max_to_keep=1)
        manager.save(checkpoint_number=int(self._progress.step))

    def drop_average(self) -> None:
        """Delete the average, if there is one."""
        shutil.rmtree(self._average, ignore_errors=True)


def restore_model(run: RunDirectory, parts: Variables) -> str | None:
    """Restore the variables of the best model of a run.

    That is the average of validated models if it is better than each of them; or else the best of them; or the latest,
    if none was validated yet.

    Args:
        run: The run directory.
        parts: All variables of each part.

    Returns:
        The path of the checkpoint; `None` if there is none.

    Raises:
        ValueError: The files are damaged, or hold another model.
    """
    found = map(tf.train.latest_checkpoint, (run.average, run.best, run.latest))
    path = next(filter(None, found), None)
    if path is not None:
        read_checkpoint(tf.train.Checkpoint(**named(parts)), path)
    return path


def read_checkpoint(checkpoint: tf.train.Checkpoint, path: str, partly: bool = True) -> None:
    """Restore a checkpoint, every variable of `checkpoint`.

    Args:
        checkpoint: The objects to restore.
        path: The path of the checkpoint.
        partly: True if the files may hold more than these.

    Raises:
        ValueError: The files are damaged, or hold another model.
    """
    try:
        status = checkpoint.restore(path)
        status.assert_existing_objects_matched()
        status.expect_partial() if partly else status.assert_consumed()
    except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
        raise ValueError(
            f"checkpoint {path} can't be read; it is damaged or of another model, optimizer or version: "
            f"{str(error).splitlines()[0]}. To go on from an older one, name that in "
            f"{Path(path).parent / 'checkpoint'}."
        ) from error


def named(parts: Variables) -> dict[str, dict[str, Any]]:
    """Return the variables of each part by the names that they have in a checkpoint.

    TensorFlow's own tracking overlooks the layers that a Keras layer holds in lists. A variable is named by its place
    and not by its path, in which Keras counts the seed generators of the process.
    """
    return {
        part: {f"{place}_{variable.name.removesuffix(':0')}": variable for place, variable in enumerate(variables)}
        for part, variables in parts.items()
    }
