"""Whether XLA compiles what is being traced: a layer may then choose operations that XLA is quick with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_for_xla = ContextVar("for_xla", default=False)


@contextmanager
def tracing_for_xla(is_compiled: bool = True) -> Iterator[None]:
    """Say whether XLA compiles what is traced within.

    Args:
        is_compiled: True if it does.

    Example:
        >>> with tracing_for_xla():
        ...     is_for_xla()
        True
    """
    token = _for_xla.set(is_compiled)
    try:
        yield
    finally:
        _for_xla.reset(token)


def is_for_xla() -> bool:
    """Return True if XLA compiles what is being traced, as far as somebody has said so."""
    return _for_xla.get()
