"""Checks of what the trainer is given, before hours of work start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from seq2split.corpus import Batches
from seq2split.training.callbacks import Callback

_FRACTIONS = {"clip_norm"}


def check_types(batches: Any, validation: Any, callbacks: Any) -> None:
    """Check what `Trainer.fit` works with.

    Args:
        batches: The batches to train on.
        validation: The validation.
        callbacks: The callbacks.

    Raises:
        TypeError: One of them is of another kind.
    """
    if not isinstance(batches, Batches):
        raise TypeError(
            f"fit was given {type(batches).__name__}; expected Batches, in which a training knows its place: "
            "s2s.Batches(fields, model, tokens=...)."
        )
    if isinstance(validation, Mapping):
        raise TypeError(
            "fit was given a mapping as its validation; expected s2s.Batches(fields, model), or a function of the "
            "model that returns figures."
        )
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"fit was given {type(callback).__name__} as a callback; expected an s2s.Callback. Those of Keras are "
                "for Keras's own fit."
            )


def check_at_least(least: int, **values: float) -> None:
    """Check numbers by name.

    Raises:
        ValueError: One of them is below `least`, or not finite.
    """
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} is {value}; expected a finite number, at least {least}.")
        if name not in _FRACTIONS and value != int(value):
            raise ValueError(f"{name} is {value}; expected a whole number, at least {least}.")
