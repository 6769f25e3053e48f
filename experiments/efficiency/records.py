"""What a measurement leaves: records, and their JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Record:
    """One measure of one subject.

    Attributes:
        workload: The corpus.
        buckets: Of either side.
        precision: The Keras policy, or `any` where it makes no difference.
        model: What was trained.
        subject: Who was measured.
        measure: What, with its unit.
        median: Of the repetitions.
        low: Their lower quartile.
        high: Their upper quartile.
        n: How many they are.
    """

    workload: str
    buckets: int
    precision: str
    model: str
    subject: str
    measure: str
    median: float
    low: float
    high: float
    n: int


def summarize(values: Iterable[float]) -> tuple[float, float, float, int]:
    """Median, quartiles and count.

    Example:
        >>> summarize([3.0, 1.0, 2.0])
        (2.0, 1.5, 2.5, 3)
    """
    values = np.asarray(list(values), float)
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(median), float(low), float(high), len(values)


def validate(given: Mapping[str, Any]) -> None:
    """Check one record as it stands in a file.

    Args:
        given: The record.

    Raises:
        ValueError: Its keys, their types or the order of its figures are wrong.
    """
    expected = {field.name: field.type for field in fields(Record)}
    if given.keys() != expected.keys():
        raise ValueError(f"a record has the keys {sorted(given)}; expected {sorted(expected)}.")
    for name, kind in expected.items():
        if type(given[name]).__name__ != kind:
            raise ValueError(f"a record has the {name} {given[name]!r}; expected a value of type {kind}: {given}")
    figures = [given["low"], given["median"], given["high"]]
    if not all(map(math.isfinite, figures)) or sorted(figures) != figures or given["n"] < 1:
        raise ValueError(f"a record has the figures {figures} of {given['n']} repetitions; expected an order: {given}")


class Records:
    """All records of a run.

    Args:
        model: What is trained.
    """

    def __init__(self, model: str):
        self.all: list[Record] = []
        self._model = model

    def add(self, workload: str, buckets: int, precision: str, subject: str, measure: str, *values: float) -> None:
        """Note one measure, of one value or of all repetitions."""
        self.all.append(Record(workload, buckets, precision, self._model, subject, measure, *summarize(values)))

    def get(self, **wanted: str | int) -> list[Record]:
        """The records that have the given fields."""
        return [each for each in self.all if all(getattr(each, name) == value for name, value in wanted.items())]

    def value(self, **wanted: str | int) -> float | None:
        """The median of the first record that has the given fields; `None` where it wasn't measured."""
        found = self.get(**wanted)
        return found[0].median if found else None

    def save(self, path: str | Path) -> None:
        """Write all as JSON.

        Raises:
            ValueError: A record is not valid.
        """
        given = [asdict(each) for each in self.all]
        for each in given:
            validate(each)
        Path(path).write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Records:
        """Read what `save` wrote.

        Raises:
            ValueError: A record is not valid, or there is none.
        """
        given = json.loads(Path(path).read_text(encoding="utf-8"))
        for each in given:
            validate(each)
        if not given:
            raise ValueError(f"{path} holds no records.")
        records = cls(given[0]["model"])
        records.all = [Record(**each) for each in given]
        return records
