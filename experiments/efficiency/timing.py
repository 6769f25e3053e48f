"""Times steps in turn, so that a machine that slows down slows all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from efficiency.peer_process import PeerError

_IN_A_ROW = 4


class Work(NamedTuple):
    """What one subject runs.

    Attributes:
        run: Runs an item of `items`, and returns the seconds that it took.
        items: What stands for an epoch.
        tokens: What each of them counts for.
        weights: How many items of the epoch each stands for.
    """

    run: Callable[[Any], float]
    items: Sequence[Any]
    tokens: Sequence[int]
    weights: Sequence[float]


def timed(step: Callable[[Any], Any]) -> Callable[[Any], float]:
    """A function that calls another, and returns the seconds that it took."""

    def run(item: Any) -> float:
        start = time.perf_counter()
        step(item)
        return time.perf_counter() - start

    return run


def speeds(works: Mapping[str, Work], rounds: int, label: str) -> dict[str, np.ndarray]:
    """Time subjects that run their items in turn.

    Args:
        works: By subject.
        rounds: How often each runs each of its items, after two runs of each to warm up: kernels are compiled for each
            shape in each thread, and another thread may take the second run.
        label: Of the progress bar.

    Returns:
        For each subject the tokens in a second, `[rounds]`: the weighted sum of the tokens of its items over that of
        their seconds. A peer that fails on the way isn't among them; the others go on.
    """
    works = _warmed_up(works, label)
    found: dict[str, list[float]] = {name: [] for name in works}
    with _no_collections():
        for number in tqdm(range(rounds), desc=f"{label}: rounds", leave=False):
            seconds = dict.fromkeys(works, 0.0)
            weighted = {name: list(zip(work.items, work.weights, strict=True)) for name, work in works.items()}
            for name, (item, weight) in in_turn(weighted, number):
                try:
                    seconds[name] += weight * works[name].run(item)
                except PeerError:
                    seconds[name] = np.inf
            works = {name: work for name, work in works.items() if seconds[name] < np.inf}
            for name, work in works.items():
                found[name].append(np.dot(work.tokens, work.weights) / seconds[name])
    return {name: np.array(found[name]) for name in works}


def seconds(steps: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """The seconds of functions that are called in turn, `[rounds]` for each, after two calls of each to warm up."""
    works = {name: Work(timed(lambda step: step()), [step], [1], [1.0]) for name, step in steps.items()}
    return {name: 1.0 / each for name, each in speeds(works, rounds, "").items()}


def in_turn(items: Mapping[str, Sequence[Any]], number: int) -> Iterator[tuple[str, Any]]:
    """Every item of everyone: a few of each, then a few more of each, and so on.

    Everyone runs a few in a row, as in a training: what it finds in the caches is then mostly its own. With one in a
    row, whoever has many graphs would find none of them there. All orders are drawn anew for each `number`: nobody
    always follows the same one, and neighbours in length don't follow each other.

    Example:
        >>> sorted(in_turn({"a": [1, 2], "b": [3]}, 0))
        [('a', 1), ('a', 2), ('b', 3)]
    """
    random = np.random.default_rng(number)
    orders = {name: random.permutation(len(each)) for name, each in items.items()}
    for start in range(0, max(map(len, items.values()), default=0), _IN_A_ROW):
        for name in random.permutation(list(items)).tolist():
            for at in orders[name][start : start + _IN_A_ROW]:
                yield name, items[name][at]


def _warmed_up(works: Mapping[str, Work], label: str) -> dict[str, Work]:
    """Run each item of each twice, and return those who could."""
    able = {}
    for name, work in tqdm(works.items(), desc=f"{label}: warming up", leave=False, disable=not label):
        try:
            for item in [*work.items, *work.items]:
                work.run(item)
        except PeerError:
            continue
        except Exception as error:
            error.add_note(f"while subject {name!r} ran")
            raise
        able[name] = work
    return able


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep Python from searching the graphs of all subjects for garbage in the middle of a step of one of them."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
