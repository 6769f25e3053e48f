"""How many threads share the work on a processor, and how TensorFlow is told.

The operations of an unrolled graph take tens of microseconds: spread over cores, they wait for each other more than
they gain. So a batch's rows are dealt out instead (`SplitModel`), and each core runs its own graph from end to end.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

_MOST = 8  # beyond it the rows of an ordinary batch get too few for each


def use_cores() -> int:
    """Sets TensorFlow up for one thread of `SplitModel` on each core.

    It must come before TensorFlow first computes, so before the first layer is made; where it comes too late, it warns.
    Where there is a GPU, nothing changes.

    Returns:
        The `threads` to give to `SplitModel` and others.

    Example:
        >>> use_cores() >= 1
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
        warnings.warn("use_cores came after TensorFlow's first computation: one thread is used", stacklevel=2)
        return 1
    return threads


class Workers:
    """Threads that share the tasks of a step.

    Args:
        count: How many; with 1 the caller does all of it.
    """

    def __init__(self, count: int):
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def each(self, task: Callable, items: Iterable, cost: Callable | None = None) -> list:
        """The results of a task for each item.

        Args:
            task: A function of an item.
            items: The items.
            cost: A function of an item; the dearest begin first.

        Returns:
            The results in the order of the items.

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
