"""The error for a word that is none of the choices."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check that a word is one of the choices.

    Args:
        name: The name of what is chosen, for the message.
        value: The word.
        choices: The words that are accepted, at least one.

    Raises:
        ValueError: The word is none of them; the message names all, and the nearest.

    Example:
        >>> check_choice("cell", "lstm", ["lstm", "gru"])
    """
    if value not in choices:
        (nearest,) = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.0)
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}; did you mean {nearest!r}?")
