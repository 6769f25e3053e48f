"""What a training keeps: checkpoints, the best model, candidates for an average, history, and events for TensorBoard.

Without a run directory nothing is written; the best model is then kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from seq2split.runs.best_model import is_average_lost, restore_model, was_validated
from seq2split.runs.checkpoints import Checkpoints
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import History
from seq2split.runs.progress import Progress
from seq2split.runs.sessions import add_session
from seq2split.runs.summaries import SummaryWriter
from seq2split.training.averages import Candidates, MovingAverage, preserved
from seq2split.training.fingerprints import check_same, read_fingerprint, write_fingerprint


class Records:
    """What a training keeps.

    Args:
        run: The run directory; `None` to write nothing.
        progress: How far the training is.
        parts: All variables of each part.
        optimizers: The optimizers by name.
        moving: The moving average, whose values the best model is kept with.
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
        moving: MovingAverage,
        average: int,
        average_of: str,
    ):
        if average and run is None:
            raise ValueError(f"average = {average} keeps models on disk; give a run directory: Trainer(..., run=...).")
        self._run, self._progress, self._parts, self._moving = run, progress, parts, moving
        self._checkpoints = None
        if run:
            self._checkpoints = Checkpoints(run, progress, parts, optimizers, moving.values, moving.applied)
        self.candidates = Candidates(run.candidates, parts, average, average_of) if average else None
        self.history = History(run.history if run else None)
        self.summaries = SummaryWriter(run.events if run else None)
        self._best: list[np.ndarray] | None = None
        self._fingerprint: dict[str, Any] | None = None
        self._changed: dict[str, Any] = {}

    def held(self) -> AbstractContextManager:
        """Return a context in which no other training writes into the run directory; see `RunLock`."""
        return self._run.lock.held() if self._run else nullcontext()

    def what_is_left(self, step_before: int | None) -> str:
        """Return what is left of a training that diverged, as sentences.

        Args:
            step_before: The step of the last checkpoint before the loss rose; `None` if there is none.
        """
        best = int(self._progress.best_step)
        kept = f"The best model, of step {best}, is kept. " if best else ""
        return kept + (self._checkpoints.what_is_left(step_before) if self._checkpoints else "")

    @property
    def resumption(self) -> str:
        """How an interrupted training goes on."""
        return "start it again to resume" if self._run else "call fit again to go on; nothing was written"

    def restore(self, fingerprint: Mapping[str, Any], changed: bool = False) -> list[str]:
        """Restore the latest checkpoint if there is one, unless this training has moved on since.

        Args:
            fingerprint: What decides about the batches; see `Batches.fingerprint`.
            changed: True if the training may go on with other batches than before.

        Returns:
            What to tell: where the training stands, and what was damaged, lost or is otherwise than before.

        Raises:
            ValueError: The checkpoint is of another model, or of a training on other batches.
        """
        if self._fingerprint is None and self._run:
            self._run.sweep()
            told = self._checkpoints.restore()
            before, faults = read_fingerprint(self._run.batches, self._stored()) if self._step else (None, [])
            told = faults + told
        else:
            before = self._fingerprint
            told = [f"going on: {self._progress}" if self._step else "starting; nothing is written"]
            if self._checkpoints:
                self._checkpoints.check_is_latest()
        owner = str(self._run.path) if self._run else "this trainer"
        self._changed = check_same(owner, before or fingerprint, fingerprint, changed)
        if "validation" in self._changed:
            self._progress.forget_best()
            told.append("the validation is another one than before: its next figure counts as the best so far")
        self._fingerprint = {**(before or {}), **fingerprint}
        return told

    def begin(self, *, finished: bool, history: Mapping[str, Any] | None = None, **facts: Any) -> list[str]:
        """Drop what was measured after the step at which the training stands, and record what goes on from here.

        Args:
            finished: True if no step follows.
            history: What `History.state` was at that step.
            **facts: The facts to record of the session.

        Returns:
            What to tell of files that are damaged or lost, and of what is otherwise than before.
        """
        told = self.history.rewind(self._step, finished, history)
        self._store()
        if self.candidates:
            told += self.candidates.rewind(self._step, self._known_figures())
        if self._run:
            self._run.path.mkdir(parents=True, exist_ok=True)
            write_fingerprint(self._run.batches, self._fingerprint)
            changed = {"changed": self._changed} if self._changed else {}
            told += add_session(self._run.sessions, step=self._step, **changed, **facts)
            if not finished:
                self._checkpoints.drop_average()  # it was that of a shorter training
            elif is_average_lost(self._run):
                self.history.drop_average()
                becomes = "it is made again" if self.candidates else "the best model is that of the run again"
                told.append(f"the average of models in {self._run.average} is lost: {becomes}")
        return told

    def add(self, **figures: float) -> None:
        """Add figures of the last step to the history and for TensorBoard."""
        progress = self._progress
        step, seconds, tokens = int(progress.step), float(progress.seconds), int(progress.tokens)
        self.history.add(step=step, seconds=round(seconds, 3), tokens=tokens, **figures)
        self.summaries.scalars(step, **figures)

    def save(self, keep: int | None = None) -> str | None:
        """Write a checkpoint, unless there is one of this step, and return its path.

        Args:
            keep: The step of a checkpoint to keep beside this one and the one before.
        """
        return self._checkpoints.save(keep) if self._checkpoints else None

    def save_best(self) -> None:
        """Keep the model as the best so far."""
        if self._checkpoints:
            self._checkpoints.save_best()
        else:
            with self._moving.applied():
                self._best = [variable.numpy() for variable in self._variables()]

    def load_best(self) -> None:
        """Give the parts the variables of the best model, or of the average if that is better.

        Raises:
            ValueError: Nothing was validated yet.
        """
        if self._best is None and not (self._run and was_validated(self._run)):
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

    @property
    def _step(self) -> int:
        return int(self._progress.step)

    def _stored(self) -> dict[str, Any] | None:
        """Return the fingerprint of the batches that the checkpoint holds; one of an earlier version holds none."""
        return json.loads(self._progress.settings.numpy()).get("batches")

    def _store(self) -> None:
        settings = json.loads(self._progress.settings.numpy()) | {"batches": self._fingerprint}
        self._progress.settings.assign(json.dumps(settings))

    def _known_figures(self) -> dict[int, float]:
        """Return what validations found so far, higher being better, by step."""
        judged = json.loads(self._progress.settings.numpy()).get("judged", {})
        name, sign = f"validation_{judged.get('monitor')}", 1.0 if judged.get("mode") == "max" else -1.0
        return {entry["step"]: sign * entry[name] for entry in self.history.entries if name in entry}
