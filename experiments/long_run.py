"""A long training of a tiny model: memory and open files must stay where they were.

    python experiments/long_run.py                # 50,000 steps with 500 validations and checkpoints

It prints memory and open files as it goes, and exits with 1 if either has grown between the first tenth and the end.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import seq2split as s2s

PIECES, UNITS = 20, 4
MOST_GROWTH = 8 * 2**20  # bytes; a leak of 200 bytes a step shows


class Watch(s2s.Callback):
    """Notes the memory and the open files of this process at each validation."""

    def __init__(self):
        self.seen: list[tuple[int, int, int]] = []

    def on_validation(self, trainer: s2s.Trainer, _figures: dict[str, float]) -> None:
        """Note them."""
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.seen.append((int(trainer.progress.step), resident, len(os.listdir("/proc/self/fd"))))


def main(arguments: list[str] | None = None) -> int:
    """Train and judge; return the status of the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--validations", type=int, default=500, help="and as many checkpoints")
    chosen = parser.parse_args(arguments)
    watch, every = Watch(), max(1, chosen.steps // chosen.validations)
    model = make_model()
    trainer = s2s.Trainer(model, keras.optimizers.Adam(0.001), run=Path(tempfile.mkdtemp()) / "run")
    options = {"validate_every": every, "checkpoint_every": every, "log_every": every, "callbacks": [watch]}
    trainer.fit(make_batches(model, 64), steps=chosen.steps, validation=make_batches(model, 8), **options)
    return judge(watch.seen)


def make_model() -> s2s.SplitModel:
    """Return a model of two buckets a side."""
    encoder = s2s.models.RecurrentEncoder(PIECES, UNITS, UNITS, dropout=0.1, name="encoder")
    decoder = s2s.models.RecurrentDecoder(PIECES, UNITS, 2, UNITS, UNITS, name="decoder")
    first = s2s.Node(encoder, "source", s2s.Buckets([2, 4]))
    return s2s.SplitModel([first, s2s.Node(decoder, [first, "target"], s2s.Buckets([2, 4]), loss=True)])


def make_batches(model: s2s.SplitModel, count: int) -> s2s.Batches:
    """Return batches of random rows."""
    draw = np.random.default_rng(count)
    rows = {side: [draw.integers(4, PIECES, draw.integers(1, 5)) for _ in range(count)] for side in model.fields}
    return s2s.Batches(rows, model, tokens=64, seed=1)


def judge(seen: list[tuple[int, int, int]]) -> int:
    """Print what was noted, and return 1 if it has grown since the first tenth."""
    for step, resident, files in seen[:: max(1, len(seen) // 10)]:
        print(f"step {step:>6,}: {resident / 2**20:7.1f} MiB, {files} open files")
    (_, start, first_files), (_, end, last_files) = seen[len(seen) // 10], seen[-1]
    print(f"growth from the first tenth to the end: {(end - start) / 2**20:.1f} MiB, {last_files - first_files} files")
    return int(end - start > MOST_GROWTH or last_files > first_files)


if __name__ == "__main__":
    sys.exit(main())
