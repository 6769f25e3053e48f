"""Telling a training that diverges: steps that are left out, validations without sense, and the checkpoint from before.

The variables never take up what is not finite: whether the global norm of the gradients is finite is known before they
are applied, and costs nothing, since clipping and the check both need the norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.common.names import variable_path
from seq2split.corpus import Batch
from seq2split.split import LossAndGradients

_SHOWN = 8  # lines that are named of a batch
_ABSURD = 10.0  # times the first loss, that of a model which has learned nothing
_RISEN = 0.5  # of the lowest loss, by which a checkpoint's may be higher


class Divergence:
    """What tells whether a training diverges.

    Args:
        most: The number of steps in a row that may be left out; the last of them ends the training.
        variables: All variables; the untrained ones, which forward passes move (the moving means of batch
            normalization), are put back when a step is left out.
    """

    def __init__(self, most: int, variables: Sequence):
        self._most, self._in_a_row = most, 0
        self._moved = [each for each in variables if not each.trainable and tf.as_dtype(each.dtype).is_floating]
        self._values: list[tf.Tensor] = []
        self._state: dict[str, Any] = {"first": None, "lowest": None, "step": None, "sum": 0.0, "count": 0}

    @property
    def in_a_row(self) -> int:
        """The number of steps that were left out one after the other, up to now."""
        return self._in_a_row

    @property
    def step_before(self) -> int | None:
        """The step of the last checkpoint before the loss rose; `None` before the first."""
        return self._state["step"]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, for `resume`."""
        return dict(self._state)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an earlier session."""
        self._state |= state
        self._in_a_row = 0

    def begin_step(self) -> None:
        """Note the variables that a forward moves; that copies nothing as long as they stay as they are."""
        self._values = [tf.convert_to_tensor(variable) for variable in self._moved]

    def keep_step(self, loss: float) -> None:
        """Note a step that was applied."""
        self._in_a_row = 0
        self._state["first"] = loss if self._state["first"] is None else self._state["first"]
        self._state["sum"] += loss
        self._state["count"] += 1

    def leave_out_step(self) -> bool:
        """Put back what the forward of a step moved, and return whether it was one too many."""
        for variable, value in zip(self._moved, self._values, strict=True):
            variable.assign(value)
        self._in_a_row += 1
        return self._in_a_row >= self._most

    def judge_checkpoint(self, step: int) -> int | None:
        """Note that a checkpoint is written, and return the step of that which is to be kept beside the last two.

        It is the last one in whose steps the loss wasn't much above the lowest: normally the checkpoint itself. So
        however many are written after a training began to diverge, one of before stays.
        """
        state = self._state
        mean = state["sum"] / state["count"] if state["count"] and not self._in_a_row else math.inf
        state["sum"], state["count"] = 0.0, 0
        if state["lowest"] is None:
            limit = math.inf if state["first"] is None else self._most_sensible()
        else:
            limit = state["lowest"] + _RISEN * abs(state["lowest"]) + 0.05 * abs(state["first"])
        if mean <= limit and math.isfinite(mean):
            state["step"] = step
            state["lowest"] = mean if state["lowest"] is None else min(mean, state["lowest"])
        return state["step"]

    def is_absurd(self, loss: float) -> bool:
        """Return whether a loss is far above that of a model which has learned nothing."""
        return not math.isfinite(loss) or (self._state["first"] is not None and loss > self._most_sensible())

    def _most_sensible(self) -> float:
        return _ABSURD * max(abs(self._state["first"]), 1.0)


def describe_bad_step(step: int, group: Sequence[Batch], result: LossAndGradients, names: Mapping, norm: float) -> str:
    """Return what is wrong with a step, and where it comes from.

    Args:
        step: The step.
        group: Its batches.
        result: Its loss and gradients.
        names: The trainable variables of each part.
        norm: The global norm of the gradients.
    """
    name, size = _largest(result.gradients, names)
    largest = f"; the largest gradient is {size:.3g}, of {name}" if name else ""
    return (
        f"in step {step} the loss is {float(result.loss):.6g} and the gradient norm is {norm:.6g}{largest}; "
        f"{' and '.join(map(_place, group))}"
    )


def _largest(gradients: Mapping[str, Sequence], variables: Mapping[str, Sequence]) -> tuple[str, float]:
    """Return the path of the variable with the largest gradient, or the first that isn't finite, and its size."""
    found = ("", -1.0)
    for part, each in gradients.items():
        for gradient, variable in zip(each, variables[part], strict=True):
            if gradient is not None:
                values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
                size = float(np.max(np.abs(values.numpy().astype(np.float64)), initial=0.0))
                if not math.isfinite(size):
                    return variable_path(variable), size
                found = max(found, (variable_path(variable), size), key=lambda pair: pair[1])
    return found


def _place(batch: Batch) -> str:
    shown = ", ".join(map(str, batch.lines[:_SHOWN]))
    others = f" and {len(batch.lines) - _SHOWN} others" if len(batch.lines) > _SHOWN else ""
    return f"batch {batch.index + 1} of epoch {batch.epoch + 1}, lines {shown}{others} of the corpus"
