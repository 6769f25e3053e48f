"""Pictures of runs, in colours that the colour-blind tell apart (Okabe and Ito, 2008). They need matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from seq2split.common.files import write_atomically
from seq2split.runs.history import Entry
from seq2split.translation.alignment import Alignment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "savefig.dpi": 160,
    "font.size": 10,
}
_CELL = 0.3  # inches
_MARKED = {"marker": "o", "markersize": 3.5}
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600}
_TOKENS = {"tokens": 1, "thousand tokens": 1e3, "million tokens": 1e6, "billion tokens": 1e9}
_AXES = (("seconds", "Training and validating, ", _SECONDS), ("tokens", "Source and target, ", _TOKENS))


def check_matplotlib() -> None:
    """Raise an `ImportError` that says how to get matplotlib, where it is missing."""
    if find_spec("matplotlib") is None:
        raise ImportError("pictures need matplotlib: pip install matplotlib")


def check_picture(path: Path) -> None:
    """Check that a picture can be written, before what it shows is computed.

    Args:
        path: Where to.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: It doesn't write the format that the suffix chooses.
    """
    check_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in formats:
        raise ValueError(f"{path}: expected a picture, whose name ends in {', '.join(f'.{each}' for each in formats)}.")


def plot_curves(runs: Mapping[str, Sequence[Entry]], path: Path) -> None:
    """Draw the learning curves of runs: loss and BLEU, against time and against tokens.

    Args:
        runs: The history of each run, as `read_history` returns it, under the name that the picture calls it.
        path: The picture; its suffix chooses the format.

    Raises:
        ImportError: Matplotlib is missing.
        OSError: The picture can't be written.
        ValueError: A run has measured nothing yet, or matplotlib doesn't write that format.
    """
    check_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for name, history in runs.items():
        _check_history(name, history)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 6.2), layout="constrained")
        axes = figure.subplots(2, 2, sharex="col", sharey="row")
        for column, (key, title, units) in enumerate(_AXES):
            unit = _unit(max(history[-1][key] for history in runs.values()), units)
            for colour, history in zip(cycle(COLOURS), runs.values(), strict=False):
                scaled = [entry | {"x": entry[key] / units[unit]} for entry in history]
                _draw_loss(axes[0, column], scaled, colour)
                _draw(axes[1, column], scaled, "validation_bleu", color=colour, **_MARKED)
            axes[1, column].set_xlabel(title + unit)
            axes[1, column].set_xlim(left=0)
        _finish_loss(axes[0, 0])
        axes[1, 0].set_ylabel("Validation BLEU")
        _add_legend(figure, axes[1, 0].get_lines(), [_label(name, history) for name, history in runs.items()])
        _save(figure, path)


def _check_history(name: str, history: Sequence[Entry]) -> None:
    if not history:
        raise ValueError(f"run {name} has measured nothing yet: the first figures come after training.log_every.")
    for number, entry in enumerate(history, 1):
        lacking = [key for key, *_ in _AXES if not 0 <= entry.get(key, -1) < math.inf]
        if lacking:
            raise ValueError(
                f"entry {number} of the history of run {name}, of step {entry['step']}, has no "
                f"{' and no '.join(lacking)} to draw it at: delete its line."
            )


def _draw_loss(axis: Axes, history: Sequence[Entry], colour: str) -> None:
    """The training loss as a faint line, and the validations as a strong one with marks."""
    _draw(axis, history, "nll", color=colour, alpha=0.45, linewidth=1)
    _draw(axis, history, "validation_loss", color=colour, **_MARKED)


def _draw(axis: Axes, history: Sequence[Entry], key: str, **style: object) -> None:
    found = [entry for entry in history if key in entry]
    axis.plot([entry["x"] for entry in found], [entry[key] for entry in found], **style)


def _finish_loss(axis: Axes) -> None:
    """A logarithmic axis: the first losses are many times the last, whose differences are what one looks for."""
    from matplotlib.ticker import LogLocator

    if any(0 < loss < math.inf for line in axis.get_lines() for loss in line.get_ydata()):
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if high < 30 * low else (1, 3)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    axis.set_ylabel("Negative log-likelihood\nof a target piece, nats")
    axis.set_title("faint: training, with dropout; marked: validation", fontsize=9, loc="left")


def _add_legend(figure: Figure, lines: Sequence[Line2D], labels: Sequence[str]) -> None:
    """Below the curves, in as many columns as fit."""
    for columns in range(min(3, len(labels)), 0, -1):
        legend = figure.legend(lines, labels, loc="outside lower center", ncols=columns, frameon=False)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _unit(largest: float, units: Mapping[str, float]) -> str:
    """The largest unit of which there are at least two, or the smallest."""
    return max((name for name in units if largest >= 2 * units[name]), key=units.get, default=next(iter(units)))


def _label(name: str, history: Sequence[Entry]) -> str:
    name = name.replace("$", r"\$")  # matplotlib takes what stands between two for a formula
    scores = [entry["validation_bleu"] for entry in history if "validation_bleu" in entry]
    return f"{name}: best BLEU {max(scores):.1f}" if scores else name


def plot_alignment(alignment: Alignment, path: Path) -> None:
    """Draw attention weights: a row for each target piece, a column for each source piece, a panel for each source.

    Args:
        alignment: The weights of a sentence.
        path: The picture; its suffix chooses the format.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: Matplotlib doesn't write that format.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    columns = [len(source) for source in alignment.sources]
    size = (2 + _CELL * sum(columns), 1.5 + _CELL * len(alignment.target))
    figure = Figure(figsize=size, layout="constrained", dpi=160)
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False, width_ratios=columns)[0]
    for axis, source, weights in zip(axes, alignment.sources, alignment.weights, strict=True):
        image = axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(source)), source, rotation=90, parse_math=False)
        axis.set_yticks(range(len(alignment.target)), alignment.target, parse_math=False)
        axis.tick_params(length=0)
        axis.xaxis.tick_top()
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.8, aspect=25)
    _save(figure, path, bbox_inches="tight")


def _save(figure: Figure, path: Path, **options: str) -> None:
    """Write a picture, whole or not at all."""
    data = BytesIO()
    figure.savefig(data, format=path.suffix.removeprefix("."), **options)
    write_atomically(path, data.getvalue())
