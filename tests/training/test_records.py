"""What a training keeps, with a run directory and without one."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import read_history
from seq2split.runs.progress import Progress
from seq2split.runs.sessions import read_sessions
from seq2split.training.averages import MovingAverage
from seq2split.training.records import Records

FINGERPRINT = {"rows": 24, "tokens": 60}


class Training:
    """A variable whose value is the step, and its records."""

    def __init__(self, path=None, average=0):
        self.progress, self.variable = Progress(), tf.Variable(0.0)
        run = RunDirectory(path) if path else None
        moving = MovingAverage([], 0.0)
        self.records = Records(run, self.progress, {"model": [self.variable]}, {}, moving, average, "last")

    def start(self, fingerprint=FINGERPRINT, changed=False):
        told = self.records.restore(fingerprint, changed)
        return "\n".join([*told, *self.records.begin(finished=False, seed=1)])

    def step(self, count=1):
        for _ in range(count):
            self.progress.advance(epoch=0, index=0, tokens=5, seconds=0.25)
            self.variable.assign_add(1.0)
            self.records.add(loss=float(self.variable))
        return self


def test_a_run_goes_on_where_its_checkpoint_stands(tmp_path):
    first = Training(tmp_path)
    assert first.start().startswith("starting a new run")
    first.step(2).records.save()
    first.step(2)  # which are lost
    second = Training(tmp_path)
    assert "2 steps are done" in second.start()
    assert float(second.variable) == 2.0
    second.step()
    entries = read_history(tmp_path / "history.jsonl")
    assert [(entry["step"], entry["loss"], entry["tokens"]) for entry in entries] == [(1, 1, 5), (2, 2, 10), (3, 3, 15)]
    assert [session["step"] for session in read_sessions(tmp_path / "run.json")] == [0, 2]
    assert json.loads((tmp_path / "batches.json").read_text()) == FINGERPRINT


@pytest.mark.parametrize("again", [False, True])
def test_other_batches_are_refused(tmp_path, again):
    training = Training(tmp_path)
    training.start()
    training.step().records.save()
    training = training if again else Training(tmp_path)
    with pytest.raises(ValueError, match=r"on other batches \(tokens 60 -> 80\)"):
        training.start({"rows": 24, "tokens": 80})


def test_batches_may_change_before_the_first_checkpoint(tmp_path):
    Training(tmp_path).start()
    Training(tmp_path).start({"rows": 9})
    assert json.loads((tmp_path / "batches.json").read_text()) == {"rows": 9}


@pytest.mark.parametrize("kept", [False, True])
def test_the_best_model(tmp_path, kept):
    training = Training(tmp_path / "run" if kept else None)
    training.start()
    with pytest.raises(ValueError, match="nothing was validated yet"):
        training.records.load_best()
    training.step(3).records.save_best()
    training.step(2).records.load_best()
    assert float(training.variable) == 3.0
    assert (tmp_path / "run").exists() == kept


def test_a_training_without_a_directory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = Training()
    assert training.start() == "starting; nothing is written"
    assert training.step(2).records.save() is None
    assert training.start() == "going on: 2 steps are done, next is batch 1 of epoch 1"
    assert [entry["step"] for entry in training.records.history.entries] == [1, 2]
    assert not list(tmp_path.iterdir())


def test_an_average_lasts_as_long_as_its_context(tmp_path):
    training = Training(tmp_path, average=2)
    training.start()
    assert training.records.has_candidates()
    for _ in range(3):
        training.step().records.add_candidate(int(training.progress.step), 1.0)
    with training.records.averaged():
        assert float(training.variable) == 2.5
        training.records.keep_average(better=True)
    assert float(training.variable) == 3.0
    assert (tmp_path / "average").exists()
    training.records.keep_average(better=False)
    assert not (tmp_path / "average").exists()


def test_an_average_needs_a_directory():
    with pytest.raises(ValueError, match=r"average = 2 keeps models on disk; give a run directory"):
        Training(average=2)
    assert not Training().records.has_candidates()
