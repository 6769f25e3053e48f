"""Averages of variables: of validated models at the end of a run, and moving with the steps.

Vaswani et al. (2017, https://arxiv.org/abs/1706.03762, section 6.1) translate with the average of the last checkpoints;
a moving average goes back to Polyak and Juditsky (1992). Optimizers are not averaged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.common.files import write_atomically
from seq2split.runs.checkpoint_folder import CheckpointFolder
from seq2split.runs.checkpoints import named, read_checkpoint
from seq2split.runs.digests import digest_of

_INDEX = "figures.json"
CHOICES = ("last", "best")


class Candidates:
    """The validated models of a run that are kept to be averaged, each in a directory named by its step.

    Args:
        path: The directory of these models; made when the first is kept.
        parts: All variables of each part.
        count: The number of models to keep.
        choice: Which to keep: the `last`, or the `best`.

    Attributes:
        variables: All variables that are averaged.
    """

    def __init__(self, path: Path, parts: Mapping[str, Sequence], count: int, choice: str):
        check_choice("average_of", choice, CHOICES)
        self._path, self._count, self._choice = path, count, choice
        self._checkpoint = tf.train.Checkpoint(**named(parts))
        self.variables = [variable for each in parts.values() for variable in each]

    @property
    def steps(self) -> list[int]:
        """The steps at which the models that are kept were validated, in order."""
        return sorted(self._figures())

    def add(self, step: int, figure: float) -> None:
        """Keep the model as it is now if it is one of those to keep, and delete the one whose place it takes.

        Args:
            step: The step of the training.
            figure: The figure of its validation; higher is better.
        """
        figures = self._figures() | {step: figure}
        rank = figures.get if self._choice == "best" else None
        kept = sorted(sorted(figures), key=rank)[-self._count :] if self._count else []
        if step in kept:
            self._folder(step).write(self._checkpoint, step)
        self._keep({each: figures[each] for each in kept})

    def rewind(self, step: int, known: Mapping[int, float]) -> list[str]:
        """Delete what was kept after a step, to which the run was set back, and what is damaged.

        Args:
            step: The step.
            known: The figures of validations by step, as the history has them.

        Returns:
            What to tell of what is damaged.
        """
        folders = self._path.iterdir() if self._path.is_dir() else ()
        kept = sorted(int(path.name) for path in folders if path.name.isdecimal() and int(path.name) <= step)
        told = []
        try:
            figures, is_lost = self._figures(), not (self._path / _INDEX).exists()
        except ValueError:
            figures, is_lost = {}, True
        if is_lost and kept:
            figures = {each: known[each] for each in kept if each in known}
            lost = ", ".join(str(each) for each in kept if each not in known)
            also = f", without the models of steps {lost}, which it lacks" if lost else ""
            told.append(f"{self._path / _INDEX} is damaged or lost: it is written again from the history{also}")
        self._keep({each: figure for each, figure in figures.items() if each <= step})
        return told + self.drop_damaged()

    def drop_damaged(self) -> list[str]:
        """Delete models whose files are not as they were written, and return what to tell of them."""
        figures = self._figures()
        faults = {step: self._folder(step).find_damage(step) for step in figures}
        self._keep({step: figure for step, figure in figures.items() if not faults[step]})
        return [
            f"the model of step {step}, kept for the average, is damaged, and left out: {fault}"
            for step, fault in faults.items()
            if fault
        ]

    def read_average(self) -> None:
        """Give the variables the mean of the models that are kept, computed in double precision."""
        sums = [0.0] * len(self.variables)
        steps = self.steps
        for step in steps:
            read_checkpoint(self._checkpoint, self._folder(step).prefix(step))
            values = [np.float64(variable.numpy()) for variable in self.variables]
            sums = [total + value for total, value in zip(sums, values, strict=True)]
        for variable, total in zip(self.variables, sums, strict=True):
            variable.assign((total / len(steps)).astype(tf.as_dtype(variable.dtype).as_numpy_dtype))

    def _folder(self, step: int) -> CheckpointFolder:
        return CheckpointFolder(self._path / str(step))

    def _figures(self) -> dict[int, float]:
        """Return the figures by step.

        Raises:
            ValueError: The index is damaged.
        """
        index = self._path / _INDEX
        if not index.exists():
            return {}
        try:
            found = json.loads(index.read_bytes())
            digest = found.pop("digest", None)  # an earlier version wrote none
            figures = {int(step): float(figure) for step, figure in found.items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{index} is damaged: {error}.") from error
        if digest not in (None, _digest(figures)):
            raise ValueError(f"{index} isn't what was written.")
        return figures

    def _keep(self, figures: dict[int, float]) -> None:
        """Delete all other models. The index never lists one that is incomplete."""
        if self._path.exists():
            write_atomically(self._path / _INDEX, json.dumps(figures | {"digest": _digest(figures)}).encode())
            for folder in self._path.iterdir():
                if folder.is_dir() and folder.name not in map(str, figures):
                    shutil.rmtree(folder)


def _digest(figures: Mapping[int, float]) -> str:
    return digest_of(json.dumps(figures, sort_keys=True).encode())


class MovingAverage:
    """An exponential moving average of variables, which begins short so that the initial values are soon forgotten.

    Args:
        variables: The variables.
        decay: The share of the average that a step leaves; 0 for no average, which costs nothing.

    Attributes:
        values: The averages, in the order of the variables; a checkpoint holds them.
    """

    def __init__(self, variables: Sequence, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"ema is {decay}; expected at least 0, for no moving average, and below 1.")
        self._variables = list(variables) if decay else []
        self._decay = decay
        self.values = [tf.Variable(variable, trainable=False) for variable in self._variables]
        self._move = tf.function(self._moved, autograph=False, jit_compile=True)

    def reset(self) -> None:
        """Give the averages the values that the variables have now."""
        for variable, value in zip(self._variables, self.values, strict=True):
            value.assign(variable)

    def update(self, step: int) -> None:
        """Move towards the variables as they are now.

        Args:
            step: The step of the training, counted from 1. Step n leaves at most n / (n + 9) of the average.
        """
        if self.values:
            share = 1.0 - min(self._decay, step / (step + 9.0))
            self._move(tf.constant(np.float32(share)))  # a Python number would be cached for ever

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the variables the averages for as long as the context lasts."""
        with preserved(self._variables):
            for variable, value in zip(self._variables, self.values, strict=True):
                variable.assign(value)
            yield

    def _moved(self, share: tf.Tensor) -> None:
        for variable, value in zip(self._variables, self.values, strict=True):
            value.assign_sub((value - variable) * tf.cast(share, value.dtype))


@contextmanager
def preserved(variables: Iterable) -> Iterator[None]:
    """Put back the values of variables in the end."""
    before = [(variable, variable.numpy()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
