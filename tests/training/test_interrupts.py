"""Signals that ask a training to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from seq2split.training.interrupts import asked_to_stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted(number, capfd):
    with asked_to_stop() as asked:
        assert asked == []
        signal.raise_signal(number)
        assert asked == [number]
    assert "once more stops at once" in capfd.readouterr().err


@pytest.mark.parametrize("first", SIGNALS)
def test_the_second_signal_acts_at_once(first):
    with asked_to_stop():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with asked_to_stop():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_handles_none():
    found = []

    def run():
        with asked_to_stop() as asked:
            found.append((asked, [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [([], [signal.getsignal(number) for number in SIGNALS])]
