"""Words of which one is to be chosen."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Checks a word.

    Args:
        name: What is chosen, as messages call it.
        value: The word.
        choices: Those that are known.

    Raises:
        ValueError: It is none of them; the message names the nearest.

    Example:
        >>> check_choice("cell", "lstm", ["lstm", "gru"])
    """
    if value not in choices:
        (nearest,) = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.0)
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}; did you mean {nearest!r}?")
