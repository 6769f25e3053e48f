"""Checkpoints of a run: which are kept, which are read, and what is said of those that can't be."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from checkpointed import HARMS, Training, flip, make_run, restored, steps_in
from run_states import contents

from seq2split.runs.best_model import restore_model
from seq2split.runs.checkpoints import named
from seq2split.runs.history import History
from seq2split.runs.sessions import add_session


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
    return make_run(tmp_path / "run")


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
    assert f"{run.best} has the model of step 4, which stays until the run finds a better one than" in told
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
    with pytest.raises(ValueError, match=r"has no checkpoint to go on from, though the run has written some.* sound"):
        restored(run)
    assert restore_model(run, Training(run.path).parts) == f"{run.best}/ckpt-4"


@pytest.mark.parametrize(
    ("steps", "sessions", "is_lost"),
    [
        ([1, 2, 3], [{"step": 0, "checkpoint_every": 2}], True),
        ([1, 2], [{"step": 0, "checkpoint_every": 2}], False),
        ([], [{"step": 0, "checkpoint_every": 2}, {"step": 2, "checkpoint_every": 2}], True),
        ([1, 2, 3], [], False),
    ],
)
def test_all_are_lost_of_a_run_that_was_never_validated(tmp_path, steps, sessions, is_lost):
    """What it measured tells of them; a run that was killed before its first checkpoint begins anew."""
    training = Training(tmp_path)
    for step in steps:
        History(training.run.history).add(step=step)
    for session in sessions:
        add_session(training.run.sessions, **session)
    if is_lost:
        with pytest.raises(ValueError, match="has no checkpoint to go on from, though the run has written some"):
            training.checkpoints.restore()
    else:
        assert training.checkpoints.restore()[0].startswith("starting a new run")


def test_another_trainer_went_on(run):
    one, other = restored(run)[0], restored(run)[0]
    other.step().checkpoints.save()
    with pytest.raises(ValueError, match="trained up to step 7 by another trainer, since this one left it at step 6"):
        one.checkpoints.check_is_latest()
    other.checkpoints.check_is_latest()
