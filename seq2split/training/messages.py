"""What a training says on standard error."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm.auto import tqdm

from seq2split.runs.progress import Progress


def say(text: str) -> None:
    """Print a line to standard error, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


def shown(figures: Mapping[str, float]) -> str:
    """Return figures as they are printed.

    Example:
        >>> shown({"loss": 1.5, "bleu": 30.0})
        'loss 1.500, bleu 30.000'
    """
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def outcome(progress: Progress, steps: int, monitor: str, sign: float) -> str:
    """Return how a training ended.

    Args:
        progress: How far it is.
        steps: The steps that it was to be.
        monitor: The figure that the best model is chosen by.
        sign: What that is multiplied by, so that higher is better.
    """
    seconds = float(progress.seconds)
    early = f": {int(progress.stale)} validations without improvement" if progress.step < steps else ""
    best = f"best validation {monitor} {sign * float(progress.best):.2f} at step {int(progress.best_step)}"
    return (
        f"finished after step {int(progress.step)}{early}; {best if progress.best_step else 'never validated'}; "
        f"{seconds / 60:.1f} minutes, {int(progress.tokens) / max(seconds, 1e-9):,.0f} tokens/s, validations included"
    )
