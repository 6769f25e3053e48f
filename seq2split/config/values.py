"""The values of keys: their types and ranges, their conversion from TOML, and descriptions for messages."""

import dataclasses
import difflib
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from seq2split.config.architectures import BUILT_IN, EXPECTED, absolute_architecture, is_architecture
from seq2split.config.toml import value_text


@dataclass(frozen=True)
class Range:
    """The finite numbers that a key accepts.

    Example:
        >>> str(Range(at_least=0, below=1)), 0 in Range(at_least=0, below=1), 1 in Range(at_least=0, below=1)
        ('at least 0 and below 1', True, False)
    """

    at_least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    at_most: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.at_least <= number <= self.at_most and self.above < number < self.below

    def __str__(self) -> str:
        bounds = dataclasses.asdict(self).items()
        return " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds if math.isfinite(bound))


ARCHITECTURE = "architecture"  # marks a string that names an architecture
Architecture = Annotated[str, ARCHITECTURE]
PATH = "path"  # marks a string that is a path: made absolute on load
Files = Annotated[tuple[str, ...], PATH]
OptionalFiles = Annotated[tuple[str, ...] | tuple[()], PATH]
OptionalFile = Annotated[str, PATH]
AUTO = "auto"  # what is chosen
Lengths = Literal["auto"] | int | tuple[int, ...]
Unroll = bool | Literal["auto"]
LARGEST = 10**12  # what counts steps and the like fits into 64 bits, and its sums too
LONGEST = 2**20  # no padded length is above it
Count = Annotated[int, Range(at_least=1)]
CountOrZero = Annotated[int, Range(at_least=0)]
Share = Annotated[float, Range(at_least=0, below=1)]
Positive = Annotated[float, Range(above=0)]
PositiveOrZero = Annotated[float, Range(at_least=0)]
Seed = Annotated[int, Range(at_least=0, below=2**32)]  # what numpy.random.seed accepts


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _are_files(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return len(names) > 0 and all(_is_path(name) and name for name in names)


def _are_files_or_none(value: Any) -> bool:
    return value in ("", []) or _are_files(value)


def _are_lengths(value: Any) -> bool:
    if value == AUTO:
        return True
    lengths = value if isinstance(value, list) else [value]
    positive = len(lengths) > 0 and all(type(length) is int and 0 < length <= LONGEST for length in lengths)
    return positive and all(a < b for a, b in itertools.pairwise(lengths))


_FLOAT32 = 3.4028234e38  # the largest number that the computation has

# By type: a test of a TOML value, and what messages call such a value. Types are exact, as isinstance(True, int) holds.
_TYPES: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: type(value) is bool, "true or false"),
    int: (lambda value: type(value) is int and abs(value) <= LARGEST, "an integer"),
    float: (lambda value: type(value) in (int, float) and abs(value) <= _FLOAT32, "a number"),
    ARCHITECTURE: (is_architecture, EXPECTED),
    str: (_is_path, 'a path in quotes, or "" for none'),
    tuple[str, ...]: (_are_files, "a path in quotes, or a list of paths"),
    tuple[str, ...] | tuple[()]: (_are_files_or_none, "a path in quotes, or a list of paths, [] for none"),
    Unroll: (lambda value: type(value) is bool or value == AUTO, 'true, false or "auto"'),
    Lengths: (
        _are_lengths,
        '"auto", a count (an integer, at least 1), or a list of strictly increasing integers, at least 1 and at most '
        f"{LONGEST}",
    ),
}


def _unwrap(hint: Any) -> tuple[Any, Any]:
    """Return a type and its mark: the range of a number, PATH, or None. The type of an architecture is ARCHITECTURE."""
    base, mark = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
    return (ARCHITECTURE, None) if mark == ARCHITECTURE else (base, mark)


def convert(hint: Any, value: Any, directory: str) -> Any:
    """Return a TOML value as the type of its key.

    Args:
        hint: The type, as the key is annotated.
        value: The TOML value.
        directory: The directory that relative paths start from.

    Raises:
        ValueError: The key does not accept the value; `expectation` says what it accepts.

    Example:
        >>> convert(Files, "train.en", "/data"), convert(Share, 0, "/")
        (('/data/train.en',), 0.0)
    """
    base, mark = _unwrap(hint)
    is_choice = get_origin(base) is Literal
    valid = value in get_args(base) if is_choice else _TYPES[base][0](value)
    if not valid or (isinstance(mark, Range) and value not in mark):
        raise ValueError
    if base is float:
        value = float(value)
    if base in (tuple[str, ...], tuple[str, ...] | tuple[()]) and isinstance(value, str):
        value = [value] if value else []
    if base == ARCHITECTURE:
        value = absolute_architecture(value, directory)
    if mark == PATH:
        value = _absolute(value, directory)
    return tuple(value) if isinstance(value, list) else value


def _absolute(names: Any, directory: str) -> Any:
    """Return a path or a list of paths as absolute ones; "" stays."""
    if isinstance(names, list):
        return [_absolute(name, directory) for name in names]
    return names and os.path.abspath(os.path.join(directory, names))


def expectation(hint: Any, default: Any = None, value: Any = None) -> str:
    """Describe what a key accepts, its default if it has one, and the choice that the value may have meant.

    Example:
        >>> expectation(Literal["lstm", "gru"], "lstm", "GRU")
        'one of "lstm", "gru" (default: "lstm"); did you mean "gru"?'
    """
    base, mark = _unwrap(hint)
    choices = get_args(base) if get_origin(base) is Literal else ()
    text = "one of " + ", ".join(map(value_text, choices)) if choices else _TYPES[base][1]
    text += f", {mark}" if isinstance(mark, Range) else ""
    limit = {int: LARGEST, float: _FLOAT32}.get(base, math.inf)
    text += f", and of size at most {limit}" if type(value) in (int, float) and limit < abs(value) != math.inf else ""
    text += f" (default: {value_text(default)})" if default is not None else ""
    words = BUILT_IN if base == ARCHITECTURE else choices
    near = difflib.get_close_matches(value.lower(), words, n=1) if isinstance(value, str) else ()
    return text + (f"; did you mean {value_text(near[0])}?" if near else "")


_TYPE_NAMES = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "a list", dict: "a table"}


def shown(value: Any) -> str:
    """Describe a value as it was given, and name its type."""
    name = _TYPE_NAMES.get(type(value), "a date or time")
    if isinstance(value, dict):
        return f"{name} with the keys {', '.join(value) or '(none)'}"
    if isinstance(value, bool | str):
        return f"{clipped(value_text(value))} ({name})"
    try:
        return f"{clipped(str(value))} ({name})"
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a huge one ({name})"


def is_writable(value: Any) -> bool:
    """True if no integer in a TOML value has more than 64 bits."""
    if isinstance(value, dict | list):
        return all(map(is_writable, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or value.bit_length() <= 64


def clipped(text: str, width: int = 80) -> str:
    """Return a text, shortened to a width."""
    return text if len(text) <= width else text[: width - 3] + "..."
