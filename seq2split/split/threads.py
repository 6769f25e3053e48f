"""Threads that share the work on a processor; `seq2split.threads` is this module.

The operations of an unrolled graph take tens of microseconds: spread over cores, they would wait for each other more
than they gain. So `SplitModel` deals out the rows of a batch instead, and each core runs its own graph from end to end.
"""

from __future__ import annotations

import heapq
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import tensorflow as tf

from seq2split.engine.call_options import stay_apart

# oneDNN compiles a kernel for each shape, in about 0.2 ms and 40 kB, and keeps 1,024 by default. Buckets and rows come
# to some 8,000 for a model, the same in each epoch. Letting one go takes longer than compiling it: it looks at all.
_KERNELS = 16_384
# TensorFlow's own allocator takes 2 % less time of a step than the C library's, and less memory; but it has one lock.
_FEW = 4
_MOST = 8  # with more, too few rows of an ordinary batch would be left for each


def use_cores() -> int:
    """Set TensorFlow up for one thread of a `SplitModel` on each core, and for the kernels of many shapes.

    Call it before the first layer is made: once TensorFlow has computed anything, it can't be set up any more. Then
    this warns, and returns 1. On a machine with a GPU it changes nothing, and returns 1. Part of it goes by the
    environment: `ONEDNN_PRIMITIVE_CACHE_CAPACITY`, `TF_CPU_ALLOCATOR_USE_BFC` and `TF_CPU_BFC_MEM_LIMIT_IN_MB` stay as
    they are where they are set.

    Returns:
        The number of threads to give to `SplitModel`.

    Example:
        >>> import seq2split as s2s
        >>> threads = s2s.threads.use_cores()
        >>> threads >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(cores, _MOST)
    if tf.config.list_physical_devices("GPU"):
        return 1
    try:
        tf.config.threading.set_intra_op_parallelism_threads(cores // threads)
        tf.config.threading.set_inter_op_parallelism_threads(cores)
    except RuntimeError:
        warnings.warn(
            "use_cores came after TensorFlow's first computation: one thread is used; call it before the first layer "
            "is made.",
            stacklevel=2,
        )
        return 1
    _set_up_memory(threads)
    return threads


def _set_up_memory(threads: int) -> None:
    """Have the kernels of all shapes kept, and memory allocated by TensorFlow itself, up to all that there is."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))
    if threads <= _FEW and "TF_CPU_ALLOCATOR_USE_BFC" not in os.environ and hasattr(os, "sysconf"):
        os.environ["TF_CPU_ALLOCATOR_USE_BFC"] = "true"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(memory >> 20))


class Workers:
    """Threads that share the tasks of a step.

    Args:
        count: The number of threads; with 1 the caller does all of the work.

    Attributes:
        count: The number of threads.
    """

    def __init__(self, count: int):
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=stay_apart) if count > 1 else None

    def each(self, task: Callable, items: Iterable) -> list:
        """Return the results of a task for each item, in the order of the items.

        Args:
            task: A function of an item.
            items: The items.

        Example:
            >>> Workers(2).each(abs, [-1, 2, -3])
            [1, 2, 3]
        """
        items = list(items)
        if self._pool is None or len(items) < 2:
            return [task(item) for item in items]
        futures = [self._pool.submit(task, item) for item in items]
        return [future.result() for future in futures]

    @contextmanager
    def schedule(self) -> Iterator[Schedule]:
        """Yield a schedule of tasks that need each other; none of them is running any more when the context ends.

        Example:
            >>> with Workers(2).schedule() as schedule:
            ...     one = schedule.add(lambda: 1)
            ...     two = schedule.add(lambda: one.result() + 1, needs=[one])
            ...     two.result()
            2
        """
        schedule = Schedule(self._pool)
        try:
            yield schedule
        finally:
            schedule.wait()


class Schedule:
    """Tasks that need each other's results, each of which begins once those it needs have ended and a thread is free.

    Nobody waits for a whole layer of tasks: between two layers, threads would stand idle until the slowest is done. Of
    the tasks that may begin, that which was added first does.

    Args:
        pool: The threads; `None` to run each task where it is added.
    """

    def __init__(self, pool: ThreadPoolExecutor | None):
        self._pool, self._lock = pool, Lock()
        self._added: list[Future] = []
        self._ready: list[_Task] = []

    def add(self, run: Callable[[], Any], needs: Iterable[Future] = ()) -> Future:
        """Add a task.

        Args:
            run: The task, a function without arguments.
            needs: The tasks that it needs; if one of them fails, it fails alike and isn't run.

        Returns:
            What will hold its result.
        """
        if self._pool is None:
            done: Future = Future()
            done.set_result(run())
            return done
        needs = list(dict.fromkeys(needs))
        task = _Task(len(self._added), run, needs, missing=len(needs) + 1)
        self._added.append(task.done)
        for need in needs:
            need.add_done_callback(lambda _: self._count_down(task))
        self._count_down(task)
        return task.done

    def wait(self) -> None:
        """Wait until all tasks have ended, or failed; nothing can be added any more."""
        wait(self._added)
        self._added.clear()  # futures keep their callbacks, and so this schedule: neither would be free before long

    def _count_down(self, task: _Task) -> None:
        with self._lock:
            task.missing -= 1
            if task.missing:
                return
            heapq.heappush(self._ready, task)
        self._pool.submit(self._run_first)

    def _run_first(self) -> None:
        with self._lock:
            task = heapq.heappop(self._ready)
        error = next((need.exception() for need in task.needs if need.exception() is not None), None)
        try:
            result = task.run() if error is None else None
        except BaseException as own:  # whoever asks for the result gets it
            error = own
        task.forget()
        if error is None:
            task.done.set_result(result)
        else:
            task.done.set_exception(error)


@dataclass(order=True)
class _Task:
    """A task of a schedule.

    Attributes:
        number: Its place among all.
        run: What it does.
        needs: The tasks that it needs.
        missing: The number of those that have not ended, and one until it is added.
        done: What will hold its result.
    """

    number: int
    run: Callable[[], Any] | None = field(compare=False)
    needs: list[Future] = field(compare=False)
    missing: int = field(compare=False)
    done: Future = field(default_factory=Future, compare=False)

    def forget(self) -> None:
        """Let go what it has run with, since those that it needed hold it as long as they live."""
        self.run, self.needs = None, []
