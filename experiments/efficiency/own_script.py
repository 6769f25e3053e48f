"""The benchmark's script, started anew for what needs a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[1] / "bucket_efficiency.py"


def answer(option: str, task: Any, name: str) -> str:
    """Return the last line that the script prints, started with an option.

    Args:
        option: What to do, such as `--build`.
        task: What the option takes, as JSON can hold it.
        name: What it is called in an error.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, SCRIPT, option, json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1]
