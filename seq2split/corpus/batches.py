"""Batches of a corpus for a model: planned for each epoch, looked up and prefetched by `tf.data`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.buckets import merge_small
from seq2split.corpus.batch_plan import ORDER, BatchPlan
from seq2split.corpus.corpus import Corpus
from seq2split.split import Sequences, SplitModel
from seq2split.split.wiring import WiredPart

_PREFETCHED = 8


@dataclass(frozen=True)
class Batch(Mapping):
    """A batch, which a model takes as it is, and where it stands in the data.

    Attributes:
        epoch: The number of the epoch, from 0.
        index: The number of the batch in the epoch, from 0.
        epoch_batches: The number of batches in the epoch.
        fields: The fields, padded to the longest row of the batch.
        tokens: The number of real positions of all sides; those of a field that two parts read count twice.
        positions: The number of padded positions of all sides, in the buckets that the model runs them in.
        lines: The numbers of its examples in what the corpus was read from, `[rows]`, from 1; see `Corpus`.
    """

    epoch: int
    index: int
    epoch_batches: int
    fields: dict[str, Sequences]
    tokens: int
    positions: int
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __getitem__(self, field: str) -> Sequences:
        return self.fields[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class Batches:
    """Batches of examples for a model.

    An epoch has every row in exactly one batch, and depends on the seed and its number alone: two integers, `epoch` and
    `index`, say where a training stands in its data.

    Args:
        fields: The examples: for each field its rows, an iterable of examples, or a `Corpus`. See `Corpus`.
        model: The model, whose buckets decide what a row costs and which rows go together.
        tokens: The most padded positions of a batch, added up over all parts that read a field, each row in its own
            bucket; the model may let a few go up to a longer one (`SplitModel(..., group_overhead=...)`).
        mode: `homogeneous` fills batches with rows that share a bucket on every side, and makes mixed ones of what is
            left over; `mixed` shuffles all rows uniformly. The gradients are exact either way.
        seed: The seed of the shuffling.

    Attributes:
        corpus: The examples.

    Raises:
        OverlongError: A row is longer than the last bucket.
        ValueError: A field that the model reads is missing, one is there that it doesn't read, its rows don't fit what
            the model reads of one position, or the budget doesn't hold the longest row.

    Example:
        >>> import seq2split as s2s
        >>> encoder = s2s.Node(s2s.models.RecurrentEncoder(50, 4, 8), "source", s2s.Buckets([4, 8]))
        >>> decoder = s2s.models.RecurrentDecoder(50, 8, 2, 4, 8)
        >>> model = s2s.SplitModel([encoder, s2s.Node(decoder, [encoder, "target"], s2s.Buckets([3, 6]), loss=True)])
        >>> rows = {"source": [[7, 8, 3], [5, 6, 7, 8, 3], [9, 3]], "target": [[7, 3], [5, 3, 3, 3], [8, 3]]}
        >>> batches = Batches(rows, model, tokens=28)
        >>> [(batch.index, batch["source"].lengths.tolist()) for batch in batches]
        [(0, [2, 3, 5])]
    """

    def __init__(
        self,
        fields: Mapping[str, Any] | Iterable[Mapping[str, Any]] | Corpus,
        model: SplitModel,
        *,
        tokens: int = 4096,
        mode: str = "homogeneous",
        seed: int = 0,
    ):
        self.corpus = _conform(fields if isinstance(fields, Corpus) else Corpus(fields), model)
        readers = {name: part for name, part in model.parts.items() if part.field}
        self._lengths = {name: self.corpus.lengths[part.field] for name, part in readers.items()}
        self._padded = {name: _padded(part, self._lengths[name]) for name, part in readers.items()}
        self._buckets = {name: part.buckets for name, part in readers.items()}
        self._settings = {"tokens": int(tokens), "mode": mode, "seed": int(seed), "row_multiple": model.row_multiple}
        self._overhead = model.group_overhead
        self._plan = BatchPlan(self._lengths, self._buckets, **self._settings)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the first epoch."""
        for batch in self.stream():
            yield batch
            if batch.index + 1 == batch.epoch_batches:
                return

    def __len__(self) -> int:
        return len(self._plan.epoch(0))

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides about the batches, as JSON can hold it: two of the same give the same batches."""
        buckets = {name: list(each.boundaries) for name, each in self._buckets.items()}
        corpus = {"digest": self.corpus.digest(), "rows": len(self.corpus)}
        return corpus | {"buckets": buckets, "order": ORDER, **self._settings}

    def stream(self, epoch: int = 0, index: int = 0) -> Iterator[Batch]:
        """Yield the batches from a position on, without end.

        Args:
            epoch: The epoch of the first batch.
            index: The first batch's number in it.

        Yields:
            The batches, looked up ahead of time by `tf.data`.
        """
        for (number, at, count, rows), fields in self._looked_up(epoch, index):
            sequences = {field: Sequences(*each) for field, each in fields.items()}
            tokens = sum(int(each[rows].sum()) for each in self._lengths.values())
            positions = sum(int(merge_small(each[rows], self._overhead).sum()) for each in self._padded.values())
            yield Batch(int(number), int(at), int(count), sequences, tokens, positions, self.corpus.lines[rows])

    def _looked_up(self, epoch: int, index: int) -> Iterator[tuple]:
        ragged = {
            field: tf.RaggedTensor.from_row_lengths(np.concatenate(rows), self.corpus.lengths[field])
            for field, rows in self.corpus.fields.items()
        }

        def look_up(*place):
            taken = {field: tf.gather(each, place[-1]) for field, each in ragged.items()}
            return place, {field: (each.to_tensor(), each.row_lengths()) for field, each in taken.items()}

        scalar = tf.TensorSpec([], tf.int64)
        dataset = tf.data.Dataset.from_generator(
            lambda: self._places(epoch, index),
            output_signature=(scalar, scalar, scalar, tf.TensorSpec([None], tf.int64)),
        )
        return dataset.map(look_up).prefetch(_PREFETCHED).as_numpy_iterator()

    def _places(self, epoch: int, index: int) -> Iterator[tuple]:
        """Yield the epoch, the index, the number of batches in the epoch, and the rows of each batch."""
        while True:
            batches = self._plan.epoch(epoch)
            for at in range(index, len(batches)):
                yield epoch, at, len(batches), batches[at]
            epoch, index = epoch + 1, 0


def _padded(part: WiredPart, lengths: np.ndarray) -> np.ndarray:
    """Return the padded length of each row in the buckets of a part, `[rows]`."""
    try:
        return part.buckets.padded(lengths)
    except ValueError as error:
        error.add_note(f"in field {part.field!r}, which part {part.name!r} reads")
        raise


def _conform(corpus: Corpus, model: SplitModel) -> Corpus:
    """Return the corpus with the dtypes and the fields that the model reads."""
    read, given = set(model.fields), set(corpus.fields)
    if read != given:
        raise ValueError(
            f"the examples have the fields {sorted(given)}, and the model reads {sorted(read)}; give those, under "
            "these names, and no others."
        )
    conformed = {field: _conform_field(rows, field, model.fields[field]) for field, rows in corpus.fields.items()}
    return Corpus(conformed, lines=corpus.lines)


def _conform_field(rows: list[np.ndarray], field: str, position: tf.TensorSpec) -> list[np.ndarray]:
    dtype, shape = position.dtype.as_numpy_dtype, tuple(position.shape)
    conformed = []
    for number, row in enumerate(rows):
        row = row.reshape(0, *shape).astype(dtype) if not len(row) else row
        if row.shape[1:] != shape or not np.can_cast(row.dtype, dtype, "same_kind"):
            raise ValueError(
                f"row {number} of field {field!r} is {row.dtype} of shape {list(row.shape)}; the model reads "
                f"{position.dtype.name} positions of shape {list(shape)}. Convert it, or tell the model: "
                f'SplitModel(..., fields={{"{field}": tf.TensorSpec({list(row.shape[1:])}, tf.{row.dtype})}}).'
            )
        converted = row.astype(dtype)
        if dtype in (np.int32, np.int64) and not np.array_equal(converted, row):
            value = row[converted != row][0]
            raise ValueError(f"row {number} of field {field!r} holds {value}, which {position.dtype.name} can't.")
        conformed.append(converted)
    return conformed
