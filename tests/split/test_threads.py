"""How TensorFlow is told about threads, in processes of their own, for it can be told once; and what they run when."""

import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Event

import numpy as np
import pytest
import tensorflow as tf

import seq2split as s2s
from seq2split.split.threads import Workers

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
MEMORY = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB")


@pytest.mark.parametrize(("before", "expected"), [("", min(CORES, 8)), ("tf.ones([2]) + 1", 1)])
def test_cores_are_used_unless_it_is_too_late(before, expected):
    program = f"""
import os
import tensorflow as tf
from seq2split.split.threads import use_cores
{before}
threads = use_cores()
print(threads, tf.config.threading.get_intra_op_parallelism_threads(), sum(map(os.environ.__contains__, {MEMORY})))
"""
    environment = {name: value for name, value in os.environ.items() if name not in MEMORY}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    threads, of_an_operation, memory = map(int, done.stdout.split())
    assert memory == (0 if before else 3 if CORES <= 4 else 1)
    assert threads == expected
    assert ("use_cores came after TensorFlow's first computation" in done.stderr) == bool(before)
    assert of_an_operation == (0 if before else max(1, CORES // threads))


@pytest.mark.parametrize("given", [{}, dict(zip(MEMORY, ("77", "false", "88"), strict=True))], ids=["unset", "set"])
def test_memory_is_set_up_unless_the_user_says_how(given):
    """TensorFlow and oneDNN read the environment when they first allocate, and make a kernel."""
    environment = {name: value for name, value in os.environ.items() if name not in MEMORY} | given
    program = f"""
import os, seq2split
seq2split.threads.use_cores()
import tensorflow as tf
tf.matmul(tf.ones([400, 400]), tf.ones([400, 400]))
print(*map(os.environ.get, {MEMORY}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    allocated = ["true", str(physical)] if CORES <= 4 else ["None", "None"]
    assert done.stdout.split() == (list(given.values()) or ["16384", *allocated])


@pytest.mark.skipif(CORES > 4, reason="TensorFlow's allocator has one lock, and serves up to four cores")
def test_tensorflow_allocates_within_its_limit():
    program = """
import seq2split
seq2split.threads.use_cores()
import tensorflow as tf
tf.zeros([60_000_000])
"""
    environment = {name: value for name, value in os.environ.items() if name not in MEMORY}
    environment["TF_CPU_BFC_MEM_LIMIT_IN_MB"] = "100"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode
    assert "ResourceExhaustedError" in done.stderr


def test_a_task_waits_for_those_that_it_needs_alone():
    """The second of the first layer ends only after the first of the second layer has."""
    ended = Event()
    with Workers(2).schedule() as schedule:
        one = schedule.add(lambda: 1)
        two = schedule.add(lambda: ended.wait(30))
        after_one = schedule.add(lambda: (ended.set(), one.result() + 1)[1], needs=[one])
        after_both = schedule.add(lambda: (two.result(), after_one.result()), needs=[two, after_one, two])
        assert after_both.result() == (True, 2)


def test_of_those_that_may_begin_the_first_added_does():
    """Also if it could begin later than others could; one thread is kept busy, so that the other runs all."""
    begun, go, end, late = [], Event(), Event(), Future()
    with Workers(2).schedule() as schedule:
        schedule.add(lambda: end.wait(30))
        schedule.add(lambda: go.wait(30))
        tasks = [schedule.add(partial(begun.append, at), needs=[late] if at == 0 else []) for at in range(4)]
        late.set_result(None)
        go.set()
        wait(tasks)
        end.set()
    assert begun == [0, 1, 2, 3]


def test_a_task_that_fails_fails_those_that_need_it_and_no_other():
    ran = []
    with Workers(2).schedule() as schedule:
        wrong = schedule.add(lambda: 1 // 0)
        after = schedule.add(lambda: ran.append("after"), needs=[wrong])
        last = schedule.add(lambda: ran.append("last"), needs=[after])
        other = schedule.add(lambda: ran.append("other"))
    assert ran == ["other"]
    assert other.exception() is None
    assert last.exception() is after.exception() is wrong.exception()
    with pytest.raises(ZeroDivisionError):
        wrong.result()


def test_nothing_runs_any_more_when_the_schedule_ends():
    ran, go = [], Event()

    def add_and_fail():
        with Workers(2).schedule() as schedule:
            schedule.add(lambda: (go.wait(30), time.sleep(0.2), ran.append("task")))
            schedule.add(go.set)
            raise KeyError("while adding")

    with pytest.raises(KeyError):
        add_and_fail()
    assert ran == ["task"]


def test_without_threads_a_task_runs_where_it_is_added():
    with Workers(1).schedule() as schedule:
        one = schedule.add(lambda: 1)
        assert schedule.add(lambda: one.result() + 1, needs=[one]).result() == 2
        with pytest.raises(ZeroDivisionError):
            schedule.add(lambda: 1 // 0)


def part_of_much_memory() -> s2s.Part:
    """Beyond 200 MB TensorFlow sums gradients up into variables that graphs called at once would share."""
    kernel = tf.Variable(tf.zeros([40_000, 512]), name="kernel")

    def loss(field, training=False):
        values = tf.one_hot(field.values, 512)
        products = [tf.matmul(values * scale, kernel, transpose_b=True) for scale in (1.0, 2.0, 3.0)]
        return tf.add_n([tf.reduce_sum(product) for product in products])

    return s2s.Part(loss, variables=[kernel], name="part")


def gradients_of_much_memory(pieces: list[int]) -> np.ndarray:
    return (1.0 + 2.0 + 3.0) * np.bincount(pieces, minlength=512)


def test_graphs_that_need_much_memory_run_at_once():
    model = s2s.SplitModel(
        [s2s.Node(part_of_much_memory(), "field", s2s.Buckets([2, 3]), loss=True, weight="rows")], threads=2
    )
    batch = {"field": [[1, 2], [3, 4], [5, 6, 7], [7, 8, 9]]}
    for _ in range(4):
        _, gradients = model.loss_and_gradients(batch)
    expected = gradients_of_much_memory([1, 2, 3, 4, 5, 6, 7, 7, 8, 9]) / 4
    np.testing.assert_allclose(gradients["part"][0][0], expected)


def test_graphs_that_need_much_memory_run_at_once_in_threads_of_ones_own():
    field = s2s.Sequences(tf.constant([[1, 2], [3, 4]]), tf.constant([2, 2]))
    graph = part_of_much_memory().build(tf.nest.map_structure(tf.TensorSpec.from_tensor, field))
    graph.value_and_gradients(field)
    with ThreadPoolExecutor(2) as pool:
        results = [each.result() for each in [pool.submit(graph.value_and_gradients, field) for _ in range(8)]]
    for result in results:
        np.testing.assert_allclose(result.gradients[0][0], gradients_of_much_memory([1, 2, 3, 4]))
