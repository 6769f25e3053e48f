"""How a callable learns whether it trains: whatever it is wrapped in, dropout drops in training and in nothing else."""

from __future__ import annotations

import functools
import warnings

import keras
import pytest
import tensorflow as tf

from seq2split.engine import Part

spec = tf.TensorSpec([40, 20])
dropout = keras.layers.Dropout(0.5)


def with_argument(x, training=False):
    return dropout(x, training=training)


def without_argument(x):
    return dropout(x)


def with_another_word(x, is_training):
    return dropout(x, training=is_training)


def positional(x, training=False, /):
    return dropout(x, training=training)


def wrapped(fn):
    """Return a wrapper that passes on whatever it is given."""

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


def narrowed(fn):
    """Return a wrapper that looks as if it passed on `training`."""

    @functools.wraps(fn)
    def wrapper(x):
        return fn(x)

    return wrapper


class Older:
    """A layer as in Keras 2, whose `__call__` takes anything."""

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    def call(self, x, training=None):
        return dropout(x, training=training)


class OlderWithoutTraining(Older):
    def call(self, x):
        return dropout(x)


class Module(tf.Module):
    def __call__(self, x, *, training=False):
        return dropout(x, training=training)


LEARNS = {
    "layer": dropout,
    "method of a layer": dropout.__call__,
    "function": with_argument,
    "another word": with_another_word,
    "tf.function": tf.function(with_argument),
    "module": Module(),
    "layer of Keras 2": Older(),
    "its method": Older().call,
    "wrapper": wrapped(with_argument),
    "wrapper without a signature": lambda *args, **kwargs: dropout(*args, **kwargs),
    "two wrappers": wrapped(wrapped(with_argument)),
    "partial": functools.partial(with_argument),
    "partial of a layer": functools.partial(dropout),
    "partial of a wrapper": functools.partial(wrapped(Older())),
}
NEVER = {
    "function without it": without_argument,
    "positional alone": positional,
    "wrapper of a function without it": wrapped(without_argument),
    "partial that has decided": functools.partial(with_argument, training=False),
}
TRIED = {
    "layer of Keras 2": OlderWithoutTraining(),
    "wrapper": narrowed(with_argument),
    "any keyword": lambda *args, **kwargs: (lambda x: dropout(x))(*args, **kwargs),
}


def drops(fn):
    """Return whether a callable drops in training and in inference; errors for any warning."""
    graph = Part(fn, variables=[], name="encoder").build(spec)
    outputs = graph.forward(tf.ones(spec.shape)).outputs, graph.infer(tf.ones(spec.shape))
    assert graph.traces == 2
    return [bool(tf.reduce_any(each == 0)) for each in outputs]


@pytest.mark.parametrize("name", LEARNS)
def test_it_learns(name):
    with warnings.catch_warnings(action="error"):
        assert drops(LEARNS[name]) == [True, False]


@pytest.mark.parametrize("name", NEVER)
def test_it_is_not_told(name):
    with warnings.catch_warnings(action="error"):
        assert drops(NEVER[name]) == [False, False]


def test_what_is_bound_stays():
    assert drops(functools.partial(with_argument, training=True)) == [True, True]


@pytest.mark.parametrize("name", TRIED)
def test_a_warning_where_it_was_tried_in_vain(name):
    with pytest.warns(UserWarning, match=r"'encoder' seems to take any keyword, .*doesn't take training=") as found:
        assert drops(TRIED[name]) == [False, False]
    assert len(found) == 1


def test_other_errors_stay():
    def fn(x, **kwargs):
        return dropout(x, wrong=1)

    with pytest.raises(TypeError, match="wrong"):
        Part(fn, variables=[]).build(spec)


def test_variables_of_a_call_that_failed_are_not_left_empty():
    """TensorFlow initializes them when a trace has succeeded, so that there's no second try."""

    class Lazy(tf.Module):
        scale = None

        def __call__(self, x, **kwargs):
            self.scale = tf.Variable(2.0) if self.scale is None else self.scale
            return (lambda x: x * self.scale)(x, **kwargs)

    with pytest.raises(TypeError, match="unexpected keyword argument 'training'"):
        Part(Lazy()).build(spec)
