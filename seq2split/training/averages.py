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
from seq2split.runs.checkpoints import named, read_checkpoint

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
            self._save(step)
        self._keep({each: figures[each] for each in kept})

    def rewind(self, step: int) -> None:
        """Delete what was kept after a step, to which the run was set back."""
        self._keep({each: figure for each, figure in self._figures().items() if each <= step})

    def read_average(self) -> None:
        """Give the variables the mean of the models that are kept, computed in double precision."""
        sums = [0.0] * len(self.variables)
        steps = self.steps
        for step in steps:
            read_checkpoint(self._checkpoint, tf.train.latest_checkpoint(self._path / str(step)))
            values = [np.float64(variable.numpy()) for variable in self.variables]
            sums = [total + value for total, value in zip(sums, values, strict=True)]
        for variable, total in zip(self.variables, sums, strict=True):
            variable.assign((total / len(steps)).astype(tf.as_dtype(variable.dtype).as_numpy_dtype))

    def _save(self, step: int) -> None:
        manager = tf.train.CheckpointManager(self._checkpoint, str(self._path / str(step)), max_to_keep=1)
        manager.save(checkpoint_number=step)

    def _figures(self) -> dict[int, float]:
        index = self._path / _INDEX
        return {int(step): figure for step, figure in json.loads(index.read_text()).items()} if index.exists() else {}

    def _keep(self, figures: dict[int, float]) -> None:
        """Delete all other models. The index never lists one that is incomplete."""
        if self._path.exists():
            write_atomically(self._path / _INDEX, json.dumps(figures).encode())
            for folder in self._path.iterdir():
                if folder.is_dir() and folder.name not in map(str, figures):
                    shutil.rmtree(folder)


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
            self._move(tf.constant(1.0 - min(self._decay, step / (step + 9.0))))

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
