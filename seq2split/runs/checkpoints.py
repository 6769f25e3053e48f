"""What a run must not lose when it is killed: variables, optimizers, random state, its place in the data, its best."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from seq2split.corpus.batches import Batch


class Progress(tf.Module):
    """How far a run is. Its numbers are variables, so that a checkpoint holds them.

    Attributes:
        step: Training steps done, each one update.
        epoch: The epoch of the next batch, from 0.
        index: That batch's number in the epoch, from 0.
        tokens: Real source and target positions trained on.
        seconds: Time spent in steps and validations, over all sessions.
        best: The best validation's figure; its sign is such that higher is better.
        best_step: When that was.
        stale: Validations since.
    """

    def __init__(self):
        super().__init__()
        for name in ("step", "epoch", "index", "tokens", "best_step", "stale"):
            setattr(self, name, tf.Variable(0, dtype=tf.int64, trainable=False, name=name))
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="seconds")
        self.best = tf.Variable(-math.inf, dtype=tf.float64, trainable=False, name="best")

    def advance(self, batches: Sequence[Batch], seconds: float) -> None:
        """Notes an update, and the consecutive batches that it was made from."""
        batch = batches[-1]
        last = batch.index + 1 == batch.epoch_batches
        self.step.assign_add(1)
        self.tokens.assign_add(sum(each.tokens for each in batches))
        self.seconds.assign_add(seconds)
        self.epoch.assign(batch.epoch + 1 if last else batch.epoch)
        self.index.assign(0 if last else batch.index + 1)

    def judge(self, figure: float) -> bool:
        """Notes a validation's figure, and returns whether it is the best so far."""
        better = figure > float(self.best)
        self.stale.assign(0 if better else self.stale + 1)
        if better:
            self.best.assign(figure)
            self.best_step.assign(self.step)
        return better

    def __str__(self) -> str:
        return f"{int(self.step)} steps are done, next is batch {int(self.index) + 1} of epoch {int(self.epoch) + 1}"


class Checkpoints:
    """The latest checkpoints of a run, its best one, and an average.

    Args:
        latest: The directory of the latest two.
        best: The directory of the best.
        average: The directory of an average, if there is one.
        progress: How far the run is.
        parts: The layers of the model, by name.
        optimizers: Its optimizers, by name.
        moving: The variables of a moving average.
    """

    def __init__(
        self,
        latest: Path,
        best: Path,
        average: Path,
        progress: Progress,
        parts: dict[str, keras.Layer],
        optimizers: dict[str, keras.optimizers.Optimizer],
        moving: Sequence[tf.Variable] = (),
    ):
        self._progress = progress
        variables = {name: variables_of(layer) for name, layer in parts.items()}
        self._whole = tf.train.Checkpoint(
            progress=progress,
            moving=list(moving),
            **variables,
            **{f"optimizer_{name}": one for name, one in optimizers.items()},
        )
        self._parts, self._average = tf.train.Checkpoint(**variables), average
        self._latest = tf.train.CheckpointManager(self._whole, str(latest), max_to_keep=2)
        self._best = tf.train.CheckpointManager(self._parts, str(best), max_to_keep=1)

    def restore(self) -> str:
        """Restores the latest checkpoint if there is one, and says where the run stands."""
        path = self._latest.latest_checkpoint
        if path is None:
            return f"starting a new run; checkpoints go to {self._latest.directory}"
        read_checkpoint(self._whole, path).assert_consumed()
        return f"resuming from {path}: {self._progress}"

    def save(self) -> None:
        """Writes a checkpoint of everything, unless this step has one."""
        step = int(self._progress.step)
        if not (self._latest.latest_checkpoint or "").endswith(f"-{step}"):
            self._latest.save(checkpoint_number=step)

    def save_best(self) -> None:
        """Writes the parts as the best so far."""
        self._best.save(checkpoint_number=int(self._progress.step))

    def save_average(self) -> None:
        """Writes the parts as an average that is better than the best."""
        manager = tf.train.CheckpointManager(self._parts, str(self._average), max_to_keep=1)
        manager.save(checkpoint_number=int(self._progress.step))

    def drop_average(self) -> None:
        """Deletes the average, if there is one."""
        shutil.rmtree(self._average, ignore_errors=True)


def read_checkpoint(checkpoint: tf.train.Checkpoint, path: str) -> Any:
    """Restores a checkpoint.

    Args:
        checkpoint: What to restore.
        path: Where from.

    Returns:
        TensorFlow's status, every variable of `checkpoint` restored.

    Raises:
        ValueError: The files are damaged, or hold another model.
    """
    try:
        status = checkpoint.restore(path)
        status.assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
        raise ValueError(
            f"checkpoint {path} can't be read; it is damaged or of another version: {str(error).splitlines()[0]}. To "
            f"go on from an older one, name that in {Path(path).parent / 'checkpoint'}."
        ) from error
    return status


def variables_of(layer: keras.Layer) -> dict[str, keras.Variable]:
    """All variables of a layer, seeds of dropout included, by the names that they have in a checkpoint.

    TensorFlow's own tracking overlooks the layers that a Keras layer holds in lists. A variable is named by its place
    and not by its path, in which Keras counts the seed generators of the process.
    """
    return {f"{place}_{variable.name}": variable for place, variable in enumerate(layer.variables)}
