"""That all subjects compute the same: without it their times mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from efficiency.batches import Batch
from efficiency.peer_process import PeerError
from efficiency.subjects import Subject
from efficiency.weights import variables_of

REFERENCE = "joint-pairs"
LOSS_TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 3e-2}
GRADIENT_TOLERANCE = {"float32": 1e-3, "mixed_bfloat16": 0.5}  # small ones cancel; unrelated ones differ by over 1
_ROUNDING = 1e-7


class DisagreementError(ValueError):
    """Two subjects don't compute the same."""


def check(subjects: Mapping[str, Any], batch: Batch, precision: str) -> None:
    """Compare the losses and the gradients of subjects on a batch.

    Before any step every network has nearly the loss of a uniform guess: it is the gradients that tell. A peer that
    fails is passed over; it won't be timed.

    Args:
        subjects: By name; from the same weights, before any step.
        batch: What they are compared on.
        precision: The Keras policy of all.

    Raises:
        DisagreementError: They differ from `REFERENCE`, or from the first where that isn't measured, by more than
            rounding explains.
    """
    reference, expected = None, None
    for name in sorted(subjects, key=lambda name: name != REFERENCE):
        try:
            found = _compute(subjects[name], batch)
        except PeerError:
            continue
        if expected is None:
            reference, expected = name, found
        _compare(name, found, reference, expected, precision)


Computed = tuple[float, dict[str, np.ndarray]]
"""A loss, and the gradients by the names of their variables."""


def _compare(name: str, found: Computed, reference: str, expected: Computed, precision: str) -> None:
    (loss, gradients), (expected_loss, expected_gradients) = found, expected
    if not abs(loss / expected_loss - 1.0) <= LOSS_TOLERANCE[precision]:
        raise DisagreementError(f"the loss of {name} is {loss}, but that of {reference} is {expected_loss}.")
    if gradients.keys() != expected_gradients.keys():
        others = sorted(gradients.keys() ^ expected_gradients.keys())
        raise DisagreementError(f"{name} and {reference} have gradients of other variables: {', '.join(others)}.")
    for variable, wanted in expected_gradients.items():
        error = _error(gradients[variable], wanted)
        if not error <= GRADIENT_TOLERANCE[precision]:
            raise DisagreementError(
                f"the gradient of {variable} of {name} differs from that of {reference} by {error:.1e} of the "
                f"largest entry; expected at most {GRADIENT_TOLERANCE[precision]}."
            )


def _compute(subject: Any, batch: Batch) -> Computed:
    loss, gradients = subject.loss_and_gradients(batch)
    return float(loss), _named(subject, gradients) if isinstance(subject, Subject) else gradients


def _named(subject: Subject, gradients: dict[str, list]) -> dict[str, np.ndarray]:
    """Gradients by the names that the peers use, or by paths where the peers have no such model."""
    try:
        names = {id(variable): name for name, variable in variables_of(*subject.layers.values()).items()}
    except (AttributeError, ValueError):
        names = {}
    return {
        names.get(id(variable), variable.path): tf.convert_to_tensor(gradient).numpy()
        for part, variables in subject.variables.items()
        for variable, gradient in zip(variables, gradients[part], strict=True)
    }


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / (np.abs(expected).max() + _ROUNDING))
