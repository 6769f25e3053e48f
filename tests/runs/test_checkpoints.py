"""Checkpoints of a run: which are kept, which are read, and what is said of those that can't be."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from seq2split.runs.checkpoints import Checkpoints, named, restore_model
from seq2split.runs.directory import RunDirectory
from seq2split.runs.progress import Progress


class Training:
    """Variables of two parts, an optimizer and a place, with their checkpoints in a directory."""

    def __init__(self, path, size=3):
        self.run, self.progress = RunDirectory(path), Progress()
        self.parts = {name: [tf.Variable(tf.zeros([size]), name="kernel")] for name in ("encoder", "decoder")}
        self.optimizer = keras.optimizers.Adam(0.1)
        self.optimizer.build(self.variables)
        self.checkpoints = Checkpoints(self.run, self.progress, self.parts, {"": self.optimizer})

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
    told = second.checkpoints.restore()
    assert second.values() == first.values()
    assert told == f"resuming from {tmp_path}/checkpoints/ckpt-5: 5 steps are done, next is batch 3 of epoch 2"


def test_a_new_run(tmp_path):
    training = Training(tmp_path)
    assert training.checkpoints.restore() == f"starting a new run; checkpoints go to {tmp_path}/checkpoints"
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
    with pytest.raises(ValueError, match=r"ckpt-1 can't be read; it is damaged or of another model"):
        read(Training(tmp_path))


def test_names_tell_variables_of_one_name_apart():
    variables = [tf.Variable(1.0, name="bias"), tf.Variable(2.0, name="bias")]
    assert named({"encoder": variables})["encoder"] == {"0_bias": variables[0], "1_bias": variables[1]}
