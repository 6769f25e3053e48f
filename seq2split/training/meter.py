"""The progress bar of a training, and the figures of its last steps."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from seq2split.buckets import Buckets
from seq2split.corpus.batches import Batch


class Meter:
    """Measures steps: loss, perplexity, tokens per second, share of padding.

    Args:
        buckets: Of both sides.
        step: Steps done before.
        steps: Steps in all.
    """

    def __init__(self, buckets: dict[str, Buckets], step: int, steps: int):
        calm = 0.2 if sys.stderr.isatty() else 30.0  # a log file wants few lines
        self._buckets = buckets
        self._bar = tqdm(initial=step, total=steps, desc="training", unit="step", mininterval=calm, dynamic_ncols=True)
        self._sums: Counter[str] = Counter()
        self._last = time.perf_counter()

    def count(self, batches: Sequence[Batch], loss: float, nll: float) -> float:
        """Notes a step.

        Args:
            batches: What it trained on.
            loss: The training loss of a target position, on average.
            nll: The negative log-likelihood of a target position in nats, on average.

        Returns:
            The seconds that it took.
        """
        seconds, targets = self._lap(), sum(batch.targets for batch in batches)
        self._sums.update(
            seconds=seconds,
            loss=loss * targets,
            nll=nll * targets,
            targets=targets,
            tokens=sum(batch.tokens for batch in batches),
            positions=sum(batch.positions(self._buckets) for batch in batches),
        )
        figures = self._figures()
        self._bar.set_postfix_str(
            f"loss {figures['loss']:.3f}, perplexity {figures['perplexity']:.1f}, "
            f"{figures['tokens_per_second']:,.0f} tokens/s, padding {figures['padding']:.0%}",
            refresh=False,
        )
        self._bar.update()
        return seconds

    def window(self) -> dict[str, float]:
        """The figures since the last call."""
        figures = self._figures()
        self._sums.clear()
        return figures

    def skip(self) -> float:
        """Leaves out of the measurement what happened since the last step, and returns its seconds."""
        return self._lap()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the bar, so that what is said next starts a line."""
        self._bar.close()

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def _figures(self) -> dict[str, float]:
        sums = self._sums
        return {
            "loss": sums["loss"] / sums["targets"],
            "nll": sums["nll"] / sums["targets"],
            "perplexity": math.exp(min(50.0, sums["nll"] / sums["targets"])),
            "tokens_per_second": sums["tokens"] / sums["seconds"],
            "padding": 1.0 - sums["tokens"] / sums["positions"],
        }
