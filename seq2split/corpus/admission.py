"""What becomes of rows that are longer than the last bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from seq2split.buckets import Admission, Buckets, OverlongError
from seq2split.corpus.corpus import Corpus

_FEW, _FAR = 0.001, 4
"""The share of rows that are few, and how many times longer than all others they are if that is to be told."""


@dataclass(frozen=True)
class Provenance:
    """Where a corpus is from, for messages.

    Attributes:
        name: What they call it.
        mend: What may be done about overlong rows, as a sentence without its full stop.
        place: A function from a side and the number of a row, from 0, to where that row stands.
    """

    name: str
    mend: str
    place: Callable[[str, int], str]


def admit(corpus: Corpus, buckets: dict[str, Buckets], overlong: str, origin: Provenance) -> tuple[Corpus, Admission]:
    """Apply the choice about overlong rows to a corpus.

    Args:
        corpus: The sentence pairs.
        buckets: Of each side.
        overlong: `error`, `truncate` or `skip`, which leaves out the whole pair.
        origin: Where the corpus is from.

    Returns:
        The pairs that stay, cut to the last buckets; and their row numbers, the positions of all sides that each has,
        and how many pairs were truncated and skipped.

    Raises:
        OverlongError: A sentence is too long and `overlong` is `error`.
    """
    if overlong == "error":
        for side in corpus.fields:
            _refuse_overlong(side, corpus.lengths[side], buckets[side].boundaries[-1], origin)
    admitted = {side: buckets[side].admit(corpus.lengths[side], overlong) for side in corpus.fields}
    kept = reduce(np.intersect1d, (each.kept for each in admitted.values()))
    limits = {side: buckets[side].boundaries[-1] for side in corpus.fields}
    sides = {side: [cut(rows[at], limits[side]) for at in kept] for side, rows in corpus.fields.items()}
    over = np.any([corpus.lengths[side][kept] > limits[side] for side in corpus.fields], axis=0)
    stay = Corpus(sides, lines=corpus.lines[kept])
    lengths = np.sum([stay.lengths[side] for side in sides], axis=0)
    return stay, Admission(kept, lengths, truncated=int(over.sum()), skipped=len(corpus) - len(kept))


def _refuse_overlong(side: str, lengths: np.ndarray, last: int, origin: Provenance) -> None:
    over = np.flatnonzero(lengths > last)
    if over.size:
        longest = int(lengths.argmax())
        raise OverlongError(
            f"{origin.name}: {over.size} of {lengths.size} {side} sentences have more pieces than the last bucket of "
            f"that side, {last}; the longest has {lengths[longest]}: {origin.place(side, longest)}. {origin.mend}."
        )


def admit_corpus(
    corpus: Corpus, buckets: dict[str, Buckets], overlong: str, origin: Provenance
) -> tuple[Corpus, str | None]:
    """Apply the choice about overlong rows to a corpus that must not end up empty.

    Args:
        corpus: See `admit`.
        buckets: See `admit`.
        overlong: See `admit`.
        origin: See `admit`.

    Returns:
        The pairs that stay, and what to tell the user about the others, if any.

    Raises:
        OverlongError: A sentence is too long and `overlong` is `error`.
        ValueError: No pair stays.
    """
    stay, admission = admit(corpus, buckets, overlong, origin)
    longest = {side: buckets[side].boundaries[-1] for side in corpus.fields}
    if not len(stay):
        raise ValueError(
            f"all {len(corpus)} pairs of the {origin.name} are longer than the last bucket ({longest} pieces), and "
            "data.overlong skips them: raise the last boundaries of [buckets]."
        )
    over = {side: int((corpus.lengths[side][admission.kept] > longest[side]).sum()) for side in corpus.fields}
    truncated = " and ".join(f"{count} {side}" for side, count in over.items() if count)
    done = [f"truncated {truncated} sentences"] if truncated else []
    done += [f"skipped {admission.skipped} of {len(corpus)} pairs"] if admission.skipped else []
    return stay, f"{origin.name}: {', '.join(done)}, longer than the last bucket ({longest})" if done else None


def describe_outliers(corpus: Corpus, buckets: Mapping[str, Buckets], origin: Provenance) -> Iterator[str]:
    """Yield for each side what to tell of rows that are so much longer than all others that a graph is built for few.

    Args:
        corpus: The sentence pairs.
        buckets: Of each side.
        origin: Where the corpus is from.
    """
    for side, lengths in corpus.lengths.items():
        usual, last = int(np.quantile(lengths, 1 - _FEW, method="lower")), buckets[side].boundaries[-1]
        row, few = int(lengths.argmax()), int((lengths > usual).sum())
        if min(lengths[row], last) > _FAR * usual:
            yield (
                f"{side}: of {len(lengths)} sentences {few} have more than {usual} pieces, and the longest has "
                f"{lengths[row]}: {origin.place(side, int(corpus.lines[row]) - 1)}. Graphs are built for {last} pieces "
                f"all the same; to leave such sentences out, give buckets.{side} as a list that ends before, and set "
                'data.overlong to "skip".'
            )


def cut(row: np.ndarray, length: int) -> np.ndarray:
    """Return a row of pieces cut to a length; the last piece, which ends the sentence, stays the last."""
    return row if len(row) <= length else np.append(row[: length - 1], row[-1])
