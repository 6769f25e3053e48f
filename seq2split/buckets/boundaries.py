"""Buckets: which padded lengths to use, which bucket holds a sequence, and how rows are padded.

A static-shape graph is built for one padded length. A `Buckets` is the list of padded lengths of one side: it is a
plain value (hashable, no arrays inside), and everything here is numpy arithmetic that knows nothing of TensorFlow.

`Buckets.fit` chooses the boundaries with the least padding, exactly. It is the optimal partition of sorted values into
contiguous groups by dynamic programming: W. D. Fisher, "On grouping for maximum homogeneity", Journal of the American
Statistical Association 53(284), 1958; the recurrence is that of H. Wang and M. Song, "Ckmeans.1d.dp: optimal k-means
clustering in one dimension by dynamic programming", The R Journal 3(2), 2011, with padded tokens in place of squared
distances. The best cut never moves left as the prefix grows (A. Aggarwal et al., "Geometric applications of a
matrix-searching algorithm", Algorithmica 2, 1987), so a layer costs O(n log n) time and O(n) memory for n distinct
lengths.

What it does not do well: it looks at one side, so it cannot know which bucket pairs will occur; it counts padded
tokens alone, so it ignores what another graph costs to build, the rows missing from the last batch of a bucket, and
work that grows faster than the length (attention).
"""

import itertools
import operator
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from seq2split.common.choices import check_choice

OVERLONG_CHOICES = ("error", "truncate", "skip")

_LARGEST = int(np.iinfo(np.int64).max)


class OverlongError(ValueError):
    """A sequence is longer than the last bucket, and nobody said what to do with it."""


@dataclass(frozen=True, eq=False)
class Admission:
    """Which rows stay, and at what length, when the last bucket is too short for some.

    Attributes:
        kept: int64 [kept rows], the positions of the rows that stay, in order.
        lengths: int64 [kept rows], their lengths after truncation, in tokens.
        truncated: How many rows were cut to the last boundary.
        skipped: How many rows were left out.
    """

    kept: np.ndarray
    lengths: np.ndarray
    truncated: int
    skipped: int


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Buckets:
    """The padded lengths of one side, shortest first.

    Attributes:
        boundaries: The padded lengths in tokens, strictly increasing. Bucket `i` holds the sequences that are longer
            than `boundaries[i - 1]` and not longer than `boundaries[i]`.

    Example:
        >>> buckets = Buckets([8, 16, 24, 40])
        >>> buckets
        Buckets([8, 16, 24, 40])
        >>> buckets.assign([0, 8, 9, 40])
        array([0, 0, 1, 3])
        >>> len(buckets), buckets == Buckets(range(8, 25, 8))
        (4, False)
    """

    boundaries: tuple[int, ...]

    def __init__(self, boundaries: Iterable[int]):
        """Checks and keeps the boundaries.

        Args:
            boundaries: Any iterable of whole numbers (numpy's too), positive and strictly increasing.

        Raises:
            TypeError: `boundaries` cannot be iterated over, or one of them is no whole number (bools are refused).
            ValueError: There are none, one is not positive or above int64, or they are not strictly increasing.
        """
        object.__setattr__(self, "boundaries", _checked_boundaries(boundaries))

    @classmethod
    def fit(cls, lengths: ArrayLike, count: int) -> "Buckets":
        """Returns the buckets that pad these lengths the least.

        No other choice of at most `count` boundaries has fewer padded tokens; the last boundary is the longest
        length. Where there are no more distinct lengths than `count`, every distinct length is a boundary: fewer
        buckets than asked for, no padding, and no error. Among equally good choices, the one with the shortest
        second-to-last boundary wins, then the one before it, and so on: equal lengths give equal buckets, whatever
        their order.

        Args:
            lengths: Integers of any shape, each at least 1: the lengths in tokens.
            count: The most buckets to use, at least 1.

        Returns:
            The buckets, min(count, number of distinct lengths) of them.

        Raises:
            TypeError: `lengths` or `count` is not integral.
            ValueError: There are no lengths, a length or `count` is below 1, or the padded tokens overflow int64.

        Example:
            >>> Buckets.fit([3, 3, 4, 9, 10, 30], count=3)
            Buckets([4, 10, 30])
            >>> Buckets.fit([5, 5, 7], count=6)
            Buckets([5, 7])
        """
        count = _checked_int("count", count, least=1)
        lengths = _checked_lengths(lengths, least=1)
        if not lengths.size:
            raise ValueError("Buckets.fit got no lengths; give at least one, or write the boundaries: Buckets([8, 16])")
        if lengths.size * int(lengths.max()) > _LARGEST:
            raise ValueError(
                f"{lengths.size} lengths padded to the longest, {lengths.max()}, are more tokens than int64 counts; "
                "expected lengths of sequences; drop the outliers before the fit"
            )
        distinct, tallies = np.unique(lengths, return_counts=True)
        return cls(_least_padding(distinct, tallies, count))

    def __len__(self) -> int:
        return len(self.boundaries)

    def __repr__(self) -> str:
        return f"Buckets({list(self.boundaries)})"

    def assign(self, lengths: ArrayLike) -> np.ndarray:
        """Returns the bucket of each length: the smallest that holds it.

        Args:
            lengths: Integers of any shape, each at least 0, in tokens. An empty sequence goes to the first bucket.

        Returns:
            int64 bucket indices, in the shape of `lengths`.

        Raises:
            OverlongError: A length is above the last boundary; `admit` is the way to truncate or skip such rows.
            TypeError: `lengths` is not integral.
            ValueError: A length is negative.

        Example:
            >>> Buckets([8, 16]).assign([[1, 8], [9, 16]])
            array([[0, 0],
                   [1, 1]])
        """
        lengths = _checked_lengths(lengths, least=0)
        self._refuse_overlong(lengths)
        return np.asarray(np.searchsorted(self._array(), lengths), np.int64)

    def admit(self, lengths: ArrayLike, overlong: str = "error") -> Admission:
        """Decides what becomes of the rows that are longer than the last bucket, and counts them.

        Args:
            lengths: Integers [rows], each at least 0, in tokens.
            overlong: "error" refuses them, "truncate" cuts them to the last boundary, "skip" leaves them out.

        Returns:
            The rows that stay, their lengths, and how many were cut or left out.

        Raises:
            OverlongError: A length is above the last boundary and `overlong` is "error".
            TypeError: `lengths` is not integral.
            ValueError: `overlong` is another word, a length is negative, or `lengths` is not one-dimensional.

        Example:
            >>> admission = Buckets([8, 16]).admit([5, 30, 16], overlong="skip")
            >>> admission.kept, admission.lengths, admission.skipped
            (array([0, 2]), array([ 5, 16]), 1)
        """
        check_choice("overlong", overlong, OVERLONG_CHOICES)
        lengths = _checked_lengths(lengths, least=0)
        if lengths.ndim != 1:
            raise ValueError(f"lengths has shape {lengths.shape}; expected [rows]: one length a row; flatten it first")
        if overlong == "error":
            self._refuse_overlong(lengths)
        last = self.boundaries[-1]
        over = int((lengths > last).sum())
        if overlong == "skip":
            kept = np.flatnonzero(lengths <= last).astype(np.int64)
            return Admission(kept, lengths[kept], truncated=0, skipped=over)
        kept = np.arange(lengths.size, dtype=np.int64)
        return Admission(kept, np.minimum(lengths, last), truncated=over, skipped=0)

    def padded(self, lengths: ArrayLike) -> np.ndarray:
        """Returns the padded length of each length: the boundary of its bucket.

        Args:
            lengths: Integers of any shape, each at least 0, in tokens.

        Returns:
            int64 padded lengths in tokens, in the shape of `lengths`.

        Raises:
            OverlongError: A length is above the last boundary.
            TypeError: `lengths` is not integral.
            ValueError: A length is negative.

        Example:
            >>> Buckets([8, 16]).padded([3, 9])
            array([ 8, 16])
        """
        return np.asarray(self._array()[self.assign(lengths)])

    def thinned(self, count: int) -> "Buckets":
        """Returns fewer buckets that hold the same sequences: every so many boundaries, the last among them.

        Args:
            count: How many, from 1 to the number of these.

        Returns:
            The buckets.

        Raises:
            TypeError: `count` is no whole number.
            ValueError: `count` is below 1, or there are fewer buckets.

        Example:
            >>> Buckets([8, 16, 24, 40]).thinned(2), Buckets([8, 16, 24]).thinned(1)
            (Buckets([16, 40]), Buckets([24]))
        """
        count, have = _checked_int("count", count, least=1), len(self)
        if count > have:
            raise ValueError(f"count is {count}; expected at most {have}, as many as {self} has; lower it")
        return Buckets(self.boundaries[have * number // count - 1] for number in range(1, count + 1))

    def padding_share(self, lengths: ArrayLike) -> float:
        """Returns the share of the padded positions that hold no token.

        Args:
            lengths: Integers of any shape, each at least 0, in tokens.

        Returns:
            A fraction in [0, 1]; 0.0 where there are no lengths.

        Raises:
            OverlongError: A length is above the last boundary.
            TypeError: `lengths` is not integral.
            ValueError: A length is negative.

        Example:
            >>> Buckets([8, 16]).padding_share([6, 12])
            0.25
        """
        lengths = _checked_lengths(lengths, least=0)
        padded = self.padded(lengths)
        if not padded.size:
            return 0.0
        return float((padded - lengths).sum(dtype=np.float64) / padded.sum(dtype=np.float64))

    def _array(self) -> np.ndarray:
        return np.array(self.boundaries, np.int64)

    def _refuse_overlong(self, lengths: np.ndarray) -> None:
        last = self.boundaries[-1]
        over = int((lengths > last).sum())
        if not over:
            return
        longest = int(lengths.max())
        raise OverlongError(
            f"{over} of {lengths.size} lengths are above the last boundary, {last}; the longest is {longest}, at "
            f"position {_position(int(lengths.argmax()), lengths.shape)}. Raise the last boundary to {longest}, or "
            'choose what becomes of such rows with admit(lengths, overlong="truncate") or overlong="skip"'
        )


def pad_rows(sequences: Iterable[ArrayLike], length: int, dtype: DTypeLike = np.int32, fill: float = 0) -> np.ndarray:
    """Pads sequences to one matrix.

    Args:
        sequences: One sequence a row, of shape [time] or [time, features...]; time may differ between rows, the
            features may not. An empty list is an empty sequence of any features.
        length: The padded length in steps; no row may be longer.
        dtype: The dtype of the result. Values that an integer dtype cannot hold are refused, not wrapped.
        fill: What the padded positions hold.

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
    length, dtype = _checked_int("length", length, least=0), np.dtype(dtype)
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
    """Returns how many rows of one padded length a token budget holds.

    Args:
        tokens: The budget of a batch in padded tokens.
        padded_length: The padded length of its rows in tokens, at least 1.
        multiple: The rows are rounded down to a multiple of this, since kernels are compiled per row count. Where not
            even `multiple` rows fit, they are not rounded.

    Returns:
        The rows, at least 1; rows × padded_length never exceeds `tokens`.

    Raises:
        TypeError: An argument is no whole number.
        ValueError: `tokens` is below `padded_length`, or `padded_length` or `multiple` is below 1.

    Example:
        >>> batch_rows(1000, 24), batch_rows(1000, 24, multiple=16), batch_rows(1000, 200, multiple=16)
        (41, 32, 5)
    """
    tokens = _checked_int("tokens", tokens)
    padded_length = _checked_int("padded_length", padded_length, least=1)
    multiple = _checked_int("multiple", multiple, least=1)
    rows = tokens // padded_length
    if rows < 1:
        raise ValueError(
            f"a budget of {tokens} tokens holds not one row of padded length {padded_length}; raise the budget to "
            f"at least {padded_length}, or use shorter buckets"
        )
    return rows - rows % multiple if rows >= multiple else rows


def _least_padding(distinct: np.ndarray, tallies: np.ndarray, count: int) -> np.ndarray:
    """Returns the best boundaries for `tallies[i]` sequences of the increasing lengths `distinct[i]`."""
    if count >= len(distinct):
        return distinct
    totals = np.concatenate([[0], np.cumsum(tallies)])  # totals[j]: sequences of the j shortest distinct lengths
    lengths = np.concatenate([[0], distinct])
    cost = totals * lengths  # cost[j]: padded tokens of those sequences, here in one bucket
    layers = []
    for _ in range(count - 1):
        cuts = _best_cuts(cost, totals, lengths)
        cost = cost[cuts] + (totals - totals[cuts]) * lengths
        layers.append(cuts)
    # One more bucket always saves tokens while lengths share one, so no cut below is 0: there are `count` ends.
    ends = [len(distinct)]
    for cuts in reversed(layers):
        ends.append(cuts[ends[-1]])
    return lengths[ends[::-1]]


def _best_cuts(cost: np.ndarray, totals: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns, for each prefix j, the least i < j that minimizes cost[i] + (totals[j] - totals[i]) * lengths[j].

    The cuts increase with j, so those of j - stride and j + stride bound that of j. Halving the stride solves half of
    the open prefixes at once. (The full [j, i] matrix is shorter to write, but 30 GB at 60,000 distinct lengths.)
    """
    n = len(cost) - 1
    stride = 1 << n.bit_length()
    cuts = np.full(2 * stride, n, np.int64)  # beyond n: no bound
    cuts[0] = 0
    while stride := stride // 2:
        j = np.arange(stride, n + 1, 2 * stride)
        low, high = cuts[j - stride], np.minimum(cuts[j + stride], j - 1)
        widths = high - low + 1
        starts = np.cumsum(widths) - widths
        i = np.arange(widths.sum()) + np.repeat(low - starts, widths)
        owner = np.repeat(j, widths)
        candidates = cost[i] + (totals[owner] - totals[i]) * lengths[owner]
        best = np.repeat(np.minimum.reduceat(candidates, starts), widths)
        cuts[j] = np.minimum.reduceat(np.where(candidates == best, i, n), starts)
    return cuts[: n + 1]


def _checked_boundaries(boundaries: Iterable[int]) -> tuple[int, ...]:
    try:
        values = tuple(boundaries)
    except TypeError:
        raise TypeError(
            f"boundaries is {boundaries!r}; expected an iterable of padded lengths, such as Buckets([8, 16])"
        ) from None
    if not values:
        raise ValueError("boundaries is empty; expected at least one padded length, such as Buckets([8, 16])")
    values = tuple(_checked_int(f"boundaries[{i}]", value, least=1) for i, value in enumerate(values))
    for i, (shorter, longer) in enumerate(itertools.pairwise(values), start=1):
        if longer <= shorter:
            raise ValueError(
                f"boundaries[{i}] is {longer}, after {shorter}; expected strictly increasing padded lengths; "
                "sort them and drop duplicates: Buckets(sorted(set(boundaries)))"
            )
    return values


def _checked_int(name: str, value: int, least: int | None = None) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected a whole number, such as 16; convert it with int()") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; expected at least {least}; raise it")
    if number > _LARGEST:
        raise ValueError(f"{name} is {number}; expected at most {_LARGEST}, the largest int64; lower it")
    return number


def _checked_lengths(lengths: ArrayLike, least: int) -> np.ndarray:
    try:
        array = np.asarray(lengths)
    except ValueError:
        raise ValueError("lengths is ragged; expected one length a sequence: [len(s) for s in sequences]") from None
    if not array.size:
        return np.zeros(array.shape, np.int64)  # numpy takes an empty list for floats
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths holds {array.dtype}; expected integers; convert them with astype(np.int64)")
    for extreme, refused in ((array.argmin(), array.min() < least), (array.argmax(), array.max() > _LARGEST)):
        if refused:
            raise ValueError(
                f"the length at position {_position(int(extreme), array.shape)} is {array.flat[extreme]}; expected "
                f"{least} to {_LARGEST}; drop such sequences first"
            )
    return array.astype(np.int64, copy=False)


def _position(index: int, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    position = tuple(int(i) for i in np.unravel_index(index, shape))
    return position[0] if len(position) == 1 else position


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
    """Returns the shape of one step, which all rows share; an empty row of shape [0] shares any."""
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
    """Returns the array, whose values an integer dtype must be able to hold: numpy would wrap them silently."""
    if dtype.kind not in "iu":
        return array
    info = np.iinfo(dtype)
    if array.size and (array.min() < info.min or array.max() > info.max):
        raise ValueError(
            f"{name} holds {array.min()} to {array.max()}; expected {info.min} to {info.max}, which {dtype} holds; "
            "choose a wider dtype"
        )
    return array
