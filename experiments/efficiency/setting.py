"""What a subject is made for: a model, its precision and its buckets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np

from efficiency import workloads
from efficiency.batches import Batch
from efficiency.layouts import GROUP_OVERHEAD, diagonal_pairs
from efficiency.plan import Plan, Sizes
from efficiency.workloads import BOS, SIDES
from seq2split.buckets import Buckets, merge_small
from seq2split.models import RecurrentDecoder, RecurrentEncoder, TransformerDecoder, TransformerEncoder

Pair = tuple[int, int]
Lengths = Callable[[Batch], tuple[np.ndarray, np.ndarray]]
"""For a batch the padded source and target length of each row."""


@dataclass(frozen=True)
class Setting:
    """A model, its precision and its buckets; no arrays, so that it is a key.

    Attributes:
        sizes: Of the model.
        precision: The Keras policy of its layers.
        threads: Among which the rows of a batch are dealt out.
        source: The source buckets, as padded lengths.
        target: The target buckets, likewise.
        diagonal: The source and target length of each bucket that bounds both.
    """

    sizes: Sizes
    precision: str
    threads: int
    source: tuple[int, ...]
    target: tuple[int, ...]
    diagonal: tuple[Pair, ...]

    @classmethod
    def of(cls, plan: Plan, workload: str, count: int, precision: str, threads: int) -> Setting:
        """That of a workload with a number of buckets a side."""
        source, target = (workloads.fit(workload, count)[side].boundaries for side in SIDES)
        diagonal = tuple(diagonal_pairs(workload, count))
        return cls(plan.sizes(workload), precision, threads, source, target, diagonal)

    @classmethod
    def loads(cls, text: str) -> Setting:
        """The inverse of `dumps`."""
        given = json.loads(text)
        given["sizes"] = Sizes(**given["sizes"])
        given["diagonal"] = map(tuple, given["diagonal"])
        return cls(**{name: tuple(value) if isinstance(value, list | map) else value for name, value in given.items()})

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @property
    def buckets(self) -> dict[str, Buckets]:
        """Of both sides."""
        return {side: Buckets(getattr(self, side)) for side in SIDES}

    @property
    def pairs(self) -> list[Pair]:
        """All pairs of buckets."""
        return [(source, target) for source in self.source for target in self.target]

    @property
    def covering(self) -> list[Pair]:
        """As few pairs of buckets as hold each bucket once or more."""
        count = max(len(self.source), len(self.target))
        return [(self.source[at % len(self.source)], self.target[at % len(self.target)]) for at in range(count)]

    @property
    def longest(self) -> Pair:
        """The longest bucket of each side."""
        return self.source[-1], self.target[-1]

    def layers(self) -> tuple[keras.Layer, keras.Layer]:
        """An encoder and a decoder, with the same weights at every call."""
        keras.utils.set_random_seed(1)
        make = _transformer if self.sizes.model == "transformer" else _recurrent
        return make(self.sizes, dtype=self.precision, seed=1)

    def by_bucket(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Each row padded to its bucket, or to the one that a small group goes up to, on either side."""
        return tuple(merge_small(self.buckets[side].padded(batch[side].lengths), GROUP_OVERHEAD) for side in SIDES)

    def by_diagonal(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Each row padded to the bucket that holds its longer side."""
        members = Buckets(map(max, self.diagonal)).assign(np.maximum(*(batch[side].lengths for side in SIDES)))
        return tuple(np.array(self.diagonal)[members].T)

    def by_longest(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Each row padded to the longest bucket of each side."""
        return tuple(np.full(len(batch["source"].lengths), length) for length in self.longest)


def by_batch(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Each row padded to the longest of its batch."""
    return tuple(np.full(len(batch[side].lengths), batch[side].lengths.max()) for side in SIDES)


def _recurrent(sizes: Sizes, **options) -> tuple[RecurrentEncoder, RecurrentDecoder]:
    vocabulary, units, options = sizes.vocabulary, sizes.units, {"cell": sizes.model, **options}
    encoder = RecurrentEncoder(vocabulary, units, units, bidirectional=False, name="encoder", **options)
    return encoder, RecurrentDecoder(vocabulary, units, BOS, units, units, name="decoder", **options)


def _transformer(sizes: Sizes, **options) -> tuple[TransformerEncoder, TransformerDecoder]:
    vocabulary, units, inner = sizes.vocabulary, sizes.units, (sizes.layers, sizes.heads, sizes.feedforward)
    encoder = TransformerEncoder(vocabulary, units, *inner, name="encoder", **options)
    return encoder, TransformerDecoder(vocabulary, units, BOS, units, *inner, name="decoder", **options)
