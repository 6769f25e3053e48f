"""Batches that stand for an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from efficiency import workloads
from efficiency.batches import Batch, batch_of, padded, tokens_of
from efficiency.layouts import lay_out
from efficiency.setting import Setting
from efficiency.timing import Work
from efficiency.workloads import SIDES
from seq2split.split.sequences import Sequences


class Sample(NamedTuple):
    """Batches that stand for an epoch.

    Attributes:
        batches: The batches.
        weights: How many of the epoch each stands for.
    """

    batches: list[Batch]
    weights: list[float]

    @classmethod
    def of(cls, layout: str, workload: str, count: int, tokens: int, batches: int) -> Sample:
        """A sample of an epoch, of so many batches of a layout; see `layouts.lay_out`."""
        rows, weights = lay_out(layout, workload, count, tokens).sample(batches)
        corpus = workloads.load(workload)
        return cls([batch_of(corpus, each) for each in rows], weights)

    def work(self, run: Callable[[Any], float]) -> Work:
        """What a subject runs that takes the batches, and returns the seconds of each."""
        return Work(run, self.batches, [tokens_of(batch) for batch in self.batches], self.weights)

    def to_buckets(self, setting: Setting) -> Sample:
        """The batches of one bucket pair, padded to it."""
        pure = [(batch, weight) for batch, weight in zip(*self, strict=True) if _is_pure(batch, setting)]
        return Sample([_to_bucket(batch, setting) for batch, _ in pure], [weight for _, weight in pure])

    def first_pure(self, setting: Setting) -> Batch:
        """The one of middle size among the batches of one bucket pair."""
        pure = [batch for batch in self.batches if _is_pure(batch, setting)]
        return (pure or self.batches)[len(pure or self.batches) // 2]


def _is_pure(batch: Batch, setting: Setting) -> bool:
    """Whether the rows of a batch are of one bucket pair; those left over at the end of an epoch are not."""
    return all(len(set(lengths.tolist())) == 1 for lengths in setting.by_bucket(batch))


def _to_bucket(batch: Batch, setting: Setting) -> Batch:
    lengths = (int(each.max()) for each in setting.by_bucket(batch))
    fields = padded(batch, np.arange(len(batch["source"].lengths)), *lengths)
    return {side: Sequences(*(each.numpy() for each in field)) for side, field in zip(SIDES, fields, strict=True)}
