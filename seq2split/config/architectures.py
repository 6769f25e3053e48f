"""The architectures that a configuration may name: those that are built in, and functions of one's own."""

import os
from typing import Any

BUILT_IN = ("recurrent", "transformer")
EXPECTED = '"recurrent" or "transformer", or a function of your own: "package.module:function" or "file.py:function"'


def is_architecture(value: Any) -> bool:
    """True if a value is the name of a built-in architecture, or is written as a function of one's own is.

    Example:
        >>> [is_architecture(name) for name in ("recurrent", "speech.models:make", "mine.py:make", "lstm", "mine:")]
        [True, True, True, False, False]
    """
    return isinstance(value, str) and (value in BUILT_IN or _names_function(value))


def absolute_architecture(name: str, directory: str) -> str:
    """Return the name of an architecture with the path of its file, if it has one, taken from a directory.

    Example:
        >>> absolute_architecture("mine.py:make", "/runs"), absolute_architecture("speech.models:make", "/runs")
        ('/runs/mine.py:make', 'speech.models:make')
    """
    place, _, function = name.rpartition(":")
    return f"{os.path.abspath(os.path.join(directory, place))}:{function}" if _is_file(place) else name


def _names_function(value: str) -> bool:
    place, _, function = value.rpartition(":")
    return function.isidentifier() and (_is_file(place) or all(word.isidentifier() for word in place.split(".")))


def _is_file(place: str) -> bool:
    return os.path.splitext(place)[1] == ".py" and "\0" not in place
