"""What a run must not lose when it is killed: variables, optimizers, its place in the data, and its best model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import tensorflow as tf

from seq2split.runs.checkpoint_folder import CheckpointFolder
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import read_history
from seq2split.runs.progress import Progress
from seq2split.runs.sessions import read_sessions

Variables = Mapping[str, Sequence]


class Checkpoints:
    """The latest checkpoints of a run, its best model, and an average of models.

    Args:
        run: The run directory.
        progress: How far the run is.
        parts: All variables of each part, those that are not trained among them.
        optimizers: The optimizers by name.
        moving: The variables of a moving average.
        applied: A context in which the parts have the values that validations use and the best model is saved with.
    """

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        parts: Variables,
        optimizers: Mapping[str, Any],
        moving: Sequence[tf.Variable] = (),
        applied: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self._run, self._progress, self._applied = run, progress, applied
        optimizers = {f"optimizer_{name}": one for name, one in optimizers.items()}
        self._whole = tf.train.Checkpoint(progress=progress, moving=list(moving), **named(parts), **optimizers)
        self._parts = tf.train.Checkpoint(**named(parts))
        self._latest, self._best = CheckpointFolder(run.latest), CheckpointFolder(run.best)
        self._average = CheckpointFolder(run.average)

    def restore(self) -> list[str]:
        """Restore the latest checkpoint that is as it was written, if there is one.

        Returns:
            What to tell: damaged checkpoints, which are moved out of the way; where the run stands; and what became of
            a best model that is lost.

        Raises:
            ValueError: All checkpoints are damaged or lost, or they hold another model.
        """
        for folder in (self._latest, self._best, self._average):
            folder.sweep(folder.steps())
        told, damaged = self._set_damaged_aside(self._average), {}
        for step in reversed(self._latest.steps()):
            fault = self._latest.find_damage(step) or self._read(step)
            if fault is None:
                told += [self._set_aside(self._latest, each, why) for each, why in damaged.items()]
                if damaged:
                    told.append(f"going on from the one before, and with it the history is set back to step {step}")
                return [*told, f"resuming from {self._latest.prefix(step)}: {self._progress}", *self._mend_best()]
            damaged[step] = fault
        self._check_nothing_is_lost(damaged)
        return [f"starting a new run; checkpoints go to {self._run.latest}"]

    def save(self, keep: int | None = None) -> str | None:
        """Write a checkpoint of everything, unless this step has one.

        Args:
            keep: The step of a checkpoint to keep beside this one and the one before.

        Returns:
            Its path.
        """
        step, steps = int(self._progress.step), self._latest.steps()
        if step in steps:
            return None
        return self._latest.write(self._whole, step, {*steps[-1:], keep} - {None})

    def save_best(self) -> None:
        """Write the parts as the best so far."""
        with self._applied():
            self._best.write(self._parts, int(self._progress.step))

    def save_average(self) -> None:
        """Write the parts as an average that is better than the best."""
        self._average.write(self._parts, int(self._progress.step))

    def drop_average(self) -> None:
        """Delete the average, if there is one."""
        shutil.rmtree(self._run.average, ignore_errors=True)

    def check_is_latest(self) -> None:
        """Check that no other training went on in the run directory.

        Raises:
            ValueError: There is a later checkpoint.
        """
        steps, here = self._latest.steps(), int(self._progress.step)
        if steps and steps[-1] > here:
            raise ValueError(
                f"{self._run.path} was trained up to step {steps[-1]} by another trainer, since this one left it at "
                f"step {here}; make the model and a trainer anew to go on from there."
            )

    def what_is_left(self, step_before: int | None) -> str:
        """Return which checkpoint is from before a divergence, and how to go on from that, as sentences."""
        later = [step for step in self._latest.steps() if step_before is None or step > step_before]
        if step_before not in self._latest.steps():
            return ""
        told = f"Checkpoint {self._latest.prefix(step_before)} is of before. "
        if later:
            names = " and ".join(f"{self._latest.prefix(step)}.*" for step in later)
            told += f"To go on from that, delete {names}, in which the loss had risen already. "
        return told

    def _read(self, step: int) -> str | None:
        """Read a checkpoint of everything, and return what is wrong with it, if it has no digests to tell."""
        try:
            read_checkpoint(self._whole, self._latest.prefix(step), partly=False)
        except DamageError as error:
            return str(error)
        return None

    def _set_damaged_aside(self, folder: CheckpointFolder) -> list[str]:
        faults = {step: folder.find_damage(step) for step in folder.steps()}
        return [self._set_aside(folder, step, fault) for step, fault in faults.items() if fault]

    @staticmethod
    def _set_aside(folder: CheckpointFolder, step: int, fault: str) -> str:
        return f"checkpoint {folder.prefix(step)} is damaged: {fault}; it is kept in {folder.set_aside(step)}"

    def _check_nothing_is_lost(self, damaged: Mapping[int, str]) -> None:
        """Refuse to start a new run where one has been."""
        if damaged:
            faults = "; ".join(f"ckpt-{step}: {fault}" for step, fault in sorted(damaged.items()))
            raise ValueError(
                f"no checkpoint in {self._run.latest} can be read: {faults}. Put back a copy of one, or train anew in "
                f"another run directory.{self._still_there()}"
            )
        if self._best.steps() or self._average.steps() or self._has_saved():
            raise ValueError(
                f"{self._run.latest} has no checkpoint to go on from, though the run has written some: they are lost. "
                "Put back a copy of one, or train anew in another run directory (or in this one, if you delete what "
                f"is in it).{self._still_there()}"
            )

    def _has_saved(self) -> bool:
        """Return whether the records of the run tell of a checkpoint."""
        found: list[list] = [[], []]
        for place, (read, path) in enumerate(((read_sessions, self._run.sessions), (read_history, self._run.history))):
            with suppress(ValueError, OSError):
                found[place] = read(path)
        sessions, entries = found
        every = sessions[-1].get("checkpoint_every", math.inf) if sessions else math.inf
        return any(each.get("step") for each in sessions) or any(entry["step"] > every for entry in entries)

    def _still_there(self) -> str:
        found = next((each for each in (self._average, self._best) if each.steps()), None)
        if found is None or found.find_damage(found.steps()[-1]):
            return ""
        return f" The best model, in {found.path}, is sound: it can be evaluated and translate as before."

    def _mend_best(self) -> list[str]:
        """See to it that the best model is there: write it again from a checkpoint, or say that it is lost."""
        told = self._set_damaged_aside(self._best)
        best, here, left = int(self._progress.best_step), int(self._progress.step), self._best.steps()
        if left and left[-1] > here:
            better = f"until the run finds a better one than it had up to step {here}"
            return [*told, f"{self._best.path} has the model of step {left[-1]}, which stays {better}"]
        if not best or (left and left[-1] >= best):
            return told
        if best not in self._latest.steps() or (best != here and self._latest.find_damage(best)):
            self._progress.forget_best()
            return [*told, f"the best model, of step {best}, is lost: the next validation counts as the best so far"]
        if best != here:
            read_checkpoint(self._whole, self._latest.prefix(best), partly=False)
        self.save_best()
        if best != here:
            read_checkpoint(self._whole, self._latest.prefix(here), partly=False)
        return [*told, f"the best model, of step {best}, is written again from {self._latest.prefix(best)}"]


class DamageError(ValueError):
    """The files of a checkpoint are damaged."""


def read_checkpoint(checkpoint: tf.train.Checkpoint, path: str, partly: bool = True) -> None:
    """Restore a checkpoint, every variable of `checkpoint`.

    Args:
        checkpoint: The objects to restore.
        path: The path of the checkpoint.
        partly: True if the files may hold more than these.

    Raises:
        DamageError: The files are damaged.
        ValueError: They hold another model.
    """
    try:
        status = checkpoint.restore(path)
        status.assert_existing_objects_matched()
        status.expect_partial() if partly else status.assert_consumed()
    except (tf.errors.InvalidArgumentError, AssertionError, IndexError, ValueError) as error:
        if "less bytes than requested" in str(error):  # an IndexError, where a file without digests was cut short
            raise DamageError("its data is cut short") from error
        raise ValueError(
            f"checkpoint {path} is of another model, optimizer or version: {str(error).splitlines()[0]}. Make the "
            "model as it was made then, or give another run directory."
        ) from error
    except tf.errors.OpError as error:
        raise DamageError(f"TensorFlow can't read it ({str(error).splitlines()[0]})") from error


def named(parts: Variables) -> dict[str, dict[str, Any]]:
    """Return the variables of each part by the names that they have in a checkpoint.

    TensorFlow's own tracking overlooks the layers that a Keras layer holds in lists. A variable is named by its place
    and not by its path, in which Keras counts the seed generators of the process.
    """
    return {
        part: {f"{place}_{variable.name.removesuffix(':0')}": variable for place, variable in enumerate(variables)}
        for part, variables in parts.items()
    }
