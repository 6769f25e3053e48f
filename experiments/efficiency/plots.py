"""The figures of a run, in colours that the colour-blind tell apart (Okabe and Ito, 2008)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np

from efficiency.layouts import LAYOUTS, layout_of
from efficiency.plan import BUCKETED, GROWING, Plan
from efficiency.records import Record, Records
from efficiency.targets import is_pair
from seq2split.translation import plots

mpl.use("Agg")
from matplotlib import pyplot as plt

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, *_ = plots.COLOURS
STYLE = plots.STYLE | {"figure.constrained_layout.use": True, "axes.titlesize": 10.5}
LAYOUT_LINES = {
    "homogeneous": ("a bucket for each side\n(split, joint-pairs)", BLUE, "o"),
    "diagonal": ("a bucket for both sides\n(diagonal)", VERMILLION, "s"),
    "sorted": ("longest of a sorted batch\n(dynamic, torch)", GREEN, "D"),
    "padded": ("longest of all\n(padded)", PURPLE, "^"),
}
SUBJECT_LINES = {"split": (BLUE, "o"), "joint-pairs": (VERMILLION, "s"), "diagonal": (GREEN, "D")}
PRECISION_COLOURS = {"mixed_bfloat16": BLUE, "float32": ORANGE}


def draw(records: Records, plan: Plan, folder: Path) -> list[Path]:
    """Draw all figures that the records have data for.

    Args:
        records: Of a run.
        plan: What it measured.
        folder: Where the files go; made if it is missing.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[], plt.Figure | None]] = {
        "building": partial(_building, records, plan),
        "padding": partial(_padding, records, plan),
        "speed_by_buckets": partial(_speed_by_buckets, records, plan),
    }
    figures |= {f"speed_{name}": partial(_speed, records, plan, name) for name in plan.workloads}
    figures |= {f"pairs_{_short(name)}": partial(_pairs, records, plan, name) for name in plan.precisions}
    written = []
    with plt.rc_context(STYLE):
        for name, make in figures.items():
            figure = make()
            if figure is not None:
                written.append(folder / f"{plan.model}_{name}.png")
                figure.savefig(written[-1])
                plt.close(figure)
    return written


def _building(records: Records, plan: Plan) -> plt.Figure | None:
    panels = {
        "graphs": ("Graphs", 1.0),
        "seconds to build": ("Time to build all, s", 1.0),
        "memory growth, bytes": ("Memory growth, GB", 1e9),
    }
    if not records.get(measure="graphs"):
        return None
    figure, axes = plt.subplots(1, len(panels), figsize=(10, 3.3))
    for axis, (measure, (title, unit)) in zip(axes, panels.items(), strict=True):
        for subject in reversed(GROWING):
            found = _ascending(records.get(subject=subject, measure=measure))
            colour, marker = SUBJECT_LINES[subject]
            values = [each.median / unit for each in found]
            axis.plot([each.buckets for each in found], values, color=colour, marker=marker, label=subject)
            if found:
                shown = f"{values[-1]:.0f}" if values[-1] >= 100 else f"{values[-1]:.2g}"
                place = found[-1].buckets, values[-1]
                axis.annotate(shown, place, (0, 6), textcoords="offset points", ha="center", color=colour)
        axis.set(xlabel="Buckets a side", title=title, xticks=plan.counts)
        axis.margins(x=0.12, y=0.15)
        axis.set_ylim(bottom=0)
    figure.suptitle(f"Building, {plan.model}, {plan.workloads[0]}", fontsize=STYLE["axes.titlesize"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _padding(records: Records, plan: Plan) -> plt.Figure | None:
    shares = {(layout_of(each.subject), each.workload, each.buckets): each.median for each in _padding_of(records)}
    if not shares:
        return None
    figure, axes = plt.subplots(
        1, len(plan.workloads), figsize=(2.9 * len(plan.workloads) + 2.4, 3.4), sharey=True, squeeze=False
    )
    for axis, workload in zip(axes[0], plan.workloads, strict=True):
        for layout, (label, colour, marker) in LAYOUT_LINES.items():
            counts = [count for count in plan.counts if (layout, workload, count) in shares]
            values = [100 * shares[layout, workload, count] for count in counts]
            if counts:
                axis.plot(counts, values, color=colour, marker=marker, label=label)
        axis.set(xlabel="Buckets a side", title=workload, xticks=plan.counts)
        axis.set_ylim(bottom=0)
    axes[0][0].set_ylabel("Padding, % of positions")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, labelspacing=1.2)
    return figure


def _padding_of(records: Records) -> list[Record]:
    return [each for each in records.get(measure="padding share") if layout_of(each.subject) in LAYOUTS]


def _speed_by_buckets(records: Records, plan: Plan) -> plt.Figure | None:
    where = {"workload": plan.workloads[0], "precision": plan.precisions[0], "measure": "tokens/s"}
    lines = {name: _ascending(records.get(subject=name, **where)) for name in BUCKETED}
    if max(map(len, lines.values())) < 2:
        return None
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for name, found in lines.items():
        colour, marker = SUBJECT_LINES[name]
        medians = np.array([each.median for each in found]) / 1e3
        spread = [medians - [each.low / 1e3 for each in found], [each.high / 1e3 for each in found] - medians]
        counts = [each.buckets for each in found]
        axis.errorbar(counts, medians, spread, color=colour, marker=marker, capsize=3, label=name)
    axis.set(xlabel="Buckets a side", ylabel="Real pieces a second, thousands", xticks=plan.counts)
    axis.set_title(f"Training, {plan.model}, {plan.workloads[0]}, {_short(plan.precisions[0])}")
    axis.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def _speed(records: Records, plan: Plan, workload: str) -> plt.Figure | None:
    where = {"workload": workload, "buckets": plan.main, "measure": "tokens/s"}
    found = {name: {each.subject: each for each in records.get(precision=name, **where)} for name in plan.precisions}
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    if not names:
        return None
    names.sort(key=lambda name: max(each[name].median for each in found.values() if name in each))
    height = 0.8 / len(found)
    figure, axis = plt.subplots(figsize=(7, 0.45 * len(names) + 1.3))
    for row, (precision, each) in enumerate(found.items()):
        places = {name: at + (0.5 * (len(found) - 1) - row) * height for at, name in enumerate(names) if name in each}
        _bars(axis, places, each, height, _short(precision), PRECISION_COLOURS[precision])
    axis.set_yticks(range(len(names)), names)
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.1, y=0.02)
    axis.set_xlabel("Real source + target pieces a second, thousands (median, quartiles)")
    axis.set_title(f"Training with the optimizer, {plan.model}, {workload}, {plan.main} buckets a side")
    figure.legend(loc="outside lower center", ncols=len(found), frameon=False)
    return figure


def _bars(
    axis: plt.Axes, places: dict[str, float], found: dict[str, Record], height: float, label: str, colour: str
) -> None:
    """Horizontal bars of medians with whiskers to the quartiles, each with its figure behind the whisker."""
    medians, low, high = (np.array([getattr(found[name], field) for name in places]) / 1e3 for field in _FIGURES)
    whiskers = [medians - low, high - medians]
    at = list(places.values())
    axis.barh(at, medians, height, xerr=whiskers, color=colour, label=label, error_kw={"lw": 1, "capsize": 2})
    for place, median, end in zip(at, medians, high, strict=True):
        axis.annotate(f"{median:.1f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _pairs(records: Records, plan: Plan, precision: str) -> plt.Figure | None:
    found = [each for each in records.get(precision=precision, subject="split") if is_pair(each.measure)]
    if not found:
        return None
    ratios = {tuple(map(int, each.measure.rsplit(", ", 1)[1].split(" x "))): each.median for each in found}
    sources, targets = (sorted({pair[at] for pair in ratios}) for at in (0, 1))
    grid = np.array([[ratios[source, target] for target in targets] for source in sources])
    figure, axis = plt.subplots(figsize=(2.2 + 0.75 * len(targets), 1.4 + 0.55 * len(sources)))
    spread = max(0.05, float(np.abs(grid - 1.0).max()))
    image = axis.imshow(grid, cmap="PuOr_r", vmin=1 - spread, vmax=1 + spread, aspect="auto")
    for (row, column), ratio in np.ndenumerate(grid):
        colour = "white" if abs(ratio - 1.0) > 0.65 * spread else "black"
        axis.text(column, row, f"{ratio:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(targets)), targets)
    axis.set_yticks(range(len(sources)), sources)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.set(xlabel="Target bucket, pieces", ylabel="Source bucket, pieces")
    axis.set_title(f"{plan.model}, {plan.workloads[0]}, {_short(precision)}; median {np.median(grid):.3f}")
    figure.colorbar(image, ax=axis, label="Step of split / step of joint")
    return figure


def _ascending(found: list[Record]) -> list[Record]:
    return sorted(found, key=lambda each: each.buckets)


def _short(precision: str) -> str:
    return precision.removeprefix("mixed_")


_FIGURES = ("median", "low", "high")
