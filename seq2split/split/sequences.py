"""Rows of different lengths in one tensor."""

from __future__ import annotations

from typing import Any, NamedTuple


class Sequences(NamedTuple):
    """Rows of different lengths, padded to one.

    Part outputs and batch fields that have a time axis are wrapped in it; everything else that crosses between parts
    has one entry for each row.

    Attributes:
        values: `[rows, time, ...]`.
        lengths: `[rows]`, integers: positions from there on are padding.
    """

    values: Any
    lengths: Any
