"""Examples in memory: rows of any lengths, for each field of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from seq2split.split.sequences import Sequences


class Corpus:
    """Examples in memory.

    Args:
        fields: For each field, such as `source` and `target`, its rows: a list of sequences, a `tf.RaggedTensor`,
            `Sequences` of a padded array and the lengths in it, or an array `[rows, time, ...]` whose rows all have its
            full time. Or an iterable of examples, each a mapping
            from fields to one sequence; a `tf.data.Dataset` of such dictionaries is one. Row by row the fields belong
            together. A row is `[length, ...]`: integers such as pieces, or numbers such as `[time, features]`.
        name: What errors call the corpus.
        lines: The number of each example in what it was read from, which messages name; by default they are counted
            from 1.

    Attributes:
        fields: For each field one array `[length, ...]` for each row.
        lines: The numbers of the examples, `[rows]`.

    Raises:
        ValueError: There are no fields, they differ in their rows, or a row is no sequence of numbers.

    Example:
        >>> corpus = Corpus({"source": [[5, 6, 7], [8]], "target": [[4], [9, 9]]})
        >>> len(corpus), corpus.lengths["source"].tolist()
        (2, [3, 1])
        >>> Corpus([{"source": [5, 6], "target": [4]}]).fields["source"]
        [array([5, 6])]
    """

    def __init__(
        self, fields: Mapping[str, Any] | Iterable[Mapping[str, Any]], name: str = "corpus", lines: Any = None
    ):
        given = fields if isinstance(fields, Mapping) else _by_field(fields, name)
        self.fields: dict[str, list[np.ndarray]] = {field: _rows(rows, field) for field, rows in given.items()}
        counts = {field: len(rows) for field, rows in self.fields.items()}
        if not counts:
            raise ValueError(f"the {name} has no fields; expected one or more, each with its rows.")
        if len(set(counts.values())) != 1:
            raise ValueError(f"the {name} has {counts} rows in its fields; expected as many in each of them.")
        self.lines = np.arange(1, len(self) + 1) if lines is None else np.asarray(lines)

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    @cached_property
    def lengths(self) -> dict[str, np.ndarray]:
        """The length of each row, int64 `[rows]`, for each field."""
        return {field: np.array([len(row) for row in rows], np.int64) for field, rows in self.fields.items()}

    def take(self, rows: Sequence[int]) -> Corpus:
        """Return some of the examples, in the order of `rows`."""
        taken = {field: [each[row] for row in rows] for field, each in self.fields.items()}
        return Corpus(taken, lines=self.lines[rows])

    def digest(self) -> str:
        """Return a hexadecimal digest of all values, which tells this corpus from another."""
        found = hashlib.blake2b(digest_size=16)
        for field in sorted(self.fields):
            found.update(field.encode() + self.lengths[field].tobytes())
            for row in self.fields[field]:
                found.update(str(row.dtype).encode() + np.ascontiguousarray(row).tobytes())
        return found.hexdigest()


def _by_field(examples: Iterable[Mapping[str, Any]], name: str) -> dict[str, list]:
    examples = getattr(examples, "as_numpy_iterator", lambda: examples)()
    if not isinstance(examples, Iterable):
        raise ValueError(
            f"the {name} was given as {examples!r}; expected a mapping from fields to their rows, or an iterable of "
            "examples, each a mapping from fields to one sequence."
        )
    found: dict[str, list] = {}
    for number, example in enumerate(examples):
        if not isinstance(example, Mapping) or (number and example.keys() != found.keys()):
            expected = f"the fields {list(found)}" if number else "a mapping from fields to sequences"
            given = sorted(example) if isinstance(example, Mapping) else type(example).__name__
            raise ValueError(f"example {number} of the {name} is {given}; expected {expected}, as in every example.")
        for field, row in example.items():
            found.setdefault(field, []).append(row)
    return found


def _rows(rows: Any, field: str) -> list[np.ndarray]:
    if isinstance(rows, Sequences):
        rows = [values[:length] for values, length in zip(*map(np.asarray, rows), strict=True)]
    if hasattr(rows, "nested_row_splits"):
        rows = _rows_of_ragged(rows)
    try:
        arrays = [np.asarray(row) for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"field {field!r} can't be read as rows of numbers: {error}. Give one sequence of numbers, or of feature "
            "vectors of one size, for each row."
        ) from error
    for number, array in enumerate(arrays):
        if array.ndim == 0 or array.dtype.kind not in "iufb":
            raise ValueError(
                f"row {number} of field {field!r} is {array.dtype} of shape {list(array.shape)}; expected numbers "
                "[length, ...], such as pieces. Encode text first, and wrap a single number in a list."
            )
    return arrays


def _rows_of_ragged(rows: Any) -> list:
    """Return the rows of a `tf.RaggedTensor`."""
    if rows.ragged_rank > 1:  # tf.ragged.constant calls feature vectors ragged too, though all are of one size
        return rows.to_list()
    return np.split(rows.flat_values.numpy(), rows.row_splits.numpy()[1:-1]) if rows.shape[0] else []
