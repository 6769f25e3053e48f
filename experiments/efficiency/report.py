"""The records of a run as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from efficiency.layouts import LAYOUTS, layout_of
from efficiency.plan import BUCKETED, FINE, Plan
from efficiency.records import WAY, Record, Records
from efficiency.targets import is_pair, judge
from seq2split.common.tables import table


def text(records: Records, plan: Plan) -> str:
    """The machine, who was not measured, and all tables of what was."""
    parts = [_head(records)]
    parts += [
        _speeds(records, plan, workload, precision) for workload in plan.workloads for precision in plan.precisions
    ]
    parts += [_pairs(records, plan), _bucket_counts(records, plan), _residuals(records, plan)]
    parts += [_forward_runs(records, plan), _building(records, plan), _scaling(records, plan)]
    parts += [_padding(records, plan), _targets(records, plan)]
    return "\n\n".join(part for part in parts if part)


def _head(records: Records) -> str:
    failures = [f"{subject} {reason}" for subject, reason in dict.fromkeys(records.failures)]
    return "\n".join([f"Measured on {records.machine.text}", *failures])


def _titled(title: str, headers: list[str], rows: Iterable[list]) -> str:
    """A table, or nothing where it would be empty."""
    rows = list(rows)
    return f"{title}\n{table(headers, rows, flush_right=True)}" if rows else ""


def _speeds(records: Records, plan: Plan, workload: str, precision: str) -> str:
    where = {"workload": workload, "precision": precision}
    rows = []
    for each in records.get(measure="tokens/s", **where):
        if each.buckets != (plan.fine if each.subject == FINE else plan.main):
            continue
        same = {"subject": each.subject, "buckets": each.buckets}
        ratio = records.get(measure="speed of split over it", **same, **where)
        rows.append([each.subject, f"{each.median:,.0f}", *_quartiles(each, ",.0f"), *_shown_ratio(ratio), each.n])
    fine = f" ({FINE}: {plan.fine})" if FINE in {row[0] for row in rows} else ""
    measured = f"{plan.model}, {workload}, {precision}, {plan.main} buckets a side{fine}"
    title = f"Training, {measured}; real source + target pieces a second"
    headers = ["subject", "tokens/s", "quartiles", "split is faster by", "quartiles", "n"]
    shown = _titled(title, headers, rows)
    for each in records.get(subject="products", measure="share of the step of split", **where):
        low, high = f"{each.low:.2f}", f"{each.high:.2f}"
        shown += f"\nIts matrix products alone take {each.median:.2f} of the step of split ({low} to {high})."
    ways = [each for each in records.get(**where) if each.measure.startswith(WAY)]
    shown += "".join(f"\n{each.subject}, {each.measure.removeprefix(WAY)}: {each.median:,.0f}." for each in ways)
    return shown


def _shown_ratio(found: list[Record]) -> list[str]:
    return [f"{found[0].median:.2f}", *_quartiles(found[0], ".2f")] if found else ["-", "-"]


def _quartiles(record: Record, form: str) -> list[str]:
    return [f"{record.low:{form}} to {record.high:{form}}"]


def _pairs(records: Records, plan: Plan) -> str:
    rows = []
    for precision in plan.precisions:
        found = [each.median for each in records.get(precision=precision, subject="split") if is_pair(each.measure)]
        if found:
            spread = np.percentile(found, [0, 25, 50, 75, 100])
            rows.append([precision, *(f"{ratio:.3f}" for ratio in spread), len(found)])
    where = f"{plan.model}, {plan.workloads[0]}"
    title = f"Step of split over step of joint-pairs, {where}, over all bucket pairs; full batches of each"
    return _titled(title, ["precision", "least", "quartile", "median", "quartile", "most", "pairs"], rows)


def _bucket_counts(records: Records, plan: Plan) -> str:
    where = {"workload": plan.workloads[0], "precision": plan.precisions[0], "measure": "tokens/s"}
    by_count = [[records.value(subject=name, buckets=count, **where) for name in BUCKETED] for count in plan.counts]
    rows = [
        [count, *("-" if each is None else f"{each:,.0f}" for each in found)]
        for count, found in zip(plan.counts, by_count, strict=True)
        if any(found)
    ]
    if len(rows) < 2:
        return ""
    title = f"Tokens/s against buckets, {plan.model}, {plan.workloads[0]}, {plan.precisions[0]}"
    return _titled(title, ["buckets a side", *BUCKETED], rows)


def _residuals(records: Records, plan: Plan) -> str:
    rows = []
    for workload in plan.workloads:
        for each in records.get(workload=workload, measure="residual bytes, encoder"):
            where = {"workload": workload, "subject": each.subject, "precision": each.precision}
            decoder = records.value(measure="residual bytes, decoder", **where) or 0.0
            sizes = [each.median, decoder, each.median + decoder]
            rows.append([workload, each.precision, each.subject, *(f"{size / 1e6:,.2f}" for size in sizes)])
    headers = ["workload", "precision", "subject", "encoder", "decoder", "both"]
    return _titled(f"Residuals of one batch, {plan.model}, MB", headers, rows)


def _forward_runs(records: Records, plan: Plan) -> str:
    rows = [
        [each.subject, f"{each.median:.0f}", f"{records.value(subject=each.subject, measure=_DECODER_RUNS):.0f}"]
        for each in records.get(measure="forward runs, encoder")
    ]
    return _titled(f"Forward executions in a step, {plan.model}", ["subject", "encoder", "decoder"], rows)


def _building(records: Records, plan: Plan) -> str:
    measures = {"graphs": 1, "seconds to build": 1, "memory growth, bytes": 1e6, "resident memory, bytes": 1e6}
    rows = []
    for each in sorted(records.get(measure="graphs"), key=lambda each: (each.subject, each.buckets)):
        same = {"subject": each.subject, "buckets": each.buckets}
        graphs, *others = (records.value(measure=measure, **same) / unit for measure, unit in measures.items())
        rows.append([each.subject, each.buckets, f"{graphs:.0f}", *(f"{value:,.1f}" for value in others)])
    where = f"{plan.model}, {plan.workloads[0]}, {plan.precisions[0]}"
    title = f"Building all graphs, each subject in its own process, {where}"
    return _titled(title, ["subject", "buckets a side", "graphs", "seconds", "growth, MB", "resident, MB"], rows)


def _scaling(records: Records, plan: Plan) -> str:
    """Tokens in a second on some of the cores, and how often those of the first number."""
    rows = []
    for precision in plan.precisions:
        for subject in dict.fromkeys(each.subject for each in records.get(precision=precision, measure="tokens/s")):
            where = {"workload": plan.workloads[0], "precision": precision, "subject": subject}
            found = [records.value(measure=f"tokens/s, {cores} cores", **where) for cores in plan.scaling]
            if any(found):
                speeds = ["-" if each is None else f"{each:,.0f}" for each in found]
                gain = f"{found[-1] / found[0]:.2f}" if found[0] and found[-1] else "-"
                rows.append([precision, subject, *speeds, gain])
    headers = ["precision", "subject", *(f"{cores} cores" for cores in plan.scaling), "last over first"]
    return _titled(f"Tokens/s by cores, {plan.model}, {plan.workloads[0]}", headers, rows)


def _padding(records: Records, plan: Plan) -> str:
    shown = {}
    for each in records.get(measure="padding share"):
        shown.setdefault((each.workload, each.buckets), {})[layout_of(each.subject)] = f"{each.median:.1%}"
    rows = [[*where, *(found.get(name, "-") for name in LAYOUTS)] for where, found in shown.items()]
    return _titled("Padding, share of all positions of an epoch", ["workload", "buckets a side", *LAYOUTS], rows)


def _targets(records: Records, plan: Plan) -> str:
    verdicts = {True: "yes", False: "no", None: "not measured"}
    rows = [
        [each.name, each.bound, "-" if each.reached is None else f"{each.reached:.3f}", verdicts[each.met]]
        for each in judge(records, plan)
    ]
    return _titled(f"Targets, {plan.model}", ["ratio", "target", "reached", "met"], rows)


_DECODER_RUNS = "forward runs, decoder"
