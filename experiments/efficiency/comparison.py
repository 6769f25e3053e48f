"""The runs of several machines side by side, in one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from efficiency.plan import PRECISIONS, WORKLOADS
from efficiency.records import Record, Records
from seq2split.common.tables import table

SHOWN = (
    "split",
    "split-fine",
    "joint-pairs",
    "dynamic",
    "diagonal",
    "packed",
    "torch",
    "torch-compile",
    "jax",
)
"""What one would train with; the others explain."""


def compare(paths: Iterable[Path]) -> str:
    """Show what runs found.

    Args:
        paths: Files that `bucket_efficiency.py --json` wrote, each of one machine and one model.

    Returns:
        A Markdown table of tokens in a second: a row for each workload, model, precision and machine, those of one
        precision one below the other, the fastest subject in bold. Below it are the machines, and who failed.

    Raises:
        ValueError: A file holds no records.
    """
    runs = [Records.load(path) for path in paths]
    cells = [
        [workload, model, precision, run.machine.short, *_speeds(run, workload, precision)]
        for workload in WORKLOADS
        for model in dict.fromkeys(run.model for run in runs)
        for precision in PRECISIONS
        for run in runs
        if run.model == model
    ]
    headers = ["corpus", "model", "precision", "machine", *SHOWN, "products / step"]
    shown = table(headers, [row for row in cells if set(row[4:]) != {"-"}], markdown=True)
    machines = dict.fromkeys(f"- {run.machine.text}" for run in runs)
    failures = dict.fromkeys(f"- {run.machine.short}: {name} {reason}" for run in runs for name, reason in run.failures)
    return "\n".join([shown, "", *machines, *failures])


def _speeds(run: Records, workload: str, precision: str) -> list[str]:
    """The cells of a row."""
    where = {"workload": workload, "precision": precision}
    found = [_of_main(run, name, **where) for name in SHOWN]
    most = max((each.median for each in found if each), default=None)
    speeds = [
        "-" if each is None else f"**{each.median:,.0f}**" if each.median == most else f"{each.median:,.0f}"
        for each in found
    ]
    products = run.value(subject="products", measure="share of the step of split", **where)
    return [*speeds, "-" if products is None else f"{products:.2f}"]


def _of_main(run: Records, subject: str, **where: str) -> Record | None:
    """The speed of a subject where all were measured: the one that comes with its ratio to split, if any does."""
    found = run.get(subject=subject, measure="tokens/s", **where)
    ratios = {each.buckets for each in run.get(subject=subject, measure="speed of split over it", **where)}
    return next((each for each in found if each.buckets in ratios), found[0] if found else None)
