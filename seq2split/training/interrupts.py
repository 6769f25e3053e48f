"""Being asked to stop: a step ends, and where the training stands is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 2.0  # seconds in which Python may handle a second signal before the process is ended without it


class Interrupted(Exception):  # noqa: N818 it is no error
    """The training was asked to stop, and has saved where it stands."""


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Collect the first signal that asks to stop, so that the step can end; a second one acts at once.

    A terminal that is closed sends SIGHUP, and its shell once more, so a further one of these is none; where it is
    ignored, as under nohup, it stays so. Outside the main thread, which alone can handle signals, nothing is collected.
    """
    asked: list[int] = []
    before = {}
    acted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if not asked:
            asked.append(number)
        elif number != signal.SIGHUP:
            acted.set()
            signal.signal(number, before[number])
            before[number](number, frame) if callable(before[number]) else signal.raise_signal(number)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    with _watched(acted) if before else nullcontext():
        try:
            yield asked
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _watched(acted: threading.Event) -> Iterator[None]:
    """Have a thread answer signals at once: Python handles them between two of its own instructions.

    A compilation by XLA is one instruction, and may take minutes.

    Args:
        acted: Set when Python handles a second signal, and in the end.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    before = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(readable, before, acted), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        acted.set()
        signal.set_wakeup_fd(before)
        os.close(writable)
        thread.join()
        os.close(readable)


def _watch(readable: int, before: int, acted: threading.Event) -> None:
    """Tell of the first signal, and end the process at the second, if Python doesn't get to handle it."""
    count = 0
    while byte := os.read(readable, 1):
        if before != -1:
            with suppress(OSError):
                os.write(before, byte)  # whoever was woken up by signals still is
        number = byte[0]
        if number not in _SIGNALS:
            continue
        count += number != signal.SIGHUP or not count
        if count == 1:
            _tell(b"\nstopping after this step; once more stops at once\n")
        elif number != signal.SIGHUP and not acted.wait(_GRACE):
            os._exit(128 + number)


def _tell(text: bytes) -> None:
    """Write to standard error; where a terminal is gone, what follows must not fail for that."""
    for number, data in ((2, text), (1, b"")):
        try:
            os.write(number, data)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
