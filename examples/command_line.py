"""The same two layers from the command line: `architecture = "own_layers.py:make"`, trained, evaluated, translated.

The corpus is made here: numbers in digits, and the same in words, as `seq2split` itself would read them from files.
Run `python examples/command_line.py`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LAYERS = Path(__file__).with_name("own_layers.py")
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CONFIGURATION = """
[data]
train_source = "train.digits"
train_target = "train.words"
valid_source = "valid.digits"
valid_target = "valid.words"

[vocabulary]
size = 50

[buckets]
source = 2
target = 2

[batches]
tokens = 1500

[model]
architecture = "{layers}:make"

[model.options]
units = 64

[optimizer]
learning_rate = 0.003
warmup_steps = 50

[training]
steps = {steps}
validate_every = 100
samples = 1
"""


def write_corpus(folder: Path) -> None:
    """Write rows of 1 to 6 digits, and their words."""
    random = np.random.default_rng(1)
    for split, count in (("train", 3000), ("valid", 100), ("test", 100)):
        rows = [random.integers(0, 10, random.integers(1, 7)) for _ in range(count)]
        (folder / f"{split}.digits").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
        (folder / f"{split}.words").write_text("".join(" ".join(WORDS[digit] for digit in row) + "\n" for row in rows))


def run(*arguments: object, **options: object) -> str:
    """Run `seq2split` as a user would, and return what it prints."""
    command = [sys.executable, "-m", "seq2split", *map(str, arguments)]
    return subprocess.run(command, check=True, encoding="utf-8", stdout=subprocess.PIPE, **options).stdout


def main() -> None:
    """Train, evaluate and translate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_corpus(folder)
        (folder / "digits.toml").write_text(CONFIGURATION.format(layers=LAYERS.as_posix(), steps=steps))
        run("train", folder / "digits.toml", "--run", folder / "run")
        files = "--source", folder / "test.digits", "--reference", folder / "test.words"
        print(run("evaluate", folder / "run", *files, "--beam", 4).splitlines()[0])
        for line in run(
            "translate", folder / "run", "--beam", 4, "--n-best", 2, "--scores", input="4 0 7\n"
        ).splitlines():
            print(line)


if __name__ == "__main__":
    main()
