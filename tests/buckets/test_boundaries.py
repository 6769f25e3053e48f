"""Tests of seq2split.buckets.boundaries: edges by table, the rest by property."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2split.buckets import Admission, Buckets, OverlongError, batch_rows, pad_rows
from seq2split.buckets import boundaries as subject

LENGTHS = st.lists(st.integers(0, 60), max_size=40)
POSITIVE_LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)
BUCKETS = st.sets(st.integers(1, 50), min_size=1, max_size=8).map(sorted).map(Buckets)


def padded_tokens(boundaries, lengths):
    """The definition of what `fit` minimizes, in plain Python."""
    return sum(min(b for b in boundaries if b >= length) for length in lengths)


def cheapest_tokens(lengths, count):
    """Brute force: over all sets of boundaries, whether or not a sequence has such a length."""
    longest = max(lengths)
    choices = (c for k in range(count) for c in itertools.combinations(range(1, longest), k))
    return min(padded_tokens((*c, longest), lengths) for c in choices)


def quantile_boundaries(lengths, count):
    return sorted(set(np.quantile(lengths, np.arange(1, count + 1) / count, method="higher").tolist()))


# Construction


@pytest.mark.parametrize(
    "boundaries",
    [[8, 16], (8, 16), range(8, 17, 8), iter([8, 16]), np.array([8, 16]), [np.int32(8), np.uint64(16)]],
)
def test_boundaries_from_any_iterable_of_integers(boundaries):
    buckets = Buckets(boundaries)
    assert buckets.boundaries == (8, 16)
    assert [type(b) for b in buckets.boundaries] == [int, int]


@pytest.mark.parametrize(
    ("boundaries", "error", "message"),
    [
        ([], ValueError, "empty"),
        ([0, 8], ValueError, r"boundaries\[0\] is 0; expected at least 1"),
        ([-8], ValueError, r"boundaries\[0\] is -8"),
        ([8, 8], ValueError, r"boundaries\[1\] is 8, after 8; expected strictly increasing"),
        ([4, 16, 8], ValueError, r"boundaries\[2\] is 8, after 16; .*sort"),
        ([2**63], ValueError, "largest int64"),
        ([8, 16.0], TypeError, r"boundaries\[1\] is 16.0; expected a whole number"),
        (np.array([8.0]), TypeError, "whole number"),
        ([True, 8], TypeError, r"boundaries\[0\] is True"),
        ([np.True_], TypeError, "whole number"),
        (["8"], TypeError, "whole number"),
        ([None], TypeError, "whole number"),
        (8, TypeError, r"boundaries is 8; expected an iterable"),
    ],
)
def test_bad_boundaries(boundaries, error, message):
    with pytest.raises(error, match=message):
        Buckets(boundaries)


def test_buckets_is_a_value():
    buckets = Buckets([8, 16])
    assert buckets == Buckets(np.array([8, 16]))
    assert buckets != Buckets([8, 24])
    assert buckets != (8, 16)
    assert len({buckets, Buckets((8, 16)), Buckets([8])}) == 2
    assert len(buckets) == 2
    assert repr(buckets) == "Buckets([8, 16])"
    assert pickle.loads(pickle.dumps(buckets)) == copy.deepcopy(buckets) == buckets


def test_buckets_is_immutable():
    buckets = Buckets([8, 16])
    with pytest.raises(AttributeError):
        buckets.boundaries = (4,)
    assert buckets.boundaries == (8, 16)


# Fit


@pytest.mark.parametrize(
    ("lengths", "count", "boundaries"),
    [
        ([7], 1, [7]),
        ([7, 7, 7], 3, [7]),
        ([1, 2, 3], 1, [3]),
        ([1, 2, 3], 3, [1, 2, 3]),
        ([3, 1, 2], 9, [1, 2, 3]),
        ([1, 2, 3], 2, [1, 3]),  # {1} {2 3} and {1 2} {3} both cost 7: the shorter boundary wins
        ([1] * 9 + [10] + [11] * 9, 2, [1, 11]),
        ([[4, 9], [4, 30]], 2, [9, 30]),
        (np.array([4, 9], np.uint8), 1, [9]),
    ],
)
def test_fit_edges(lengths, count, boundaries):
    assert Buckets.fit(lengths, count) == Buckets(boundaries)


@pytest.mark.parametrize(
    ("lengths", "count", "error", "message"),
    [
        ([], 2, ValueError, "no lengths"),
        ([3, 0], 2, ValueError, "position 1 is 0; expected 1"),
        ([3, -4, 5], 2, ValueError, "position 1 is -4"),
        ([[3, 4], [5, 0]], 2, ValueError, r"position \(1, 1\) is 0"),
        ([3.0], 2, TypeError, "float64; expected integers"),
        ([True], 2, TypeError, "bool; expected integers"),
        (["3"], 2, TypeError, "expected integers"),
        ([[3], [3, 4]], 2, ValueError, "ragged"),
        ([3], 0, ValueError, "count is 0; expected at least 1"),
        ([3], 2.0, TypeError, "count is 2.0"),
        ([3], True, TypeError, "count is True"),
        ([2**62, 1], 1, ValueError, "more tokens than int64"),
        (np.array([2**63], np.uint64), 1, ValueError, "position 0 is 9223372036854775808"),
    ],
)
def test_fit_refuses(lengths, count, error, message):
    with pytest.raises(error, match=message):
        Buckets.fit(lengths, count)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=20), st.integers(1, 6))
def test_fit_equals_brute_force(lengths, count):
    buckets = Buckets.fit(lengths, count)
    assert len(buckets) == min(count, len(set(lengths)))
    assert padded_tokens(buckets.boundaries, lengths) == cheapest_tokens(lengths, count)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=20), st.integers(1, 6))
def test_fit_breaks_ties_by_the_shortest_boundaries_from_the_right(lengths, count):
    distinct = sorted(set(lengths))
    choices = itertools.combinations(distinct[:-1], min(count, len(distinct)) - 1)
    best = min(choices, key=lambda c: (padded_tokens((*c, distinct[-1]), lengths), c[::-1]))
    assert Buckets.fit(lengths, count) == Buckets((*best, distinct[-1]))


@pytest.mark.parametrize("count", [2, 7, 32])
@pytest.mark.parametrize("distinct", [63, 64, 65, 300])
def test_fit_equals_the_quadratic_program(distinct, count):
    random = np.random.default_rng(distinct * count)
    sizes = np.sort(random.choice(np.arange(1, 1000), distinct, replace=False))
    lengths = np.repeat(sizes, random.geometric(0.02, distinct))
    prefix = [0, *np.searchsorted(lengths, sizes, side="right").tolist()]
    costs = [0] + [math.inf] * distinct
    for _ in range(count):
        costs = [0] + [
            min(costs[i] + (prefix[j] - prefix[i]) * int(sizes[j - 1]) for i in range(j))
            for j in range(1, distinct + 1)
        ]
    assert Buckets.fit(lengths, count).padded(lengths).sum() == costs[-1]


@settings(deadline=None)
@given(POSITIVE_LENGTHS, st.integers(1, 12))
def test_fit_is_never_worse_than_quantiles(lengths, count):
    fitted = padded_tokens(Buckets.fit(lengths, count).boundaries, lengths)
    assert fitted <= padded_tokens(quantile_boundaries(lengths, count), lengths)


@settings(deadline=None)
@given(POSITIVE_LENGTHS, st.integers(1, 12))
def test_more_buckets_never_cost_more(lengths, count):
    fewer, more = (padded_tokens(Buckets.fit(lengths, c).boundaries, lengths) for c in (count, count + 1))
    assert more < fewer or more == fewer == sum(lengths)


@settings(deadline=None)
@given(POSITIVE_LENGTHS, st.integers(1, 12), st.randoms())
def test_fit_ignores_the_order_of_lengths(lengths, count, random):
    shuffled = random.sample(lengths, len(lengths))
    assert Buckets.fit(shuffled, count) == Buckets.fit(lengths, count)


def test_fit_memory_is_linear_in_distinct_lengths():
    buckets = Buckets.fit(np.arange(1, 60_001), 3)  # a [j, i] matrix would take 29 GB
    assert buckets == Buckets([20_000, 40_000, 60_000])


# Assign, padded, padding share


@pytest.mark.parametrize(
    ("lengths", "indices"),
    [
        ([], []),
        ([0, 1, 8, 9, 16, 17, 24], [0, 0, 0, 1, 1, 2, 2]),
        ([[8, 9]], [[0, 1]]),
        (np.zeros([2, 0], np.int32), np.zeros([2, 0])),
        (9, 1),
        (np.array([9], np.uint8), [1]),
    ],
)
def test_assign_edges(lengths, indices):
    assigned = Buckets([8, 16, 24]).assign(lengths)
    assert assigned.dtype == np.int64
    np.testing.assert_array_equal(assigned, indices, strict=False)
    assert assigned.shape == np.shape(lengths)


@given(BUCKETS, LENGTHS)
def test_assign_is_the_smallest_that_fits(buckets, lengths):
    lengths = [length for length in lengths if length <= buckets.boundaries[-1]]
    expected = [min(i for i, b in enumerate(buckets.boundaries) if b >= length) for length in lengths]
    assert buckets.assign(lengths).tolist() == expected
    assert buckets.padded(lengths).tolist() == [buckets.boundaries[i] for i in expected]


@pytest.mark.parametrize("method", ["assign", "padded", "padding_share", "admit"])
def test_overlong_is_an_error_that_says_where(method):
    with pytest.raises(OverlongError) as error:
        getattr(Buckets([8, 16]), method)([3, 17, 30, 16, 30])
    message = str(error.value)
    assert "3 of 5 lengths are above the last boundary, 16; the longest is 30, at position 2." in message
    assert "Raise the last boundary to 30" in message
    assert 'overlong="truncate"' in message
    assert isinstance(error.value, ValueError)


def test_overlong_position_in_a_matrix():
    with pytest.raises(OverlongError, match=r"at position \(1, 0\)"):
        Buckets([8]).assign([[3, 4], [9, 5]])


@pytest.mark.parametrize("method", ["assign", "padded", "padding_share", "admit"])
@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([3, -1], ValueError, "position 1 is -1; expected 0"),
        ([3.0], TypeError, "float64; expected integers"),
        ([False], TypeError, "bool; expected integers"),
    ],
)
def test_bad_lengths(method, lengths, error, message):
    with pytest.raises(error, match=message) as caught:
        getattr(Buckets([8]), method)(lengths)
    assert not isinstance(caught.value, OverlongError)


@pytest.mark.parametrize(
    ("lengths", "padded", "share"),
    [
        ([], [], 0.0),
        ([0], [8], 1.0),
        ([8, 16], [8, 16], 0.0),
        ([6, 12], [8, 16], 0.25),
        ([[1], [9]], [[8], [16]], 14 / 24),
    ],
)
def test_padded_and_padding_share(lengths, padded, share):
    buckets = Buckets([8, 16])
    assert buckets.padded(lengths).dtype == np.int64
    assert buckets.padded(lengths).tolist() == padded
    assert buckets.padding_share(lengths) == share
    assert type(buckets.padding_share(lengths)) is float


# Admit


@pytest.mark.parametrize(
    ("lengths", "overlong", "kept", "after", "truncated", "skipped"),
    [
        ([], "error", [], [], 0, 0),
        ([], "skip", [], [], 0, 0),
        ([0, 16], "error", [0, 1], [0, 16], 0, 0),
        ([17, 4, 16, 99], "truncate", [0, 1, 2, 3], [16, 4, 16, 16], 2, 0),
        ([17, 4, 16, 99], "skip", [1, 2], [4, 16], 0, 2),
        ([17, 18], "skip", [], [], 0, 2),
        ([4, 5], "skip", [0, 1], [4, 5], 0, 0),
    ],
)
def test_admit_edges(lengths, overlong, kept, after, truncated, skipped):
    admission = Buckets([8, 16]).admit(lengths, overlong)
    assert isinstance(admission, Admission)
    assert admission.kept.tolist() == kept
    assert admission.lengths.tolist() == after
    assert (admission.truncated, admission.skipped) == (truncated, skipped)
    assert admission.kept.dtype == admission.lengths.dtype == np.int64
    with pytest.raises(AttributeError):
        admission.skipped = 7


@given(BUCKETS, LENGTHS, st.sampled_from(["truncate", "skip"]))
def test_admit_loses_no_row_and_duplicates_none(buckets, lengths, overlong):
    given_lengths = np.array(lengths, np.int64)
    admission = buckets.admit(given_lengths, overlong)
    last = buckets.boundaries[-1]
    left_out = set(range(len(lengths))) - set(admission.kept.tolist())
    assert sorted([*admission.kept.tolist(), *left_out]) == list(range(len(lengths)))
    assert admission.kept.tolist() == sorted(admission.kept.tolist())
    assert len(left_out) == admission.skipped
    assert all(lengths[i] > last for i in left_out)
    assert admission.lengths.tolist() == [min(lengths[i], last) for i in admission.kept]
    assert admission.truncated == sum(lengths[i] > last for i in admission.kept)
    assert (admission.skipped if overlong == "truncate" else admission.truncated) == 0
    assert given_lengths.tolist() == lengths
    buckets.assign(admission.lengths)


@pytest.mark.parametrize(
    ("boundaries", "count", "expected"),
    [
        ([8], 1, [8]),
        ([1, 2, 3, 4, 5, 6], 1, [6]),
        ([1, 2, 3, 4, 5, 6], 2, [3, 6]),
        ([1, 2, 3, 4, 5, 6], 3, [2, 4, 6]),
        ([1, 2, 3, 4, 5, 6], 4, [1, 3, 4, 6]),
        ([1, 2, 3, 4, 5, 6], 6, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_thinned_keeps_every_so_many_and_the_last(boundaries, count, expected):
    assert Buckets(boundaries).thinned(count) == Buckets(expected)


@pytest.mark.parametrize("count", [0, 3])
def test_thinned_refuses_counts_out_of_range(count):
    with pytest.raises(ValueError, match=f"count is {count}; expected at (least 1|most 2)"):
        Buckets([8, 16]).thinned(count)


def test_admit_does_not_alias_its_input():
    lengths = np.array([4, 5])
    for overlong in subject.OVERLONG_CHOICES:
        assert not np.shares_memory(Buckets([8]).admit(lengths, overlong).lengths, lengths)


@pytest.mark.parametrize(
    ("overlong", "nearest"), [("truncated", "truncate"), ("Skip", "skip"), ("raise an error", "error"), (None, "")]
)
def test_admit_names_the_nearest_choice(overlong, nearest):
    with pytest.raises(ValueError, match=f"expected one of error, truncate, skip; did you mean '{nearest}") as caught:
        Buckets([8]).admit([99], overlong)
    assert repr(overlong) in str(caught.value)


def test_admit_refuses_a_matrix():
    with pytest.raises(ValueError, match=r"shape \(1, 2\); expected \[rows\]"):
        Buckets([8]).admit([[3, 4]])


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
