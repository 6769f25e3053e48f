"""What a measurement leaves: records, and their JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from efficiency.machine import Machine

WAY = "tokens/s, as "
"""Begins the measure of one of several ways to run a subject, of which the best counts."""


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
        machine: What it is measured on.

    Attributes:
        all: The records.
        failures: Subjects that were not measured, each with the reason, as a sentence of which it is the subject.
        model: See above.
        machine: See above.
    """

    def __init__(self, model: str, machine: Machine):
        self.all: list[Record] = []
        self.failures: list[tuple[str, str]] = []
        self.model, self.machine = model, machine

    def add(self, workload: str, buckets: int, precision: str, subject: str, measure: str, *values: float) -> None:
        """Note one measure, of one value or of all repetitions."""
        self.all.append(Record(workload, buckets, precision, self.model, subject, measure, *summarize(values)))

    def fail(self, subject: str, reason: str) -> None:
        """Note that a subject was not measured."""
        self.failures.append((subject, reason))

    def get(self, **wanted: str | int) -> list[Record]:
        """The records that have the given fields."""
        return [each for each in self.all if all(getattr(each, name) == value for name, value in wanted.items())]

    def value(self, **wanted: str | int) -> float | None:
        """The median of the first record that has the given fields; `None` where it wasn't measured."""
        found = self.get(**wanted)
        return found[0].median if found else None

    def dumps(self, indent: int | None = None) -> str:
        """As JSON: the model, the machine, failures and records.

        Raises:
            ValueError: A record is not valid.
        """
        found = {"model": self.model, "machine": asdict(self.machine), "failures": self.failures}
        found["records"] = [asdict(each) for each in self.all]
        for each in found["records"]:
            validate(each)
        return json.dumps(found, indent=indent)

    def save(self, path: str | Path) -> None:
        """Write all to a file; see `dumps`."""
        Path(path).write_text(self.dumps(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def loads(cls, text: str) -> Records:
        """The inverse of `dumps`.

        Raises:
            ValueError: A record is not valid, or there is none.
        """
        given = json.loads(text)
        if not isinstance(given, dict) or not given.get("records") or "machine" not in given:
            raise ValueError(
                "it holds no records of a machine; expected what `bucket_efficiency.py --json` writes now."
            )
        for each in given["records"]:
            validate(each)
        machine = given["machine"] | {"extensions": tuple(given["machine"]["extensions"])}
        records = cls(given["model"], Machine(**machine))
        records.all = [Record(**each) for each in given["records"]]
        records.failures = [tuple(each) for each in given["failures"]]
        return records

    @classmethod
    def load(cls, path: str | Path) -> Records:
        """Read what `save` wrote.

        Raises:
            ValueError: See `loads`.
        """
        try:
            return cls.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
