"""Resources that a callable reads beside variables: lookup tables. A SavedModel must be told of each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


def find_resources(fn: Callable) -> list[Any]:
    """Return the objects with a resource that a callable owns, its owner does, or a function closes over.

    Args:
        fn: A Keras layer, a `tf.Module`, a bound method of either, or a function.
    """
    found = {}
    for root in _roots(fn, set()):
        for each in _tracked_by(root):
            if hasattr(each, "resource_handle"):
                found.setdefault(id(each), each)
    return list(found.values())


def _roots(fn: Any, seen: set[int]) -> Iterator[Any]:
    """Yield a callable and everything that may hold resources which it reads."""
    if id(fn) in seen:
        return
    seen.add(id(fn))
    yield fn
    inner = [getattr(fn, "__self__", None), getattr(fn, "python_function", None), getattr(fn, "__wrapped__", None)]
    inner += [fn.func, *fn.args, *fn.keywords.values()] if isinstance(fn, functools.partial) else []
    if inspect.isfunction(fn):
        closed = inspect.getclosurevars(fn)
        inner += [*closed.nonlocals.values(), *closed.globals.values()]
    for each in inner:
        if each is not None and not inspect.ismodule(each) and not inspect.isclass(each):
            yield from _roots(each, seen)


def _tracked_by(root: Any) -> list[Any]:
    try:
        return tf.train.TrackableView(root).descendants()
    except (TypeError, ValueError, AttributeError):  # nothing that TensorFlow tracks
        return []
