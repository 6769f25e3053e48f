"""Warnings of losses by which gradients would depend on how a batch is grouped or padded."""

from __future__ import annotations

import math
import warnings

from seq2split.split.results import ADDED_LOSSES, BatchLosses

_SUM_TOLERANCE = 0.05  # relative; a mean is off by half, and sums by rounding alone
_ADDED_TOLERANCE = 0.01  # relative
_ROUNDING = 1e-6  # absolute, of what layers add


def check_sums(alone: BatchLosses, together: BatchLosses) -> None:
    """Warn of losses that don't seem to be sums over real positions, and of added ones that are no means over rows.

    Args:
        alone: The losses of one row.
        together: Those of the row repeated. Divided by their weights, sums are the same.
    """
    for name, weight in alone.weights.items():
        key = f"{name}/loss"
        own = [each.metrics.get(key, each.loss - each.metrics.get(ADDED_LOSSES, 0.0)) for each in (alone, together)]
        if not math.isclose(*map(float, own), rel_tol=_SUM_TOLERANCE, abs_tol=_SUM_TOLERANCE):
            _warn(
                f"part {name!r} returns a loss that doesn't seem to be a sum over real positions (or a weight that "
                f"doesn't add up): divided by its weight ({weight:g} for one row), it is {own[0]:.4g} for a row "
                f"alone and {own[1]:.4g} for the row repeated. Gradients would then depend on how a batch is grouped. "
                "Take tf.reduce_sum, no mean, and mask padding: losses * tf.sequence_mask(target.lengths, ...)."
            )
    added = [each.metrics.get(ADDED_LOSSES, 0.0) for each in (alone, together)]
    if not math.isclose(*map(float, added), rel_tol=_ADDED_TOLERANCE, abs_tol=_ROUNDING):
        _warn(
            f"layers add losses that don't seem to be means over rows: {added[0]:.4g} for a row alone and "
            f"{added[1]:.4g} for the row repeated. Gradients would then depend on how a batch is grouped. Divide what "
            "add_loss is given by the number of rows, as Keras does with activity regularizers."
        )


def check_padding(padded: BatchLosses, longer: BatchLosses) -> None:
    """Warn of losses that layers add for padding.

    Args:
        padded: The losses of a row in its own bucket.
        longer: Those in the longest bucket.
    """
    added = [each.metrics[ADDED_LOSSES] for each in (padded, longer)]
    if not math.isclose(*map(float, added), rel_tol=_ADDED_TOLERANCE, abs_tol=_ROUNDING):
        _warn(
            f"layers add losses for padded positions too: {added[0]:.4g} for a row in its own bucket, {added[1]:.4g} "
            "in the longest. They depend on the buckets then. Mask what an activity regularizer or add_loss reads, for "
            "example with a layer that multiplies by tf.sequence_mask(lengths, ...), or use one bucket."
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
