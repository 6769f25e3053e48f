"""Threads that share the work on a processor; `seq2split.threads` is this module.

The operations of an unrolled graph take tens of microseconds: spread over cores, they would wait for each other more
than they gain. So `SplitModel` deals out the rows of a batch instead, and each core runs its own graph from end to end.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

_MOST = 8  # with more, too few rows of an ordinary batch would be left for each


def use_cores() -> int:
    """Set TensorFlow up for one thread of a `SplitModel` on each core.

    Call it before the first layer is made: once TensorFlow has computed anything, it can't be set up any more. Then
    this warns, and returns 1. On a machine with a GPU it changes nothing, and returns 1.

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
    return threads


class Workers:
    """Threads that share the tasks of a step.

    Args:
        count: The number of threads; with 1 the caller does all of the work.

    Attributes:
        count: The number of threads.
    """

    def __init__(self, count: int):
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def each(self, task: Callable, items: Iterable, cost: Callable | None = None) -> list:
        """Return the results of a task for each item, in the order of the items.

        Args:
            task: A function of an item.
            items: The items.
            cost: A function that estimates what an item costs; the dearest begin first.

        Example:
            >>> Workers(2).each(abs, [-1, 2, -3])
            [1, 2, 3]
        """
        items = list(items)
        if self._pool is None or len(items) < 2:
            return [task(item) for item in items]
        order = sorted(range(len(items)), key=lambda index: -cost(items[index])) if cost else range(len(items))
        futures = {index: self._pool.submit(task, items[index]) for index in order}
        return [futures[index].result() for index in range(len(items))]
