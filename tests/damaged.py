"""Damaged bytes: random ones, and files made wrong by a few changes, as bits, editors and programs do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import strategies as st

# What stands for a number, a word or a byte where another stood.
ODD = [
    *(b"", b"0", b"-1", b"1" + b"0" * 30, b"9" * 5000, b"0x" + b"f" * 5000, b"1e999", b"nan", b"NaN", b"-Infinity"),
    *(
        b"null",
        b"true",
        b'"',
        b"'",
        b'""',
        b"[]",
        b"{}",
        b"[" * 3000,
        b"{" * 3000,
        b'{"a":' * 3000,
        b"a." * 3000 + b"a",
    ),
    *(b"\0", b"\n", b"\r", b"\\", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x1b[2J"),
    *(b"#", b"=", b".", b",", b":", b"(a+)+", b"a{99999999999}", b"\x1f\x8b", b"../..", b"/dev/null", b"[model]\n"),
]


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Draw the bytes of a file that may be wrong.

    Args:
        draw: What hypothesis draws with.
        valid: A file that is right.
    """
    if draw(st.booleans()) and draw(st.booleans()):
        return draw(st.binary(max_size=64))
    data = valid
    for _ in range(draw(st.integers(1, 4))):
        data = _changed(draw, data)
    return data


def _changed(draw: st.DrawFn, data: bytes) -> bytes:
    start = draw(st.integers(0, len(data)))
    stop = draw(st.integers(start, min(len(data), start + draw(st.sampled_from([1, 4, 30, len(data) or 1])))))
    inside = data[start:stop]
    how = draw(st.sampled_from(["cut", "delete", "replace", "insert", "double", "flip"]))
    if how == "cut":
        return data[:start]
    if how == "flip" and start < len(data):
        return data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
    new = {
        "delete": lambda: b"",
        "replace": lambda: draw(st.sampled_from(ODD)),
        "insert": lambda: draw(st.sampled_from(ODD)) + inside,
        "double": lambda: inside * 2,
        "flip": lambda: draw(st.binary(max_size=8)),
    }[how]()
    return data[:start] + new + data[stop:]


class HangError(BaseException):
    """Something took too long; no `except Exception` takes it for an error of what it tried."""


@contextmanager
def at_once(seconds: float) -> Iterator[None]:
    """Raise a `HangError` when what stands in here takes longer; call it in the main thread."""

    def stop(*_):
        raise HangError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
