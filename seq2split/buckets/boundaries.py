"""Buckets: the padded lengths of one side, and which of them holds a sequence.

A static-shape graph is built for one padded length. A `Buckets` is the list of padded lengths of one side: it is a
plain value (hashable, no arrays inside), and everything here is numpy arithmetic that knows nothing of TensorFlow.

What it does not do well: `Buckets.fit` looks at one side, so it cannot know which bucket pairs will occur; it counts
padded tokens alone, so it ignores what another graph costs to build, the rows missing from the last batch of a bucket,
and work that grows faster than the length (attention).
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from seq2split.buckets.checks import LARGEST, checked_int, checked_lengths, position
from seq2split.buckets.fitting import least_padding
from seq2split.common.choices import check_choice

OVERLONG_CHOICES = ("error", "truncate", "skip")


class OverlongError(ValueError):
    """A sequence is longer than the last bucket, and nothing says what becomes of it."""


@dataclass(frozen=True, eq=False)
class Admission:
    """The rows that stay, and their lengths, when the last bucket is too short for some.

    Attributes:
        kept: int64 [kept rows], the positions of the rows that stay, in order.
        lengths: int64 [kept rows], their lengths after truncation, in tokens.
        truncated: The number of rows that were cut to the last boundary.
        skipped: The number of rows that were left out.
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
        """Check and keeps the boundaries.

        Args:
            boundaries: Any iterable of whole numbers (numpy's too), positive and strictly increasing.

        Raises:
            TypeError: `boundaries` cannot be iterated over, or one of them is no whole number (bools are refused).
            ValueError: There are none, one is not positive or above int64, or they are not strictly increasing.
        """
        object.__setattr__(self, "boundaries", _checked_boundaries(boundaries))

    @classmethod
    def fit(cls, lengths: ArrayLike, count: int) -> "Buckets":
        """Return the buckets that pad these lengths the least.

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
        count = checked_int("count", count, least=1)
        lengths = checked_lengths(lengths, least=1)
        if not lengths.size:
            raise ValueError("Buckets.fit got no lengths; give at least one, or write the boundaries: Buckets([8, 16])")
        if lengths.size * int(lengths.max()) > LARGEST:
            raise ValueError(
                f"{lengths.size} lengths padded to the longest, {lengths.max()}, are more tokens than int64 counts; "
                "expected lengths of sequences; drop the outliers before the fit"
            )
        distinct, tallies = np.unique(lengths, return_counts=True)
        return cls(least_padding(distinct, tallies, count))

    def __len__(self) -> int:
        return len(self.boundaries)

    def __repr__(self) -> str:
        return f"Buckets({list(self.boundaries)})"

    def assign(self, lengths: ArrayLike) -> np.ndarray:
        """Return the bucket of each length: the smallest that holds it.

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
        lengths = checked_lengths(lengths, least=0)
        self._refuse_overlong(lengths)
        return np.asarray(np.searchsorted(self._array(), lengths), np.int64)

    def admit(self, lengths: ArrayLike, overlong: str = "error") -> Admission:
        """Decide what becomes of the rows that are longer than the last bucket, and count them.

        Args:
            lengths: Integers [rows], each at least 0, in tokens.
            overlong: "error" refuses them, "truncate" cuts them to the last boundary, "skip" leaves them out.

        Returns:
            The rows that stay, their lengths, and the numbers of rows that were cut or left out.

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
        lengths = checked_lengths(lengths, least=0)
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
        """Return the padded length of each length: the boundary of its bucket.

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
        """Return fewer buckets that hold the same sequences: every so many boundaries, the last among them.

        Args:
            count: The number of buckets, from 1 to the number of these.

        Returns:
            The buckets.

        Raises:
            TypeError: `count` is no whole number.
            ValueError: `count` is below 1, or there are fewer buckets.

        Example:
            >>> Buckets([8, 16, 24, 40]).thinned(2), Buckets([8, 16, 24]).thinned(1)
            (Buckets([16, 40]), Buckets([24]))
        """
        count, have = checked_int("count", count, least=1), len(self)
        if count > have:
            raise ValueError(f"count is {count}; expected at most {have}, as many as {self} has; lower it")
        return Buckets(self.boundaries[have * number // count - 1] for number in range(1, count + 1))

    def padding_share(self, lengths: ArrayLike) -> float:
        """Return the share of the padded positions that hold no token.

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
        lengths = checked_lengths(lengths, least=0)
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
            f"position {position(int(lengths.argmax()), lengths.shape)}. Raise the last boundary to {longest}, or "
            'choose what becomes of such rows with admit(lengths, overlong="truncate") or overlong="skip"'
        )


def _checked_boundaries(boundaries: Iterable[int]) -> tuple[int, ...]:
    try:
        values = tuple(boundaries)
    except TypeError:
        raise TypeError(
            f"boundaries is {boundaries!r}; expected an iterable of padded lengths, such as Buckets([8, 16])"
        ) from None
    if not values:
        raise ValueError("boundaries is empty; expected at least one padded length, such as Buckets([8, 16])")
    values = tuple(checked_int(f"boundaries[{i}]", value, least=1) for i, value in enumerate(values))
    for i, (shorter, longer) in enumerate(itertools.pairwise(values), start=1):
        if longer <= shorter:
            raise ValueError(
                f"boundaries[{i}] is {longer}, after {shorter}; expected strictly increasing padded lengths; "
                "sort them and drop duplicates: Buckets(sorted(set(boundaries)))"
            )
    return values
