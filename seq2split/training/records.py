"""What a training keeps: checkpoints, the best model, candidates for an average, history, and events for TensorBoard.

Without a run directory nothing is written; the best model is then kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.common.files import write_atomically
from seq2split.runs.checkpoints import Checkpoints, restore_model
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import History
from seq2split.runs.progress import Progress
from seq2split.runs.sessions import add_session
from seq2split.runs.summaries import SummaryWriter
from seq2split.training.averages import Candidates, preserved


class Records:
    """What a training keeps.

    Args:
        run: The run directory; `None` to write nothing.
        progress: How far the training is.
        parts: All variables of each part.
        optimizers: The optimizers by name.
        moving: The variables of a moving average.
        average: The number of validated models to keep for an average.
        average_of: Which of them to keep; see `Candidates`.

    Attributes:
        history: The history.
        summaries: The events for TensorBoard.
        candidates: The validated models that are kept for an average; `None` if there is to be none.

    Raises:
        ValueError: An average is wanted, but there is no run directory to keep models in.
    """

    def __init__(
        self,
        run: RunDirectory | None,
        progress: Progress,
        parts: Mapping[str, Sequence],
        optimizers: Mapping[str, Any],
        moving: Sequence[tf.Variable],
        average: int,
        average_of: str,
    ):
        if average and run is None:
            raise ValueError(f"average = {average} keeps models on disk; give a run directory: Trainer(..., run=...).")
        self._run, self._progress, self._parts = run, progress, parts
        self._checkpoints = Checkpoints(run, progress, parts, optimizers, moving) if run else None
        self.candidates = Candidates(run.candidates, parts, average, average_of) if average else None
        self.history = History(run.history if run else None)
        self.summaries = SummaryWriter(run.events if run else None)
        self._best: list[np.ndarray] | None = None
        self._fingerprint: dict[str, Any] | None = None

    @property
    def resumption(self) -> str:
        """How an interrupted training goes on."""
        return "start it again to resume" if self._run else "call fit again to go on; nothing was written"

    def restore(self, fingerprint: Mapping[str, Any]) -> str:
        """Restore the latest checkpoint if there is one, unless the training has moved on since; say where it stands.

        Args:
            fingerprint: What decides about the batches; see `Batches.fingerprint`.

        Returns:
            Where the training stands.

        Raises:
            ValueError: The checkpoint is of another model, or of a training on other batches.
        """
        if self._fingerprint not in (None, fingerprint):
            raise ValueError(_other_batches("this trainer", self._fingerprint, fingerprint))
        self._fingerprint = dict(fingerprint)
        if self._checkpoints is None or int(self._progress.step):
            return f"going on: {self._progress}" if int(self._progress.step) else "starting; nothing is written"
        self._check_batches(fingerprint)
        return self._checkpoints.restore()

    def begin(self, *, finished: bool, **facts: Any) -> None:
        """Drop what was measured after the step at which the training stands, and record what goes on from here.

        Args:
            finished: True if no step follows.
            **facts: The facts to record of the session.
        """
        step = int(self._progress.step)
        self.history.rewind(step, finished)
        if self.candidates:
            self.candidates.rewind(step)
        if self._run:
            self._run.path.mkdir(parents=True, exist_ok=True)
            add_session(self._run.sessions, step=step, **facts)
            if not finished:
                self._checkpoints.drop_average()  # it was that of a shorter training

    def add(self, **figures: float) -> None:
        """Add figures of the last step to the history and for TensorBoard."""
        progress = self._progress
        step, seconds, tokens = int(progress.step), float(progress.seconds), int(progress.tokens)
        self.history.add(step=step, seconds=round(seconds, 3), tokens=tokens, **figures)
        self.summaries.scalars(step, **figures)

    def save(self) -> str | None:
        """Write a checkpoint, unless there is one of this step, and return its path."""
        return self._checkpoints.save() if self._checkpoints else None

    def save_best(self) -> None:
        """Keep the model as the best so far."""
        if self._checkpoints:
            self._checkpoints.save_best()
        else:
            self._best = [variable.numpy() for variable in self._variables()]

    def load_best(self) -> None:
        """Give the parts the variables of the best model, or of the average if that is better.

        Raises:
            ValueError: Nothing was validated yet.
        """
        if self._best is None and not (self._run and tf.train.latest_checkpoint(self._run.best)):
            raise ValueError("nothing was validated yet, so that no model is the best; call fit(..., validation=...).")
        if self._run:
            restore_model(self._run, self._parts)
        else:
            for variable, value in zip(self._variables(), self._best, strict=True):
                variable.assign(value)

    def add_candidate(self, step: int, figure: float) -> None:
        """Keep the model for an average, if there is to be one and it is among those to keep."""
        if self.candidates:
            self.candidates.add(step, figure)

    def has_candidates(self) -> bool:
        """Return whether there is to be an average."""
        return self.candidates is not None

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the parts the average of the kept models for as long as the context lasts."""
        with preserved(self.candidates.variables):
            self.candidates.read_average()
            yield

    def keep_average(self, better: bool) -> None:
        """Write the parts, which have the average now, as the model of the run, or delete an older average."""
        if better:
            self._checkpoints.save_average()
        else:
            self._checkpoints.drop_average()

    def _variables(self) -> list:
        return [variable for each in self._parts.values() for variable in each]

    def _check_batches(self, fingerprint: Mapping[str, Any]) -> None:
        """Compare the batches with those of earlier sessions: on others a training can't go on where it stood."""
        file = self._run.batches
        if file.exists() and self._run.has_checkpoint():
            before = json.loads(file.read_text(encoding="utf-8"))
            if before != fingerprint:
                raise ValueError(_other_batches(str(self._run.path), before, fingerprint))
        self._run.path.mkdir(parents=True, exist_ok=True)
        write_atomically(file, (json.dumps(fingerprint, indent=2) + "\n").encode())


def _other_batches(owner: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changed = [name for name in now if before.get(name) != now[name]]
    differences = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in changed)
    return (
        f"{owner} holds a training on other batches ({differences}), in which its place would mean something else; "
        "give the batches that it was started on, or another run directory and trainer."
    )
