"""The progress bar of a training, and the figures of its last steps."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from tqdm.auto import tqdm

from seq2split.corpus import Batch
from seq2split.split import BatchLosses
from seq2split.split.results import RunningLosses

_RESERVED = {"step", "seconds", "tokens", "tokens_per_second", "padding", "perplexity", "learning_rate", "left_out"}
_OVERFLOW = 50.0  # nats; a loss above it tells that the model is lost, whatever its exponential


class Meter:
    """Measures steps: loss and metrics, tokens per second, share of padding.

    Args:
        step: The steps done before.
        steps: The steps in all.
        progress: True to show a bar.
    """

    def __init__(self, step: int, steps: int, progress: bool = True):
        interval = 0.2 if sys.stderr.isatty() else 30.0  # a log file wants few lines
        self._bar = tqdm(
            initial=step,
            total=steps,
            desc="training",
            unit="step",
            mininterval=interval,
            dynamic_ncols=True,
            disable=not progress,
        )
        self._sums: Counter[str] = Counter()
        self._losses = RunningLosses()
        self._last = time.perf_counter()

    def count(self, batches: Sequence[Batch], losses: BatchLosses | None) -> float:
        """Note a step.

        Args:
            batches: The batches that it trained on.
            losses: Their loss and metrics; `None` if the step was left out since they are not finite.

        Returns:
            The seconds that it took.
        """
        taken = sorted(_RESERVED & losses.metrics.keys()) if losses else []
        if taken:
            raise ValueError(
                f"a part with a loss returns a metric {taken[0]!r}, which is the name of another figure in the "
                "history; call it otherwise."
            )
        seconds = self._lap()
        self._sums.update(
            seconds=seconds,
            tokens=sum(batch.tokens for batch in batches),
            positions=sum(batch.positions for batch in batches),
        )
        if losses:
            self._losses.add(losses)
        else:
            self._sums["left_out"] += 1
        self._show()
        return seconds

    def window(self) -> dict[str, float]:
        """Return the figures since the last call."""
        figures = self._averages()
        self._sums.clear()
        self._losses = RunningLosses()
        return figures

    def state(self) -> dict[str, dict[str, float]]:
        """Return the sums since the last entry, for `resume`."""
        return {"steps": dict(self._sums), "sums": dict(self._losses.sums), "weights": dict(self._losses.weights)}

    def resume(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from sums of an earlier session."""
        self._sums.update(state.get("steps", {}))
        self._losses.sums.update(state.get("sums", {}))
        self._losses.weights.update(state.get("weights", {}))

    def skip(self) -> float:
        """Leave out of the measurement what happened since the last step, and return its seconds."""
        return self._lap()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar, so that what is said next starts a line."""
        self._bar.close()

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def _show(self) -> None:
        figures = self._averages()
        shown = [f"loss {figures['loss']:.3f}"] if "loss" in figures else []
        shown += [f"perplexity {figures['perplexity']:.1f}"] if "perplexity" in figures else []
        speed = f"{figures['tokens_per_second']:,.0f} tokens/s, padding {figures['padding']:.0%}"
        self._bar.set_postfix_str(", ".join([*shown, speed]), refresh=False)
        self._bar.update()

    def _averages(self) -> dict[str, float]:
        sums = self._sums
        figures = self._losses.means() if self._losses.weights else {}
        if "nll" in figures:
            figures["perplexity"] = perplexity(figures["nll"])
        return figures | {
            "tokens_per_second": sums["tokens"] / sums["seconds"],
            "padding": 1.0 - sums["tokens"] / sums["positions"],
            **({"left_out": sums["left_out"]} if sums["left_out"] else {}),
        }


def perplexity(nll: float) -> float:
    """Return the perplexity of a negative log-likelihood in nats, up to what tells that the model is lost.

    Example:
        >>> perplexity(0.0), perplexity(1e9) == perplexity(50.0)
        (1.0, True)
    """
    return math.exp(min(_OVERFLOW, nll))
