"""The model of a run that is read: the best one, and never another in silence."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pytest
from checkpointed import HARMS, Training, make_run, restored

from seq2split.runs import best_model
from seq2split.runs.best_model import is_average_lost, restore_model, was_validated
from seq2split.runs.history import History


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def best_values(run):
    training = Training(run.path)
    restore_model(run, training.parts)
    return [each.numpy().tolist() for each in training.variables]


@pytest.mark.parametrize("harm", [*HARMS, "all"])
def test_a_lost_best_model_is_no_other(run, harm):
    """It is an error that tells what to do, and that works."""
    expected = best_values(run)
    if harm == "all":
        shutil.rmtree(run.best)
    else:
        HARMS[harm](run.best / "ckpt-4.index")
    with pytest.raises(ValueError, match=r"the best model, of step 4, is lost|ckpt-4 is damaged") as caught:
        best_values(run)
    assert "start the training again, which writes it anew" in str(caught.value)
    assert was_validated(run)
    training, told = restored(run)
    assert f"the best model, of step 4, is written again from {run.latest}/ckpt-4" in told
    assert int(training.progress.step) == 6
    assert best_values(run) == expected


def test_a_best_model_that_is_lost_for_good(run):
    """The next validation is the best, and the latest may be taken in its place by hand."""
    shutil.rmtree(run.best)
    for path in run.latest.glob("ckpt-4.*"):
        path.unlink()
    with pytest.raises(ValueError, match=rf"copy {run.latest}/ckpt-6\.\* to {run.best}\.$"):
        best_values(run)
    training, told = restored(run)
    assert "the best model, of step 4, is lost: the next validation counts as the best so far" in told
    assert training.progress.judge(-1e6)
    run.best.mkdir()
    for path in run.latest.glob("ckpt-6.*"):
        shutil.copy(path, run.best)
    assert best_values(run) == [each.numpy().tolist() for each in training.variables]


def test_killed_before_the_best_was_written(tmp_path):
    """It is the checkpoint, which is written before it; with a moving average it has the values of that."""
    training = Training(tmp_path).step(2)
    training.progress.judge(1.0)
    training.checkpoints.save()
    with pytest.raises(ValueError, match="the best model, of step 2, is lost"):
        restore_model(training.run, training.parts)
    again = Training(tmp_path, applied=lambda: doubled(again.variables))
    again.checkpoints.restore()
    assert float(again.variables[0][0]) == pytest.approx(float(training.variables[0][0]))
    assert best_values(again.run)[0][0] == pytest.approx(2 * float(training.variables[0][0]))


@contextmanager
def doubled(variables):
    for variable in variables:
        variable.assign(variable * 2)
    yield
    for variable in variables:
        variable.assign(variable / 2)


def test_a_lost_average(run):
    """That it was the model of the run, is told by the history."""
    training, _ = restored(run)
    training.progress.settings.assign(json.dumps({"judged": {"monitor": "loss", "mode": "min"}}))
    training.step(2).checkpoints.save()
    training.checkpoints.save_average()
    History(run.history).add(step=8, average_loss=-5.0)
    assert restore_model(run, training.parts) == f"{run.average}/ckpt-8"
    assert not is_average_lost(run)
    training.checkpoints.drop_average()
    assert is_average_lost(run)
    with pytest.raises(ValueError, match=rf"the average of models, which was the best, is lost: .*to {run.average}\.$"):
        restore_model(run, training.parts)
    History(run.history).add(step=8, average_loss=5.0)
    assert not is_average_lost(run), "it was no better"


def test_a_training_goes_on_meanwhile(run, monkeypatch):
    """A model that is deleted while it is read has made room for a better one."""
    training, read = restored(run)[0], best_model._read
    tries = []

    def slow(folder, step, parts):
        tries.append(step)
        if len(tries) == 1:
            training.step().checkpoints.save_best()
        return read(folder, step, parts)

    monkeypatch.setattr(best_model, "_read", slow)
    assert restore_model(run, Training(run.path).parts) == f"{run.best}/ckpt-7"
    assert tries == [4, 7]


def test_the_first_best_model_is_about_to_be_written(tmp_path, monkeypatch):
    """After the checkpoint of its step."""
    training = Training(tmp_path).step(2)
    training.progress.judge(1.0)
    training.checkpoints.save()
    monkeypatch.setattr(best_model.time, "sleep", lambda _: training.checkpoints.save_best())
    assert restore_model(training.run, Training(tmp_path).parts) == f"{training.run.best}/ckpt-2"
