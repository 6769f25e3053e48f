"""Rows of a batch: how many a token budget holds, and how they are padded to one matrix."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from seq2split.buckets.checks import checked_int


def pad_rows(sequences: Iterable[ArrayLike], length: int, dtype: DTypeLike = np.int32, fill: float = 0) -> np.ndarray:
    """Pad sequences to one matrix.

    Args:
        sequences: One sequence a row, of shape [time] or [time, features...]; time may differ between rows, the
            features may not. An empty list is an empty sequence of any features.
        length: The padded length in steps; no row may be longer.
        dtype: The dtype of the result. Values that an integer dtype cannot hold are refused, not wrapped.
        fill: The value of the padded positions.

    Returns:
        `dtype` [rows, length, features...].

    Raises:
        TypeError: A row is a scalar, or `dtype` is integral and a row or `fill` is not.
        ValueError: A row is longer than `length` or ragged, the features of two rows differ, `length` is negative,
            or a value is out of the range of `dtype`.

    Example:
        >>> pad_rows([[5, 6, 7], [], [8]], length=4)
        array([[5, 6, 7, 0],
               [0, 0, 0, 0],
               [8, 0, 0, 0]], dtype=int32)
        >>> pad_rows([np.ones([2, 3]), np.ones([1, 3])], length=2, dtype=np.float32).shape
        (2, 2, 3)
    """
    length, dtype = checked_int("length", length, least=0), np.dtype(dtype)
    rows = [_checked_row(row, sequence, length, dtype) for row, sequence in enumerate(sequences)]
    _check_kind(np.asarray(fill), dtype, "fill")
    padded = np.full((len(rows), length, *_features(rows)), _fitting(np.asarray(fill), dtype, "fill"), dtype)
    # One scatter for all rows; empty ones would only lend their (float) dtype to the concatenation.
    filled = [row for row in rows if len(row)]
    if filled:
        times = np.array([len(row) for row in rows])
        padded[np.arange(length) < times[:, None]] = _fitting(np.concatenate(filled), dtype, "sequences")
    return padded


def batch_rows(tokens: int, padded_length: int, multiple: int = 1) -> int:
    """Return the number of rows of one padded length that a token budget holds.

    Args:
        tokens: The budget of a batch in padded tokens.
        padded_length: The padded length of its rows in tokens, at least 1.
        multiple: The divisor that the number of rows is rounded down to, since kernels are compiled per row count.
            Where not even `multiple` rows fit, it is not rounded.

    Returns:
        The number of rows, at least 1; rows × padded_length never exceeds `tokens`.

    Raises:
        TypeError: An argument is no whole number.
        ValueError: `tokens` is below `padded_length`, or `padded_length` or `multiple` is below 1.

    Example:
        >>> batch_rows(1000, 24), batch_rows(1000, 24, multiple=16), batch_rows(1000, 200, multiple=16)
        (41, 32, 5)
    """
    tokens = checked_int("tokens", tokens)
    padded_length = checked_int("padded_length", padded_length, least=1)
    multiple = checked_int("multiple", multiple, least=1)
    rows = tokens // padded_length
    if rows < 1:
        raise ValueError(
            f"a budget of {tokens} tokens holds not one row of padded length {padded_length}; raise the budget to "
            f"at least {padded_length}, or use shorter buckets"
        )
    return rows - rows % multiple if rows >= multiple else rows


def _checked_row(row: int, sequence: ArrayLike, length: int, dtype: np.dtype) -> np.ndarray:
    try:
        array = np.asarray(sequence)
    except ValueError:
        raise ValueError(f"row {row} is ragged; expected shape [time] or [time, features...]; pad its steps") from None
    if not array.ndim:
        raise TypeError(f"row {row} is the scalar {sequence!r}; expected a sequence; for one row give [sequence]")
    if len(array) > length:
        raise ValueError(
            f"row {row} has {len(array)} steps; expected at most the padded length, {length}; use a longer bucket, "
            'or cut the rows first (Buckets.admit with overlong="truncate" says which)'
        )
    if len(array):
        _check_kind(array, dtype, f"row {row}")
    return array


def _features(rows: list[np.ndarray]) -> tuple[int, ...]:
    """Return the shape of one step, which all rows share; an empty row of shape [0] shares any."""
    shaped = [(row, array.shape[1:]) for row, array in enumerate(rows) if array.shape != (0,)]
    for row, features in shaped:
        if features != shaped[0][1]:
            raise ValueError(
                f"row {row} has features {features}, row {shaped[0][0]} has {shaped[0][1]}; expected all rows to "
                "agree; reshape or project them to one shape"
            )
    return shaped[0][1] if shaped else ()


def _check_kind(array: np.ndarray, dtype: np.dtype, name: str) -> None:
    if dtype.kind in "iu" and array.dtype.kind not in "biu":
        raise TypeError(f"{name} holds {array.dtype}; expected integers for {dtype}; give dtype={array.dtype}")


def _fitting(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """Return the array, whose values an integer dtype must be able to hold: numpy would wrap them silently."""
    if dtype.kind not in "iu":
        return array
    info = np.iinfo(dtype)
    if array.size and (array.min() < info.min or array.max() > info.max):
        raise ValueError(
            f"{name} holds {array.min()} to {array.max()}; expected {info.min} to {info.max}, which {dtype} holds; "
            "choose a wider dtype"
        )
    return array
