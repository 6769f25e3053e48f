"""Checkpoints of a run: which are kept, which are read, and what is said of those that can't be."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from run_states import contents

from seq2split.runs.best_model import is_average_lost, restore_model, was_validated
from seq2split.runs.checkpoint_folder import CheckpointFolder
from seq2split.runs.checkpoints import Checkpoints, named
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import History
from seq2split.runs.progress import Progress


class Training:
    """Variables of two parts, an optimizer and a place, with their checkpoints in a directory."""

    def __init__(self, path, size=3, applied=nullcontext):
        self.run, self.progress = RunDirectory(path), Progress()
        self.parts = {name: [tf.Variable(tf.zeros([size]), name="kernel")] for name in ("encoder", "decoder")}
        self.optimizer = keras.optimizers.Adam(0.1)
        self.optimizer.build(self.variables)
        optimizers = {"": self.optimizer}
        self.checkpoints = Checkpoints(self.run, self.progress, self.parts, optimizers, applied=applied)

    @property
    def variables(self):
        return [variable for each in self.parts.values() for variable in each]

    def step(self, count=1):
        for _ in range(count):
            self.optimizer.apply([tf.ones_like(each) for each in self.variables], self.variables)
            self.progress.advance(epoch=1, index=2, tokens=3, seconds=0.5)
        return self

    def values(self):
        return [each.numpy().tolist() for each in [*self.variables, *self.optimizer.variables, self.progress.step]]


def test_everything_is_restored(tmp_path):
    first = Training(tmp_path).step(5)
    assert first.checkpoints.save() == f"{tmp_path}/checkpoints/ckpt-5"
    second = Training(tmp_path)
    assert second.values() != first.values()
    (told,) = second.checkpoints.restore()
    assert second.values() == first.values()
    assert told == f"resuming from {tmp_path}/checkpoints/ckpt-5: 5 steps are done, next is batch 3 of epoch 2"


def test_a_new_run(tmp_path):
    training = Training(tmp_path)
    assert training.checkpoints.restore() == [f"starting a new run; checkpoints go to {tmp_path}/checkpoints"]
    assert restore_model(training.run, training.parts) is None


def test_two_are_kept_and_each_step_is_saved_once(tmp_path):
    training = Training(tmp_path)
    for _ in range(3):
        training.step().checkpoints.save()
    assert training.checkpoints.save() is None
    assert sorted(path.name for path in training.run.latest.glob("*.index")) == ["ckpt-2.index", "ckpt-3.index"]


def test_the_model_that_is_read(tmp_path):
    """The latest; the best in its place; the average in that of both."""
    training = Training(tmp_path).step()
    checkpoints = training.checkpoints
    for save, directory in ((checkpoints.save, "checkpoints"), (checkpoints.save_best, "best")):
        save()
        assert restore_model(training.run, training.parts) == f"{tmp_path}/{directory}/ckpt-1"
    training.step().checkpoints.save_average()
    averaged = [each.numpy().tolist() for each in training.variables]
    training.step()
    assert restore_model(training.run, training.parts) == f"{tmp_path}/average/ckpt-2"
    assert [each.numpy().tolist() for each in training.variables] == averaged
    checkpoints.drop_average()
    checkpoints.drop_average()
    assert restore_model(training.run, training.parts) == f"{tmp_path}/best/ckpt-1"


@pytest.mark.parametrize("read", [lambda one: one.checkpoints.restore(), lambda one: restore_model(one.run, one.parts)])
def test_another_model(tmp_path, read):
    Training(tmp_path, size=2).step().checkpoints.save()
    with pytest.raises(ValueError, match=r"ckpt-1 is of another model, optimizer or version: .* Make the model as it"):
        read(Training(tmp_path))


def test_names_tell_variables_of_one_name_apart():
    variables = [tf.Variable(1.0, name="bias"), tf.Variable(2.0, name="bias")]
    assert named({"encoder": variables})["encoder"] == {"0_bias": variables[0], "1_bias": variables[1]}


# Damage


@pytest.fixture
def run(tmp_path):
    """Checkpoints of steps 2, 4 and 6, of which 4 is the best."""
    training = Training(tmp_path / "run")
    for step in (2, 4, 6):
        training.step(2)
        is_best = training.progress.judge(-abs(step - 4.0))
        training.checkpoints.save(2)
        if is_best:
            training.checkpoints.save_best()
    assert steps_in(training.run.latest) == [2, 4, 6]
    return training.run


def steps_in(folder):
    return CheckpointFolder(folder).steps()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HARMS = {"flipped": flip, "cut": lambda path: path.write_bytes(path.read_bytes()[:10]), "deleted": Path.unlink}


def restored(run):
    training = Training(run.path)
    return training, "\n".join(training.checkpoints.restore())


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("suffix", ["data-00000-of-00001", "index", "sha256"])
def test_the_newest_is_damaged(run, suffix, harm):
    """Then the one before is taken, and what can't be read is kept."""
    HARMS[harm](run.latest / f"ckpt-6.{suffix}")
    training, told = restored(run)
    if (suffix, harm) == ("sha256", "deleted"):
        assert int(training.progress.step) == 6
        return
    assert int(training.progress.step) == 4
    assert f"checkpoint {run.latest}/ckpt-6 is damaged: ckpt-6." in told
    assert f"it is kept in {run.latest}/damaged" in told
    assert "going on from the one before, and with it the history is set back to step 4" in told
    assert f"resuming from {run.latest}/ckpt-4" in told
    assert training.step(2).checkpoints.save() == f"{run.latest}/ckpt-6"


def test_the_newest_two_are_damaged(run):
    for step in (4, 6):
        flip(run.latest / f"ckpt-{step}.index")
    training, told = restored(run)
    assert int(training.progress.step) == 2
    assert told.count("is damaged") == 2
    assert f"{run.best} has the model of step 4; it stays until there is a better one" in told
    assert steps_in(run.best) == [4]


@pytest.mark.parametrize("harm", ["flipped", "cut"])
@pytest.mark.parametrize("suffix", ["data-00000-of-00001", "index"])
def test_no_digests_and_damage(run, suffix, harm):
    """TensorFlow's own checksums tell it."""
    (run.latest / "ckpt-6.sha256").unlink()
    HARMS[harm](run.latest / f"ckpt-6.{suffix}")
    training, told = restored(run)
    assert int(training.progress.step) == 4
    assert re.search("ckpt-6 is damaged: (TensorFlow can't read it|its data is cut short)", told)
    assert restore_model(run, training.parts) == f"{run.best}/ckpt-4"


def test_all_are_damaged(run):
    """Never is a new run begun in their place; advice is given that can be followed."""
    for step in (2, 4, 6):
        flip(run.latest / f"ckpt-{step}.data-00000-of-00001")
    before = contents(run.path)
    with pytest.raises(
        ValueError, match=r"no checkpoint in .* can be read: ckpt-2: .*; ckpt-4: .*; ckpt-6: "
    ) as caught:
        restored(run)
    assert "Put back a copy of one, or train anew in another run directory. The best model" in str(caught.value)
    assert contents(run.path) == before
    flip(run.best / "ckpt-4.index")
    with pytest.raises(ValueError, match=r"another run directory\.$"):
        restored(run)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"\x00garbage\xff")])
def test_the_file_of_tensorflow_is_lost(run, harm):
    harm(run.latest / "checkpoint")
    harm(run.best / "checkpoint")
    training, _ = restored(run)
    assert int(training.progress.step) == 6
    assert restore_model(run, training.parts) == f"{run.best}/ckpt-4"


def test_all_are_lost(run):
    shutil.rmtree(run.latest)
    with pytest.raises(ValueError, match=r"has no checkpoint to go on from, though the run has been validated.* sound"):
        restored(run)
    assert restore_model(run, Training(run.path).parts) == f"{run.best}/ckpt-4"


# The best model is lost


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


def test_another_trainer_went_on(run):
    one, other = restored(run)[0], restored(run)[0]
    other.step().checkpoints.save()
    with pytest.raises(ValueError, match="trained up to step 7 by another trainer, since this one left it at step 6"):
        one.checkpoints.check_is_latest()
    other.checkpoints.check_is_latest()
