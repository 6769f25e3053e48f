"""Tiny corpora and configurations for tests that train."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from seq2split.config import Config, load

WORDS = [*"abcdefgh"]  # each becomes one piece: sentences have 2 to 5 with their end
TRAIN, VALID = 60, 6

SETTINGS = """
seed = 3
[data]
train_source = "train.source"
train_target = "train.target"
valid_source = "valid.source"
valid_target = "valid.target"
[vocabulary]
size = 21
algorithm = "bpe"
[buckets]
source = 2
target = [3, 5]
[batches]
tokens = 90
row_multiple = 2
group_overhead = 0
[model]
bidirectional = false
embedding = 8
units = 8
dropout = 0.2
[optimizer]
learning_rate = 0.01
schedule = "constant"
warmup_steps = 0
[training]
steps = 8
validate_every = 100
checkpoint_every = 4
log_every = 2
samples = 0
"""


def write_experiment(folder: Path) -> Path:
    """Write sentences of a few words, their translations (the words in reverse) and a configuration's file.

    Lengths are short, because tracing an unrolled layer is what such a training spends its time on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    for split, count in (("train", TRAIN), ("valid", VALID)):
        rows = [draw.choices(WORDS, k=1 + place % 4) for place in range(count)]
        for side, turn in (("source", 1), ("target", -1)):
            (folder / f"{split}.{side}").write_text("".join(" ".join(row[::turn]) + "\n" for row in rows))
    path = folder / "tiny.toml"
    path.write_text(SETTINGS)
    return path


def configure(path: Path, **overrides: object) -> Config:
    """Load a configuration; overrides are `table__key=value`."""
    return load(path, [f"{key.replace('__', '.')}={_toml(value)}" for key, value in overrides.items()])


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def command(*arguments: object) -> list[str]:
    """The arguments of a process that runs `seq2split`."""
    return [sys.executable, "-m", "seq2split", *map(str, arguments)]


def environment() -> dict[str, str]:
    """That of a process whose output is read: Python writes it at once."""
    return os.environ | {"PYTHONUNBUFFERED": "1"}


def seq2split(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run `seq2split` in a process of its own, as a user would; output is text."""
    options = {"capture_output": True, "encoding": "utf-8", "env": environment(), "timeout": 300} | options
    return subprocess.run(command(*arguments), check=False, **options)
