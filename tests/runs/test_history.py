"""The history of a run: entries as they were added, whatever moment it was killed at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seq2split.runs.history import History, read_history


@pytest.fixture
def path(tmp_path):
    history = History(tmp_path / "history.jsonl")
    for step in (2, 4, 6):
        history.add(step=step, loss=1 / step)
    history.add(step=6, validation_bleu=3.0)
    return tmp_path / "history.jsonl"


def test_entries_are_lines(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == read_history(path)
    assert lines[1:] == [{"step": 4, "loss": 0.25}, {"step": 6, "loss": 1 / 6}, {"step": 6, "validation_bleu": 3.0}]


@pytest.mark.parametrize(("step", "left"), [(0, []), (3, [2]), (4, [2, 4]), (6, [2, 4, 6, 6]), (9, [2, 4, 6, 6])])
def test_rewind(path, step, left):
    history = History(path)
    history.rewind(step)
    assert [entry["step"] for entry in read_history(path)] == left
    history.add(step=10)
    assert [entry["step"] for entry in read_history(path)] == [*left, 10]


@pytest.mark.parametrize(("step", "finished", "left"), [(6, True, True), (6, False, False), (4, True, False)])
def test_averages_are_those_of_a_finished_run(path, step, finished, left):
    history = History(path)
    assert not history.has_average()
    history.add(step=6, average_loss=1.0)
    assert history.has_average()
    history.rewind(step, finished)
    assert history.has_average() == left


def test_rewind_of_nothing(tmp_path):
    History(tmp_path / "none").rewind(0)
    assert not (tmp_path / "none").exists()


def test_an_unfinished_line_is_left_out(path):
    """That of a process which was killed while it wrote; the next one goes on after the last whole line."""
    whole = read_history(path)
    path.write_text(path.read_text() + '{"step": 8, "lo')
    assert read_history(path) == whole
    history = History(path)
    history.rewind(8)
    history.add(step=8)
    assert read_history(path) == [*whole, {"step": 8}]


DAMAGED_LINES = [
    *("{", "[3]", '{"loss": 1.0}', '{"step": "x"}', "", '{"step": 2, "lo{"step": 4}', "[" * 9999, "\xff", "null", "3"),
    *(
        '{"step": true}',
        '{"step": 1.5}',
        '{"step": 1, "loss": "x"}',
        '{"step": 1, "loss": null}',
        '{"step": 1, "a": []}',
    ),
    *('{"step": 1, "loss": true}', '{"step": 1' + "0" * 30 + "}", '{"step": 1' + "0" * 5000 + "}"),
]


@pytest.mark.parametrize("line", DAMAGED_LINES, ids=lambda line: line[:20])
def test_a_damaged_line_is_named(path, line):
    path.write_bytes(line.encode("latin-1") + b"\n" + path.read_bytes())
    with pytest.raises(ValueError, match=r"history\.jsonl, line 1: expected a JSON object of numbers with a step"):
        read_history(path)


def reread(path, step, state=None):
    history = History(path)
    return history, history.rewind(step, state=state)


def test_damaged_lines_are_told_and_kept(path):
    """The run goes on with the others."""
    lines = path.read_text().splitlines()
    damaged = "\n".join([lines[0], lines[1][:-4], *lines[2:], ""])
    path.write_text(damaged)
    history, (told,) = reread(path, 6)
    aside = path.with_name("history.damaged.jsonl")
    assert told.startswith(f"{path} was damaged or changed: it goes on without its lines 2, which can't be trusted; ")
    assert aside.read_text() == damaged
    assert [entry["step"] for entry in history.entries] == [2, 6, 6]
    assert read_history(path) == history.entries


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.write_text(path.read_text().replace("0.25", "0.35")), "goes on with figures that can't be"),
        (
            lambda path: path.write_text("".join(path.read_text().splitlines(True)[1:])),
            "goes on with figures that can't",
        ),
        (lambda path: path.write_text(path.read_text()[:30]), "goes on with figures that can't be trusted"),
        (lambda path: path.unlink(), "is lost: what was measured before isn't in the history any more"),
    ],
)
def test_what_a_checkpoint_knows_of_the_history(tmp_path, harm, told):
    """A changed figure is told too; what follows the checkpoint may be anything."""
    path = tmp_path / "history.jsonl"
    history = History(path)
    for step in (2, 4):
        history.add(step=step, loss=1 / step)
    state = history.state()
    history.add(step=6, loss=1.0)
    assert reread(path, 4, state)[1] == []
    assert reread(path, 4, state)[0].state() == state
    harm(path)
    (found,) = reread(path, 4, state)[1]
    assert told in found


def test_a_full_disk():
    history = History(Path("/dev/full"))
    with pytest.raises(OSError, match=r"^/dev/full can't be written: No space left on device; free some space"):
        history.add(step=1)


def test_no_history(tmp_path):
    with pytest.raises(ValueError, match="holds no history"):
        read_history(tmp_path / "history.jsonl")
