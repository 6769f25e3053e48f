"""Buckets: edges by table, the rest by property."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2split.buckets import OVERLONG_CHOICES, Admission, Buckets, OverlongError

LENGTHS = st.lists(st.integers(0, 60), max_size=40)
BUCKETS = st.sets(st.integers(1, 50), min_size=1, max_size=8).map(sorted).map(Buckets)


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
    for overlong in OVERLONG_CHOICES:
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
