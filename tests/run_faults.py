"""Faults injected into trainings at random: kills, a full disk, flipped bits. By hand, with as many as one likes:

    python tests/run_faults.py --kills 50 --full 20 --flips 50 --subject experiment

After each the training is started again. It must come to what an undisturbed one comes to, bit for bit, and lose
nothing but what it says; or be refused in a message, with nothing lost either. Every process is forked from this one,
which has imported TensorFlow but computed nothing. The disk that gets full is a small file system in memory, if one may
be mounted; or else files may not grow beyond some size.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from corpora import write_experiment  # noqa: E402
from run_states import measured_in  # noqa: E402
from tiny_models import make_batches, make_model, make_rows  # noqa: E402

import seq2split as s2s  # noqa: E402
from seq2split import cli  # noqa: E402
from seq2split.translation import commands  # noqa: E402, F401  imported once for all processes

STEPS, HALF = 12, 8  # a multiple of the steps between validations, since the last step has one
NOT_COMPARED = ("save_counter", "progress/seconds", "progress/window", "progress/settings", "_CHECKPOINTABLE")
TOLD = {  # what may be another where this is told
    "history": "history.jsonl",
    "figures of the average": "kept for the average",
    "average": "kept for the average",
    "best": "counts as the best so far",
}
LITTER = ("*_temp", "*.tempstate*", ".*.tmp")


@dataclass(frozen=True)
class Subject:
    """What is trained: a function of a run directory and of the steps in all, and one that uses the model.

    Both return an exit status, and write what they find to standard output.
    """

    train: Callable[[Path, int], int]
    use: Callable[[Path], int]


# Subjects


def a_trainer(_folder: Path) -> Subject:
    """Return a tiny model with all that a trainer keeps: dropout, a moving average, an average of models."""

    def trainer(run: Path) -> s2s.Trainer:
        model = make_model(dropout=0.3)
        return s2s.Trainer(model, keras.optimizers.Adam(0.05), run=run, ema=0.9, average=3)

    def train(run: Path, steps: int) -> int:
        made = trainer(run)
        batches, valid = make_batches(made.model), make_batches(made.model, make_rows(6, seed=2))
        made.fit(batches, steps=steps, validation=valid, validate_every=2, checkpoint_every=1, log_every=1)
        return 0

    def use(run: Path) -> int:
        made = trainer(run)
        made.load_best()
        print(
            hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in made.model.trainable_variables)).hexdigest()
        )
        return 0

    return Subject(lambda *given: _reported(train, *given), lambda *given: _reported(use, *given))


def _reported(task: Callable[..., int], *given: object) -> int:
    try:
        return task(*given)
    except (ValueError, OSError) as error:
        print(f"seq2split: {error}", file=sys.stderr)
        return 2


def an_experiment(folder: Path) -> Subject:
    """Return a translation experiment, by the command line."""
    config = write_experiment(folder / "data")
    settings = {"validate_every": 2, "checkpoint_every": 1, "log_every": 1, "average": 3, "ema": 0.9}

    def train(run: Path, steps: int) -> int:
        pairs = [f"training.{key}={value}" for key, value in (settings | {"steps": steps}).items()]
        return cli.main(
            ["train", str(config), "--run", str(run), *(word for each in pairs for word in ("--set", each))]
        )

    def use(run: Path) -> int:
        return cli.main(["translate", str(run), "--input", str(config.with_name("valid.source"))])

    return Subject(train, use)


SUBJECTS = {"trainer": a_trainer, "experiment": an_experiment}


# Processes


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit status, negative after a signal, and what it wrote."""

    status: int
    output: str
    told: str

    def is_clear(self) -> bool:
        """Return whether it failed with a message."""
        lines = [line for line in self.told.splitlines() if "seq2split: " in line]
        return self.status in (1, 2) and len(lines) == 1 and "Traceback" not in self.told


def run_forked(folder: Path, task: Callable[[], int], *, kill_after: float | None = None, limit: int = 0) -> Outcome:
    """Run a task in a process of its own, which is killed after some seconds, or may write no larger files."""
    out, err = folder / "stdout", folder / "stderr"
    process = os.fork()
    if not process:
        status, tempfile.tempdir = 70, str(folder)  # where TensorFlow leaves files when it is killed
        random.seed(1)  # Keras draws its seeds from it
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            status = task()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Outcome(status, out.read_text(errors="replace"), err.read_text(errors="replace"))


def summary(folder: Path, run: Path) -> dict[str, dict[str, str]]:
    """Return digests of all values of the checkpoints of a run, and what it measured."""

    def find() -> int:
        entries = [json.dumps(entry) for entry in measured_in(run)]
        found = {
            name: dict(enumerate(entry for entry in entries if ("average_" in entry) == is_average))
            for name, is_average in (("history", False), ("figures of the average", True))
        }
        for name in ("checkpoints", "best", "average"):
            path = tf.train.latest_checkpoint(run / name)
            reader = tf.train.load_checkpoint(path) if path else None
            names = reader.get_variable_to_shape_map() if reader else ()
            found[name] = {
                each: hashlib.sha256(np.asarray(reader.get_tensor(each)).tobytes()).hexdigest()
                for each in sorted(names)
                if not any(skipped in each for skipped in NOT_COMPARED)
            }
        print(json.dumps(found))
        return 0

    done = run_forked(folder, find)
    assert done.status == 0, done.told
    return json.loads(done.output)


# Trials: each returns what came of it, a word; what must not happen begins with WRONG


class Trials:
    """Trials of one subject, each in a folder of its own.

    Args:
        folder: Where files go.
        subject: What is trained.
    """

    def __init__(self, folder: Path, subject: Subject):
        self._folder, self._subject = folder, subject
        start = time.monotonic()
        self._train(folder / "whole", STEPS)
        self._seconds = time.monotonic() - start
        self._whole = summary(folder, folder / "whole")
        self._train(folder / "half", HALF)
        self._used = self._use(folder / "half").output

    def kill(self) -> tuple[int, str]:
        """Kill a training again and again, until it is finished; return the number of kills and what came of it."""
        run, kills = self._new(), 0
        while True:
            until = random.uniform(0, self._seconds)
            done = run_forked(self._folder, lambda: self._subject.train(run, STEPS), kill_after=until)
            if done.status != -signal.SIGKILL:
                return kills, self._compare(run, done)
            kills += 1
            if kills >= 4:
                return kills, self._compare(run, run_forked(self._folder, lambda: self._subject.train(run, STEPS)))

    def fill(self) -> str:
        """Train on a disk that is full at a random byte, and go on when there is room."""
        run, largest = self._new(), max(path.stat().st_size for path in self._files(self._folder / "whole"))
        total = sum(path.stat().st_size for path in self._files(self._folder / "whole"))
        with _small_disk(run, random.randrange(4096, total)) as grow:
            limit = 0 if grow else random.randrange(1, largest)
            done = run_forked(self._folder, lambda: self._subject.train(run, STEPS), limit=limit)
            if done.status == 0:
                return f"enough room: {self._compare(run, done)}"
            if not done.is_clear():
                return f"WRONG: no clear message: {done}"
            if grow:
                grow()
            again = run_forked(self._folder, lambda: self._subject.train(run, STEPS))
            return f"stopped with a message, and then {self._compare(run, again)}"

    def flip(self) -> str:
        """Flip a bit in the directory of a training that was stopped; use its model, and go on."""
        run = self._new()
        shutil.copytree(self._folder / "half", run)
        files = self._files(run)
        sizes = [path.stat().st_size for path in files]
        path = random.choice(files) if random.random() < 0.5 else random.choices(files, sizes)[0]
        data = bytearray(path.read_bytes())
        bit = random.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        place = f"bit {bit} of {path.relative_to(run)}"
        used = self._use(run)
        if used.status and not used.is_clear():
            return f"WRONG: {place}: no clear message: {used}"
        if used.status == 0 and used.output != self._used and path.name not in used.told:
            return f"WRONG: {place}: another output in silence: {used}"
        done = run_forked(self._folder, lambda: self._subject.train(run, STEPS))
        if done.is_clear():
            return "refused with a message"
        found = self._compare(run, done, told=done.told)
        return f"{found} ({place}): {done.told}" if found.startswith("WRONG") else found

    def _compare(self, run: Path, done: Outcome, told: str = "") -> str:
        if done.status:
            return f"WRONG: {done}"
        litter = [path for pattern in LITTER for path in run.rglob(pattern)]
        if litter:
            return f"WRONG: litter: {litter}"
        found = summary(self._folder, run)
        for name, values in found.items():
            others = [each for each in self._whole[name] if values.get(each) != self._whole[name][each]]
            others += values.keys() - self._whole[name].keys()
            if others and not (name in TOLD and TOLD[name] in told):
                return f"WRONG: {name} is another: {others[:5]}, {[values.get(each) for each in others[:3]]}"
        return "the same, and told so" if "damaged" in told or "written again" in told else "the same"

    def _train(self, run: Path, steps: int) -> None:
        done = run_forked(self._folder, lambda: self._subject.train(run, steps))
        assert done.status == 0, done

    def _use(self, run: Path) -> Outcome:
        return run_forked(self._folder, lambda: self._subject.use(run))

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder)) / "run"

    @staticmethod
    def _files(run: Path) -> list[Path]:
        return [
            path
            for path in sorted(run.rglob("*"))
            if path.is_file() and path.stat().st_size and path.parent.name != "events"
        ]


@contextlib.contextmanager
def _small_disk(path: Path, size: int):
    """Mount a file system of so many bytes, and yield a function that makes it larger; or else `None`."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, check=False
    )
    if done.returncode:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=1g", path], check=True)
    finally:
        subprocess.run(["umount", path], check=True)


def main(arguments: list[str] | None = None) -> int:
    """Run trials, and print how many came to what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kills", "full", "flips"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N")
    parser.add_argument("--subject", choices=SUBJECTS, default="trainer")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    counts: collections.Counter[str] = collections.Counter()

    def note(found: str) -> None:
        counts[found] += 1
        print(found, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), SUBJECTS[chosen.subject](Path(folder)))
        draw = random.Random(chosen.seed)
        left = chosen.kills
        while left > 0:
            random.seed(draw.random())
            kills, found = trials.kill()
            left -= kills
            note(f"{kills} kills: {found}")
        for name, trial, count in (("full", trials.fill, chosen.full), ("flip", trials.flip, chosen.flips)):
            for _ in range(count):
                random.seed(draw.random())
                note(f"{name}: {trial()}")
    for found, count in sorted(counts.items()):
        print(f"{count:4}  {found}")
    return int(any("WRONG" in found for found in counts))


if __name__ == "__main__":
    sys.exit(main())
