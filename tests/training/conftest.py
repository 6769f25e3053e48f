"""Keeps a busy machine from being taken for native code that no second signal interrupts."""

import pytest

from seq2split.training import interrupts


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    monkeypatch.setattr(interrupts, "_GRACE", 300.0)
