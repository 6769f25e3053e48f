"""Being asked to stop: a step ends, and where the training stands is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):  # noqa: N818 it is no error
    """The training was asked to stop, and has saved where it stands."""


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Collect the first interrupt or termination signal, so that the step can end; a second one acts at once.

    Outside the main thread, which alone can handle signals, nothing is collected.
    """
    asked: list[int] = []
    before = {}

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.write(2, b"\nstopping after this step; once more stops at once\n")  # print may be what was interrupted

    is_main = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGINT, signal.SIGTERM) if is_main else ():
        before[number] = signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
