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
    """Every item of everyone: the first of each, then the second of each, and so on.

    The order is drawn anew for each place and `number`: nobody always follows the same one, whose kernels it may find
    compiled or its cache full.

    Example:
        >>> sorted(in_turn({"a": [1, 2], "b": [3]}, 0))
        [('a', 1), ('a', 2), ('b', 3)]
    """
    for at in range(max(map(len, items.values()), default=0)):
        for name in np.random.default_rng([number, at]).permutation(list(items)).tolist():
            if at < len(items[name]):
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
