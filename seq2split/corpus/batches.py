"""Batches of an encoded parallel corpus: planned with numpy for each epoch, looked up and prefetched by `tf.data`.

The plan of an epoch depends on the seed and the epoch's number alone. So the position in the data is two integers, and
an interrupted run resumes with exactly the batches that it would have seen; a shuffle buffer would have to be saved
instead, and would forget the order of the sentences in it. Each sentence pair stands in exactly one batch of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from seq2split.buckets import Buckets, batch_rows
from seq2split.split.sequences import Sequences


@dataclass(frozen=True)
class ParallelCorpus:
    """Sentences and their translations as pieces.

    Attributes:
        sides: For each side, such as `source` and `target`, one array of pieces `[length]` for each sentence, int32;
            row by row they belong together.
    """

    sides: Mapping[str, Sequence[np.ndarray]]

    def __len__(self) -> int:
        return len(next(iter(self.sides.values())))

    def lengths(self, side: str) -> np.ndarray:
        """The number of pieces of each sentence of a side, `[sentences]`."""
        return np.array([len(row) for row in self.sides[side]], np.int64)


@dataclass(frozen=True)
class Batch:
    """A batch, and where it stands in the data.

    Attributes:
        epoch: From 0.
        index: Of the batch in the epoch, from 0.
        epoch_batches: How many batches the epoch has.
        fields: The sides, padded to the longest of the batch.
    """

    epoch: int
    index: int
    epoch_batches: int
    fields: dict[str, Sequences]

    @property
    def targets(self) -> int:
        """Real positions of the target side."""
        return int(self.fields["target"].lengths.sum())

    @property
    def tokens(self) -> int:
        """Real positions of all sides."""
        return sum(int(field.lengths.sum()) for field in self.fields.values())

    def positions(self, buckets: dict[str, Buckets]) -> int:
        """Padded positions of all sides."""
        return sum(int(buckets[side].padded(field.lengths).sum()) for side, field in self.fields.items())


class BatchPlan:
    """Which sentence pairs form the batches of each epoch.

    Args:
        corpus: The sentence pairs; more than pairs, where there are more sides than two.
        buckets: Of each side.
        mode: `homogeneous` fills batches with pairs of one bucket pair, and makes mixed batches of those that are left
            over, similar ones together; `mixed` shuffles all uniformly.
        tokens: Budget of a batch in padded positions of all sides.
        row_multiple: Rows of a homogeneous batch are a multiple of this where the budget allows it.
        seed: Of the shuffling.

    Example:
        >>> rows = [np.arange(n) for n in (2, 5, 3, 6, 1)]
        >>> buckets = {"source": Buckets([3, 6]), "target": Buckets([3, 6])}
        >>> plan = BatchPlan(ParallelCorpus({"source": rows, "target": rows}), buckets, tokens=24)
        >>> sorted(sorted(batch.tolist()) for batch in plan.epoch(0))
        [[0, 2, 4], [1, 3]]
    """

    def __init__(
        self,
        corpus: ParallelCorpus,
        buckets: dict[str, Buckets],
        *,
        mode: str = "homogeneous",
        tokens: int,
        row_multiple: int = 1,
        seed: int = 0,
    ):
        assigned = {side: buckets[side].assign(corpus.lengths(side)) for side in corpus.sides}
        self._costs = sum(np.array(buckets[side].boundaries)[each] for side, each in assigned.items())
        self._pairs = np.ravel_multi_index(tuple(assigned.values()), [len(buckets[side]) for side in assigned])
        self._mode, self._tokens, self._row_multiple, self._seed = mode, tokens, row_multiple, seed
        batch_rows(tokens, int(self._costs.max()))  # a budget below one row is an error now, not in mid-epoch

    def epoch(self, number: int) -> list[np.ndarray]:
        """The batches of an epoch, each an array of row numbers; every row stands in one."""
        random = np.random.default_rng([self._seed, number])
        order = random.permutation(len(self._costs))
        if self._mode == "mixed":
            return self._fill(order)
        full, left = self._homogeneous(order)
        batches = full + self._fill(left)
        return [batches[at] for at in random.permutation(len(batches))]

    def _homogeneous(self, order: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """The full batches of each bucket pair, and the rows that are left over, in the order of the pairs.

        So a batch of what is left over spans few buckets, and runs in few graphs.
        """
        pairs = self._pairs[order]
        batches, left = [], [order[:0]]
        for pair in np.unique(pairs):
            rows = order[pairs == pair]
            size = batch_rows(self._tokens, int(self._costs[rows[0]]), self._row_multiple)
            count = len(rows) // size
            batches += np.split(rows[: count * size], count) if count else []
            left.append(rows[count * size :])
        return batches, np.concatenate(left)

    def _fill(self, order: np.ndarray) -> list[np.ndarray]:
        """Cuts rows, in order, into batches within the budget."""
        ends = np.cumsum(self._costs[order])
        batches, start = [], 0
        while start < len(order):
            before = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, before + self._tokens, side="right"))
            batches.append(order[start:stop])
            start = stop
        return batches


def stream(corpus: ParallelCorpus, plan: BatchPlan, epoch: int = 0, index: int = 0) -> Iterator[Batch]:
    """The batches from a position on, without end.

    Args:
        corpus: The sentence pairs.
        plan: Their batches.
        epoch: The epoch of the first batch.
        index: The first batch's number in it.

    Yields:
        The batches, looked up ahead of time by `tf.data`.
    """

    def positions() -> Iterator[tuple]:
        number, skip = epoch, index
        while True:
            batches = plan.epoch(number)
            for at in range(skip, len(batches)):
                yield number, at, len(batches), batches[at]
            number, skip = number + 1, 0

    sides = {
        side: tf.RaggedTensor.from_row_lengths(np.concatenate(rows), corpus.lengths(side))
        for side, rows in corpus.sides.items()
    }

    def look_up(number, at, count, rows):
        taken = {side: tf.gather(ragged, rows) for side, ragged in sides.items()}
        return number, at, count, {side: (rows.to_tensor(), rows.row_lengths()) for side, rows in taken.items()}

    scalar = tf.TensorSpec([], tf.int64)
    dataset = tf.data.Dataset.from_generator(
        positions, output_signature=(scalar, scalar, scalar, tf.TensorSpec([None], tf.int64))
    )
    for number, at, count, fields in dataset.map(look_up).prefetch(8).as_numpy_iterator():
        yield Batch(int(number), int(at), int(count), {side: Sequences(*rows) for side, rows in fields.items()})
