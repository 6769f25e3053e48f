"""How TensorFlow is told about threads; in processes of their own, for it can be told once."""

import os
import subprocess
import sys

import pytest

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(("before", "expected"), [("", min(CORES, 8)), ("tf.ones([2]) + 1", 1)])
def test_cores_are_used_unless_it_is_too_late(before, expected):
    program = f"""
import tensorflow as tf
from seq2split.split.threads import use_cores
{before}
threads = use_cores()
print(threads, tf.config.threading.get_intra_op_parallelism_threads())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    threads, of_an_operation = map(int, done.stdout.split())
    assert threads == expected
    assert ("use_cores came after TensorFlow's first computation" in done.stderr) == bool(before)
    assert of_an_operation == (0 if before else max(1, CORES // threads))
