"""How a callable learns whether it trains: by a keyword that it takes, if it takes one."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable

import keras

KEYWORDS = ("training", "is_training")
"""Keras's word, and Sonnet's."""


class TrainingFlag:
    """The keyword by which a callable learns whether it trains.

    Where a callable takes any keywords (`**kwargs`), as wrappers and the layers of Keras 2 do, the keyword is tried: it
    is told only when the callable is traced whether what it calls takes it.

    Args:
        fn: The callable.
        name: The part that it belongs to, for warnings.
    """

    def __init__(self, fn: Callable, name: str):
        self._keyword, self._is_certain = _find(fn)
        self._name = name

    def arguments(self, training: bool) -> dict[str, bool]:
        """Return the keyword arguments that tell the callable whether it trains."""
        return {self._keyword: training} if self._keyword else {}

    def withdraw(self, error: TypeError) -> bool:
        """Stop passing the keyword if it was tried and an error says that it isn't taken.

        Args:
            error: What the callable raised.

        Returns:
            True if the callable is to be called again, without the keyword.
        """
        if self._is_certain or not self._keyword or f"unexpected keyword argument '{self._keyword}'" not in str(error):
            return False
        warnings.warn(
            f"part {self._name!r} seems to take any keyword, but what it calls doesn't take {self._keyword}=..., so "
            "that it is called alike in training and in inference. If it holds dropout or normalization, give it an "
            f"argument {self._keyword!r} and pass that on; if not, list its arguments in place of **kwargs.",
            stacklevel=2,
        )
        self._keyword = None
        return True


def _find(fn: Callable) -> tuple[str | None, bool]:
    """Return the keyword that a callable takes, or may take, and whether that is certain."""
    if isinstance(fn, keras.Layer):
        return "training", True
    if isinstance(fn, functools.partial):
        return (None, True) if set(KEYWORDS) & fn.keywords.keys() else _find(fn.func)  # whoever binds it has decided
    own, seen = _parameters(fn, follow_wrapped=False), _parameters(fn, follow_wrapped=True)
    for parameters, certain in ((own, True), (seen, False)):
        for keyword in KEYWORDS:
            if keyword in parameters and parameters[keyword].kind is not inspect.Parameter.POSITIONAL_ONLY:
                return keyword, certain
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in seen.values()):
        return KEYWORDS[0], False
    return None, True


def _parameters(fn: Callable, *, follow_wrapped: bool) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(fn, follow_wrapped=follow_wrapped).parameters)
    except (TypeError, ValueError):  # built-in functions have no signature
        return {}
