"""Event files, read back as TensorBoard reads them."""

from __future__ import annotations

import pytest
from run_states import scalars, texts

from seq2split.runs.summaries import SummaryWriter


def test_scalars_and_texts(tmp_path):
    writer = SummaryWriter(tmp_path / "events")
    writer.scalars(3, loss=1.5, padding=0.25)
    writer.text(3, "samples", "- *ein* Satz")
    writer.scalars(4, loss=1.0)
    assert scalars(tmp_path) == {"loss": {3: 1.5, 4: 1.0}, "padding": {3: 0.25}}
    assert texts(tmp_path, "samples") == ["- *ein* Satz"]


def test_nothing_is_made_before_something_is_written(tmp_path):
    SummaryWriter(tmp_path / "events")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", [0, 2**40])
def test_nothing_is_written_without_a_directory(tmp_path, monkeypatch, step):
    monkeypatch.chdir(tmp_path)
    writer = SummaryWriter(None)
    writer.scalars(step, loss=1.0)
    writer.text(step, "samples", "text")
    assert not list(tmp_path.iterdir())
