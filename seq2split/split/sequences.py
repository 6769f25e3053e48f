"""Rows of different lengths in one tensor."""

from __future__ import annotations

from typing import Any, NamedTuple


class Sequences(NamedTuple):
    """Rows of different lengths, padded to one.

    Batch fields, and outputs of parts that have a time axis, are `Sequences`; everything else that crosses between
    parts has one entry for each row.

    Attributes:
        values: The positions, `[rows, time, ...]`, or a nest of such tensors.
        lengths: The length of each row, integers `[rows]`; positions at and after it are padding.

    Example:
        >>> import numpy as np
        >>> Sequences(np.array([[5, 6, 7], [8, 0, 0]]), np.array([3, 1])).lengths.tolist()
        [3, 1]
    """

    values: Any
    lengths: Any
