"""A few of the faults of run_faults.py, which injects as many as one likes: kills, full disks, flipped bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "run_faults.py"


def test_nothing_is_lost_but_what_is_told():
    """In a process of its own, which forks those that are harmed before TensorFlow has begun to compute."""
    command = [sys.executable, str(SCRIPT), "--kills", "1", "--full", "1", "--flips", "1"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same" in done.stdout
