"""The scripts of experiments/ that no other test runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (["training_apart.py", "--steps", "4"], ["equal: no loss and no variable differs"]),
        (
            ["save_policies.py", "--rows", "4", "--time", "3", "--rounds", "1"],
            ["LSTM, 4 x 3", "Transformer", "products"],
        ),
        (["compilation.py", "--quick", "--rounds", "1"], ["split, no XLA", "joint pairs, XLA", "memory_buckets=2"]),
    ],
    ids=["training_apart", "save_policies", "compilation"],
)
def test_a_script_runs(script, expected):
    command = [sys.executable, EXPERIMENTS / script[0], *script[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for text in expected:
        assert text in done.stdout
