"""Signals that ask a training to stop."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from seq2split.training.interrupts import asked_to_stop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted(number, capfd):
    with asked_to_stop() as asked:
        assert asked == []
        signal.raise_signal(number)
        assert asked == [number]
    assert capfd.readouterr().err == "\nstopping after this step; once more stops at once\n"


@pytest.mark.parametrize("first", SIGNALS)
def test_the_second_signal_acts_at_once(first):
    with asked_to_stop():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("first", SIGNALS)
def test_a_terminal_may_hang_up_more_than_once(first):
    """So do the kernel and the shell, one after the other."""
    with asked_to_stop() as asked:
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
        assert asked == [first]


def test_hanging_up_may_be_ignored():
    """As it is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asked_to_stop() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    with asked_to_stop():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


def test_whoever_is_woken_up_by_signals_still_is():
    """Such as the loop of events of a notebook."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    before = signal.set_wakeup_fd(writable)
    try:
        with asked_to_stop():
            signal.raise_signal(signal.SIGINT)
        assert os.read(readable, 9) == bytes([signal.SIGINT])
    finally:
        assert signal.set_wakeup_fd(before) == writable
        os.close(readable)
        os.close(writable)


def test_another_thread_handles_none():
    found = []

    def run():
        with asked_to_stop() as asked:
            found.append((asked, [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [([], [signal.getsignal(number) for number in SIGNALS])]


# In processes of their own: the main thread is in native code, which no handler of Python's interrupts

WAIT = """if True:
    import hashlib, sys, time
    sys.modules["seq2split"] = type(sys)("seq2split")  # TensorFlow isn't needed
    sys.modules["seq2split"].__path__ = [sys.argv[1]]
    sys.modules["seq2split.training"] = type(sys)("seq2split.training")
    sys.modules["seq2split.training"].__path__ = [sys.argv[1] + "/training"]
    from seq2split.training.interrupts import asked_to_stop
    with asked_to_stop() as asked:
        print("ready", flush=True)
        until = time.monotonic() + float(sys.argv[2])
        while time.monotonic() < until:
            hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[4]))
    print("a line after all", file=sys.stderr, flush=True)
    open(sys.argv[3], "w").write(str(asked))
"""


def waiting(seconds, path, rounds):
    package = os.path.dirname(os.path.dirname(sys.modules[asked_to_stop.__module__].__file__))
    return [sys.executable, "-c", WAIT, package, str(seconds), str(path), str(rounds)]


def test_the_second_ctrl_c_ends_native_code(tmp_path):
    command = waiting(30, tmp_path / "asked", 10**8)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
            time.sleep(0.1)
        assert process.wait(timeout=10) == 130
        assert time.monotonic() - start < 5
        assert re.search("stopping after this step", process.stderr.read())


def test_a_closed_terminal(tmp_path):
    """What is written to it afterwards is no error, so that the training is saved."""
    master, slave = pty.openpty()
    command = ["setsid", "--ctty", *waiting(1, tmp_path / "asked", 10**4)]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        told = b""
        while not told.endswith(b"ready\r\n"):
            told += os.read(master, 1)
        os.close(master)
        assert process.wait(timeout=20) == 0
    assert (tmp_path / "asked").read_text() == "[1]"
