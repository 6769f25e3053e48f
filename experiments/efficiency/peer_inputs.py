"""What the networks of the peers read, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from seq2split.split.sequences import Sequences

Batch = Mapping[str, "Sequences"]
MASKED = -1e9
"""The score of what must not be attended to."""


class Inputs(NamedTuple):
    """A batch; every row has at least one piece on either side.

    Attributes:
        source: Pieces `[rows, source]`.
        lengths: Of the sources, `[rows]`.
        previous: The pieces before those that are predicted, `[rows, target]`.
        labels: The pieces that are predicted, likewise.
        real: Whether they are no padding, likewise.
    """

    source: np.ndarray
    lengths: np.ndarray
    previous: np.ndarray
    labels: np.ndarray
    real: np.ndarray

    @classmethod
    def of(cls, batch: Batch, bos: int) -> Inputs:
        """Those of a batch, whose targets begin after the piece `bos`."""
        (source, lengths), (labels, label_lengths) = batch["source"], batch["target"]
        previous = np.roll(labels, 1, axis=1)
        previous[:, 0] = bos
        return cls(source, lengths, previous, labels, np.arange(labels.shape[1]) < label_lengths[:, None])


@cache
def places(time: int, units: int) -> np.ndarray:
    """The sinusoids that tell places apart, `[time, units]`: first all sines, then all cosines."""
    half = (units + 1) // 2
    angles = np.arange(time)[:, None] * 1e4 ** (-np.arange(half) / max(1, half - 1))
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)[:, :units].astype(np.float32)
