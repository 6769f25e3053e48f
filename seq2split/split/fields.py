"""What a batch gives to a model: its fields as padded numpy arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.buckets import pad_rows
from seq2split.split.grouping import Group
from seq2split.split.sequences import Sequences

Fields = Mapping[str, Any]
"""For each field `Sequences` of arrays, or a list of rows of any lengths."""


def read_fields(
    batch: Fields, positions: Mapping[str, tf.TensorSpec], parts: Collection[str] = ()
) -> dict[str, Sequences]:
    """Return the fields of a batch that a model reads.

    Args:
        batch: For each field `Sequences` of arrays, or a list of rows of any lengths.
        positions: For each field that is read the dtype and shape of one position.
        parts: The names of the model's parts, which no field may have.

    Returns:
        For each of them `Sequences` of numpy arrays, with as many rows.

    Raises:
        ValueError: A field is missing or can't be read, it has the name of a part, or the fields differ in their rows.
    """
    ambiguous = sorted(set(batch) & set(parts))
    if ambiguous:
        raise ValueError(
            f"the batch has a field {ambiguous[0]!r}, which is also the name of a part, so that nobody could tell what "
            f"reads={ambiguous[0]!r} means. Rename the field, or give Node(..., name=...)."
        )
    missing = [field for field in positions if field not in batch]
    if missing:
        raise ValueError(f"the batch has the fields {sorted(batch)}; the model reads {missing} as well.")
    fields = {field: _sequences(batch[field], field, position) for field, position in positions.items()}
    rows = {field: len(sequences.lengths) for field, sequences in fields.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise ValueError(f"the fields of the batch have {rows} rows; expected one or more, as many in each.")
    return fields


def rows_of(sequences: Sequences, group: Group) -> Sequences:
    """Return the rows of a group, padded to its bucket and filled up with empty ones."""
    values, lengths = sequences
    rows, width = len(group.rows), min(values.shape[1], group.length)
    padded = np.zeros([group.size, group.length, *values.shape[2:]], values.dtype)
    padded[:rows, :width] = values[group.rows, :width]
    padded_lengths = np.zeros([group.size], np.int32)
    padded_lengths[:rows] = lengths[group.rows]
    padded[np.arange(group.length) >= padded_lengths[:, None]] = 0  # what stood there may be no valid piece
    return Sequences(padded, padded_lengths)


def _converted(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return values of another dtype; numpy would let integers that are too large for it wrap."""
    converted = values.astype(dtype, casting="same_kind")
    if values.dtype.kind in "iu" and not np.can_cast(values.dtype, dtype) and not np.array_equal(values, converted):
        raise ValueError(f"it holds {values.min()} to {values.max()}")
    return converted


def _sequences(given: Any, field: str, position: tf.TensorSpec) -> Sequences:
    dtype = position.dtype.as_numpy_dtype
    try:
        if isinstance(given, Sequences):
            values, lengths = _converted(np.asarray(given.values), dtype), np.asarray(given.lengths)
        else:
            lengths = np.array([len(row) for row in given], np.int32)
            values = pad_rows(given, int(lengths.max(initial=0)), dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"batch field {field!r} can't be read as {position.dtype.name} positions of shape "
            f"{position.shape.as_list()}: {error}. Convert it, or name its positions with SplitModel(..., fields=...)."
        ) from error
    if values.shape[:1] != lengths.shape or lengths.max(initial=0) > values.shape[1]:
        raise ValueError(
            f"batch field {field!r} has values {list(values.shape)} and lengths {list(lengths.shape)} up to "
            f"{lengths.max(initial=0)}; expected [rows, time, ...] and [rows], no length above the time."
        )
    return Sequences(values, lengths)
