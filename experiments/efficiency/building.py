"""What building costs, each subject in a process of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import tensorflow as tf

from efficiency.making import make
from efficiency.own_script import answer
from efficiency.setting import Setting
from seq2split.split.threads import use_cores

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def set_threads(threads: int | None, intra_op: int | None) -> int:
    """Set TensorFlow up, before it first computes.

    Args:
        threads: Shards of a batch that run at once; `None` for one on each core.
        intra_op: Threads of one operation; `None` for what is left of the cores.

    Returns:
        The shards that run at once.
    """
    cores = use_cores()
    if intra_op is not None:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)
    return cores if threads is None else threads


def build_apart(subject: str, setting: Setting, intra_op: int | None) -> dict[str, float]:
    """Build all graphs of a subject in a process of its own.

    Returns:
        `graphs`; `seconds` of tracing all and running each on one row; `growth`, how much memory that took at most,
        and `resident`, how much the process had then, in bytes.

    Raises:
        RuntimeError: It failed.
    """
    task = [subject, setting.dumps(), intra_op]
    return json.loads(answer("--build", task, f"building {subject} in a process of its own"))


def build_here(task: str) -> dict[str, float]:
    """What `build_apart` has the other process do."""
    name, setting, intra_op = json.loads(task)
    set_threads(None, intra_op)
    subject = make(name, Setting.loads(setting))
    tf.matmul(tf.ones([8, 8]), tf.ones([8, 8])).numpy()  # TensorFlow is up
    before, start = _resident(reset=True), time.perf_counter()
    subject.build()
    seconds, after = time.perf_counter() - start, _resident()
    return {"graphs": subject.graphs, "seconds": seconds, "growth": after - before, "resident": after}


def _resident(reset: bool = False) -> int:
    """The most memory that this process has had resident, in bytes; with `reset` what it has now, counted anew.

    Not `ru_maxrss` where Linux tells more: a process that is started from a larger one inherits that one's.
    """
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if reset:
        _RESET.write_text("5")
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024
