"""Averages of variables: which models are kept, what their mean is, and how a moving average moves."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from seq2split.training.averages import Candidates, MovingAverage, preserved


class Layer(keras.Layer):
    """Two variables, one in a list."""

    def __init__(self):
        super().__init__()
        self.first = self.add_weight(shape=(2,), name="first", initializer="zeros")
        self.inner = [keras.layers.Dense(1)]
        self.inner[0].build((None, 3))


FIGURES = {1: 5.0, 2: 1.0, 3: 4.0, 4: 4.0, 5: 2.0}
"""By step, at which all variables are the step."""


def kept(path, layer, count, choice, figures=FIGURES):
    candidates = Candidates(path, {"part": layer.variables}, count, choice)
    for step, figure in figures.items():
        for variable in layer.variables:
            variable.assign(np.full(variable.shape, step))
        candidates.add(step, figure)
    return candidates


@pytest.mark.parametrize(
    ("count", "choice", "expected"),
    [(2, "last", [4, 5]), (3, "best", [1, 3, 4]), (2, "best", [1, 4]), (9, "best", [1, 2, 3, 4, 5]), (0, "last", [])],
)
def test_the_last_or_the_best_are_kept(tmp_path, count, choice, expected):
    """Of equals the later; nothing else takes room on the disk."""
    candidates = kept(tmp_path / "kept", Layer(), count, choice)
    assert candidates.steps == expected
    assert sorted(int(path.parent.name) for path in tmp_path.glob("kept/*/ckpt-*.index")) == expected
    assert (tmp_path / "kept").exists() == bool(count)


def test_their_mean(tmp_path):
    """Of every variable, whatever they are when it is asked for; also in another process."""
    kept(tmp_path, Layer(), 3, "best")
    layer = Layer()
    candidates = Candidates(tmp_path, {"part": layer.variables}, 3, "best")
    assert len(candidates.variables) == 3
    with preserved(candidates.variables):
        candidates.read_average()
        for variable in layer.variables:
            np.testing.assert_allclose(variable.numpy(), np.full(variable.shape, (1 + 3 + 4) / 3), rtol=1e-7)
    assert not np.any(layer.first.numpy())


def test_rewind(tmp_path):
    """What a lost part of a training left is lost too."""
    layer = Layer()
    candidates = kept(tmp_path, layer, 3, "best")
    assert candidates.rewind(3, {}) == []
    assert candidates.steps == [1, 3]
    candidates = kept(tmp_path, layer, 3, "best", {4: 0.0})
    assert candidates.steps == [1, 3, 4]


@pytest.mark.parametrize(
    "harm", [Path.unlink, lambda path: path.write_text("[3]"), lambda path: flip(path, b"5.0", b"7.0")]
)
def test_a_lost_index(tmp_path, harm):
    """The history knows the figures; what it lacks is told."""
    candidates = kept(tmp_path, Layer(), 3, "best")
    harm(tmp_path / "figures.json")
    (told,) = candidates.rewind(9, {1: 5.0, 3: 4.0})
    assert told == (
        f"{tmp_path / 'figures.json'} is damaged or lost: it is written again from the history, without the models of "
        "steps 4, which it lacks"
    )
    assert candidates.steps == [1, 3]


def test_damaged_models_are_left_out(tmp_path):
    candidates = kept(tmp_path, Layer(), 3, "best")
    flip(tmp_path / "3" / "ckpt-3.index", b"kernel", b"kernal")
    (tmp_path / "4" / "ckpt-4.index").unlink()
    told = candidates.drop_damaged()
    assert [line.partition(" is damaged")[0] for line in told] == [
        f"the model of step {step}, kept for the average," for step in (3, 4)
    ]
    assert candidates.steps == [1]


def flip(path, old, new):
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def test_killed_while_it_saved(tmp_path):
    """A directory that the index doesn't list counts for nothing."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "ckpt-7.index").write_text("half")
    candidates = kept(tmp_path, Layer(), 2, "last")
    assert candidates.steps == [4, 5]
    assert not (tmp_path / "7").exists()


def test_values_come_back_after_an_error():
    layer = Layer()

    def fail():
        layer.first.assign([1.0, 2.0])
        raise RuntimeError("while they are other ones")

    with pytest.raises(RuntimeError, match="other ones"), preserved(layer.variables):
        fail()
    assert not np.any(layer.first.numpy())


def test_moving_average():
    variable = Layer().first
    average = MovingAverage([variable], decay=0.6)
    expected = np.zeros(2)
    for step in range(1, 20):
        variable.assign([step, -step])
        average.update(step)
        decay = min(0.6, step / (step + 9))
        expected = decay * expected + (1 - decay) * np.array([step, -step])
        with average.applied():
            np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)
        np.testing.assert_array_equal(variable.numpy(), [step, -step])


def test_no_moving_average():
    variable = Layer().first
    average = MovingAverage([variable], decay=0.0)
    variable.assign([1.0, 2.0])
    average.update(1)
    assert average.values == []
    with average.applied():
        np.testing.assert_array_equal(variable.numpy(), [1, 2])
