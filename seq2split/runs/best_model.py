"""The model of a run: what is read of it to translate and to evaluate, and whether it is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

import tensorflow as tf

from seq2split.runs.checkpoint_folder import CheckpointFolder
from seq2split.runs.checkpoints import DamageError, named, read_checkpoint
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import read_history

_VALUE = "progress/{}/.ATTRIBUTES/VARIABLE_VALUE"


def restore_model(run: RunDirectory, parts: Mapping[str, Sequence]) -> str | None:
    """Restore the variables of the best model of a run.

    That is the average of validated models if it is better than each of them; or else the best of them; or the latest,
    if none was validated yet. A training may go on meanwhile.

    Args:
        run: The run directory.
        parts: All variables of each part.

    Returns:
        The path of the checkpoint; `None` if there is none.

    Raises:
        ValueError: The files are damaged or lost, or hold another model.
    """
    for left in reversed(range(_TRIES)):
        before = _listing(run)
        try:
            return _restore(run, parts)
        except ValueError:
            time.sleep(_PAUSE)
            if not left or before == _listing(run):
                raise
    return None


_TRIES, _PAUSE = 10, 0.1  # seconds; a training that goes on deletes a model where it has written a better one


def _listing(run: RunDirectory) -> list[list[int]]:
    return [CheckpointFolder(folder).steps() for folder in (run.average, run.best, run.latest)]


def _restore(run: RunDirectory, parts: Mapping[str, Sequence]) -> str | None:
    folders = map(CheckpointFolder, (run.average, run.best, run.latest))
    folder = next((each for each in folders if each.steps()), None)
    if folder is None:
        return None
    _check_none_is_better(run, folder)
    return _read(folder, folder.steps()[-1], parts)


def was_validated(run: RunDirectory) -> bool:
    """Return whether a run has, or had, a best model."""
    if any(CheckpointFolder(folder).steps() for folder in (run.average, run.best)):
        return True
    try:
        return bool(*_progress(run, "best_step"))
    except ValueError:
        return False


def is_average_lost(run: RunDirectory) -> bool:
    """Return whether the average of models became the model of the run, and is no longer there."""
    if CheckpointFolder(run.average).steps():
        return False
    try:
        step, settings, best = _progress(run, "step", "settings", "best")
        judged = json.loads(settings)["judged"]
        name, sign = f"average_{judged['monitor']}", 1.0 if judged["mode"] == "max" else -1.0
        figures = [entry[name] for entry in read_history(run.history) if entry["step"] == step and name in entry]
        return bool(figures) and sign * figures[-1] > best
    except (ValueError, KeyError, TypeError):
        return False  # what isn't known of a damaged run is told where it is read


def _read(folder: CheckpointFolder, step: int, parts: Mapping[str, Sequence]) -> str:
    path = folder.prefix(step)
    fault = folder.find_damage(step)
    try:
        if fault is None:
            read_checkpoint(tf.train.Checkpoint(**named(parts)), path)
            return path
    except DamageError as error:
        fault = str(error)
    others = [each for each in folder.steps()[:-1] if folder.find_damage(each) is None]
    mend = f"To use {folder.prefix(others[-1])}, the one before, delete {path}.*" if others else _MEND
    raise ValueError(f"checkpoint {path} is damaged: {fault}. {mend}")


_MEND = "Put back a copy of it; or start the training again, which writes it anew where that can be, or says that not"


def _check_none_is_better(run: RunDirectory, folder: CheckpointFolder) -> None:
    """Refuse to take another model for one that is lost."""
    try:
        (best,) = _progress(run, "best_step")
    except ValueError:
        return  # there is no checkpoint to tell
    lost = run.best if folder.path == run.latest and best else None
    if folder.path != run.average and is_average_lost(run):
        lost = run.average
    if lost:
        what = f"the best model, of step {best}," if lost == run.best else "the average of models, which was the best,"
        given = f"{folder.prefix(folder.steps()[-1])}.*"
        raise ValueError(
            f"{what} is lost: {lost} has no checkpoint. {_MEND}; or, to use the next best in its place, copy {given} "
            f"to {lost}."
        )


def _progress(run: RunDirectory, *names: str) -> list:
    """Return numbers of the progress of the latest checkpoint that can be read.

    Raises:
        ValueError: There is none.
    """
    latest = CheckpointFolder(run.latest)
    for step in reversed(latest.steps()):
        try:
            reader = tf.train.load_checkpoint(latest.prefix(step))
            return [reader.get_tensor(_VALUE.format(name)) for name in names]
        except (tf.errors.OpError, ValueError, RuntimeError, IndexError):
            continue
    raise ValueError(f"{latest.path} has no checkpoint that can be read")
