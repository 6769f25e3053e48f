"""Rows of a batch: edges by table, the rest by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2split.buckets import batch_rows, pad_rows

# Padding rows


@pytest.mark.parametrize(
    ("sequences", "length", "options", "expected"),
    [
        ([], 3, {}, np.zeros([0, 3], np.int32)),
        ([[]], 2, {}, np.zeros([1, 2], np.int32)),
        ([[1, 2], [], [3]], 2, {}, np.int32([[1, 2], [0, 0], [3, 0]])),
        ([[1]], 3, {"fill": -1, "dtype": np.int64}, np.int64([[1, -1, -1]])),
        ([(1, 2), np.uint8([3])], 2, {}, np.int32([[1, 2], [3, 0]])),
        (iter([[1]]), 1, {}, np.int32([[1]])),
        (np.int64([[1, 2], [3, 4]]), 3, {}, np.int32([[1, 2, 0], [3, 4, 0]])),
        ([[0.5], []], 2, {"dtype": np.float32, "fill": np.nan}, np.float32([[0.5, np.nan], [np.nan, np.nan]])),
        ([[True], [True, False]], 2, {"dtype": bool}, np.array([[True, False], [True, False]])),
        ([[[1, 2]], [], [[3, 4], [5, 6]]], 2, {}, np.int32([[[1, 2], [0, 0]], [[0, 0], [0, 0]], [[3, 4], [5, 6]]])),
        ([np.zeros([0, 4])], 2, {}, np.zeros([1, 2, 4], np.int32)),
        ([[], []], 0, {}, np.zeros([2, 0], np.int32)),
        ([np.int64([1]), np.uint64([2])], 1, {}, np.int32([[1], [2]])),
    ],
)
def test_pad_rows_edges(sequences, length, options, expected):
    np.testing.assert_array_equal(pad_rows(sequences, length, **options), expected, strict=True)


@pytest.mark.parametrize(
    ("sequences", "options", "error", "message"),
    [
        ([[1], [1, 2, 3, 4]], {}, ValueError, "row 1 has 4 steps; expected at most the padded length, 3"),
        ([[1], 2], {}, TypeError, "row 1 is the scalar 2"),
        ([[1], [2, [3, 4]]], {}, ValueError, "row 1 is ragged"),
        ([[1], [[1, 2]]], {}, ValueError, r"row 1 has features \(2,\), row 0 has \(\)"),
        ([[], [[1]], np.zeros([0, 2])], {}, ValueError, r"row 2 has features \(2,\), row 1 has \(1,\)"),
        ([[1], [1.5]], {}, TypeError, "row 1 holds float64; expected integers for int32"),
        ([["a"]], {}, TypeError, "row 0 holds <U1"),
        ([[1], [2**31]], {}, ValueError, "holds 1 to 2147483648; expected -2147483648 to 2147483647"),
        ([[-1]], {"dtype": np.uint8}, ValueError, "holds -1 to -1; expected 0 to 255"),
        ([[1]], {"fill": 0.5}, TypeError, "fill holds float64"),
        ([[1]], {"fill": 2**31}, ValueError, "fill holds 2147483648"),
        ([[1]], {"length": -1}, ValueError, "length is -1; expected at least 0"),
        ([[1]], {"length": 3.0}, TypeError, "length is 3.0"),
    ],
)
def test_pad_rows_refuses(sequences, options, error, message):
    with pytest.raises(error, match=message):
        pad_rows(sequences, **{"length": 3, **options})


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), max_size=9), st.integers(0, 3))
def test_pad_rows_round_trips(sequences, extra):
    length = max(map(len, sequences), default=0) + extra
    padded = pad_rows(sequences, length, fill=-7)
    assert padded.shape == (len(sequences), length)
    for row, sequence in zip(padded.tolist(), sequences, strict=True):
        assert row[: len(sequence)] == sequence
        assert set(row[len(sequence) :]) <= {-7}


# Rows of a batch


@pytest.mark.parametrize(
    ("tokens", "padded_length", "multiple", "rows"),
    [
        (8, 8, 1, 1),
        (15, 8, 1, 1),
        (16, 8, 1, 2),
        (1000, 24, 16, 32),
        (16 * 24, 24, 16, 16),
        (16 * 24 - 1, 24, 16, 15),
        (24, 24, 16, 1),
        (np.int64(100), np.int32(10), np.uint8(4), 8),
    ],
)
def test_batch_rows_edges(tokens, padded_length, multiple, rows):
    assert batch_rows(tokens, padded_length, multiple) == rows
    assert type(batch_rows(tokens, padded_length, multiple)) is int


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((7, 8), ValueError, "7 tokens holds not one row of padded length 8; raise the budget to at least 8"),
        ((0, 8), ValueError, "0 tokens holds not one row"),
        ((-9, 8), ValueError, "-9 tokens holds not one row"),
        ((8, 0), ValueError, "padded_length is 0; expected at least 1"),
        ((8, 8, 0), ValueError, "multiple is 0; expected at least 1"),
        ((8.0, 8), TypeError, "tokens is 8.0"),
        ((8, True), TypeError, "padded_length is True"),
    ],
)
def test_batch_rows_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        batch_rows(*arguments)


@given(st.integers(1, 60), st.integers(0, 900), st.integers(1, 20))
def test_batch_rows_is_the_most_that_the_budget_holds(padded_length, extra, multiple):
    tokens = padded_length + extra
    fitting = [rows for rows in range(1, tokens + 1) if rows * padded_length <= tokens]
    rounded = [rows for rows in fitting if rows % multiple == 0]
    assert batch_rows(tokens, padded_length, multiple) == max(rounded or fitting)
