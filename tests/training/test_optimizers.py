"""Schedules against their formulas, and the updater against a plain Keras optimizer."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest
import tensorflow as tf
from seq2split.training.optimizers import OPTIMIZERS, Updater, WarmupSchedule, _deal

from seq2split.config import OptimizerConfig

PEAK, TOTAL = 0.3, 200
CLIP = 1.5
SHAPES = {"encoder": [(3, 4), (4,)], "decoder": [(2, 5), (5, 3), (3,)]}
STEPS = (0, 1, 8, 9, 10, 11, 50, 105, 199, 200, 500)


def fall(course, step, warmup):
    """The course of a schedule as one would write it by hand."""
    done = min(1.0, max(0.0, (step - warmup) / (TOTAL - warmup)))
    after = max(step, warmup, 1)
    return {
        "constant": 1.0,
        "inverse_sqrt": math.sqrt(max(warmup, 1)) / math.sqrt(after),
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
    }[course]


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("course", ["constant", "inverse_sqrt", "cosine", "linear"])
def test_schedule(course, warmup):
    schedule = WarmupSchedule(PEAK, warmup, course, TOTAL)
    found = [float(schedule(step)) for step in STEPS]
    expected = [PEAK * min(1.0, (step + 1) / max(1, warmup)) * fall(course, step, warmup) for step in STEPS]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
    assert max(found) <= PEAK * (1 + 1e-6)
    assert found[0] > 0


@pytest.mark.parametrize("course", ["constant", "inverse_sqrt", "cosine", "linear"])
def test_schedule_when_warmup_outlasts_the_training(course):
    schedule = WarmupSchedule(PEAK, 10, course, 5)
    rates = [float(schedule(step)) for step in range(5)]
    np.testing.assert_allclose(rates, [PEAK * (step + 1) / 10 for step in range(5)], rtol=1e-6)


def test_schedule_from_config():
    schedule = WarmupSchedule(PEAK, 3, "cosine", TOTAL)
    again = WarmupSchedule.from_config(schedule.get_config())
    assert [float(again(step)) for step in STEPS] == [float(schedule(step)) for step in STEPS]


# The updater


def make_variables(seed=0):
    random = np.random.default_rng(seed)
    return {
        part: [keras.Variable(random.normal(size=shape), dtype="float32", name=f"{part}_{i}") for i, shape in places]
        for part, places in ((part, list(enumerate(shapes))) for part, shapes in SHAPES.items())
    }


def make_gradients(step, scale=None):
    """Random gradients, on average as large as the norm that they are clipped to below."""
    random = np.random.default_rng(100 + step)
    scale = random.uniform(0.05, 0.5) if scale is None else scale
    return {
        part: [tf.constant(random.normal(size=shape) * scale, tf.float32) for shape in shapes]
        for part, shapes in SHAPES.items()
    }


def flat(by_part):
    return [each for part in SHAPES for each in by_part[part]]


def numbers(variables):
    return [variable.numpy() for variable in flat(variables)]


def assert_equal(found, expected):
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=3e-6)


def assert_moved(variables):
    for now, before in zip(numbers(variables), numbers(make_variables()), strict=True):
        assert np.abs(now - before).max() > 1e-3


def config(**options):
    return OptimizerConfig(**{"learning_rate": 0.05, "schedule": "constant", "warmup_steps": 0} | options)


def run_by_hand(optimizers, clip_norm, steps=6):
    """What plain Keras optimizers make of the same gradients, clipped together.

    Args:
        optimizers: For each part its own, or the same object for both.
    """
    variables = make_variables()
    for optimizer in {id(one): one for one in optimizers.values()}.values():
        optimizer.build([each for part in SHAPES if optimizers[part] is optimizer for each in variables[part]])
    for step in range(steps):
        gradients = flat(make_gradients(step))
        if clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
        left = dict(zip(map(id, flat(variables)), gradients, strict=True))
        for optimizer in {id(one): one for one in optimizers.values()}.values():
            own = [each for part in SHAPES if optimizers[part] is optimizer for each in variables[part]]
            optimizer.apply_gradients([(left[id(variable)], variable) for variable in own])
    return variables


def run_updater(settings, clip_norm, steps=6, threads=1):
    variables = make_variables()
    updater = Updater(variables, settings, clip_norm=clip_norm, total_steps=steps, threads=threads)
    norms = [float(updater(make_gradients(step), step + 1)) for step in range(steps)]
    return variables, updater, norms


@pytest.mark.parametrize(("weight_decay", "clip_norm"), [(0.0, CLIP), (0.1, 0.0)])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("threads", [1, 2, 9])
def test_updater_equals_keras(threads, name, weight_decay, clip_norm):
    found, updater, norms = run_updater(config(name=name, weight_decay=weight_decay), clip_norm, threads=threads)
    plain = OPTIMIZERS[name](0.05, weight_decay=weight_decay if weight_decay or name == "adamw" else None)
    expected = run_by_hand({"encoder": plain, "decoder": plain}, clip_norm)
    assert_equal(numbers(found), numbers(expected))
    assert_moved(found)
    assert list(updater.optimizers) == ["shared"]
    by_hand = [math.sqrt(sum(float(tf.reduce_sum(g**2)) for g in flat(make_gradients(step)))) for step in range(6)]
    np.testing.assert_allclose(norms, by_hand, rtol=1e-6)
    assert min(norms) < CLIP < max(norms), "some of the gradients should be clipped and some not"


def test_optimizer_names_are_those_of_the_configuration():
    assert set(get_args(get_type_hints(OptimizerConfig)["name"])) == set(OPTIMIZERS)


def test_clips_all_parts_together():
    """One part's large gradient scales down the other's, though that one alone is below the norm."""
    variables = make_variables()
    before = numbers(variables)
    updater = Updater(variables, config(name="sgd", learning_rate=1.0), clip_norm=1.0, total_steps=1)
    gradients = {"encoder": make_gradients(0, 10.0)["encoder"], "decoder": make_gradients(0, 0.01)["decoder"]}
    norm = float(updater(gradients, 1))
    assert norm > 10
    moved = [old - new for old, new in zip(before, numbers(variables), strict=True)]
    assert_equal(moved, [gradient.numpy() / norm for gradient in flat(gradients)])
    np.testing.assert_allclose(math.sqrt(sum((each**2).sum() for each in moved)), 1.0, rtol=1e-5)


@pytest.mark.parametrize("clip_norm", [0.0, CLIP])
def test_own_optimizers(clip_norm):
    decoder = config(name="sgd", learning_rate=0.2)
    encoder = config(name="adam", learning_rate=0.01)
    found, updater, _ = run_updater(config(encoder=encoder, decoder=decoder), clip_norm)
    by_hand = {"encoder": keras.optimizers.Adam(0.01), "decoder": keras.optimizers.SGD(0.2)}
    assert_equal(numbers(found), numbers(run_by_hand(by_hand, clip_norm)))
    assert_moved(found)
    assert list(updater.optimizers) == ["encoder", "decoder"]
    assert updater.learning_rates == pytest.approx({"encoder": 0.01, "decoder": 0.2})


def test_one_part_has_its_own():
    found, updater, _ = run_updater(config(name="adagrad", decoder=config(name="sgd", learning_rate=0.2)), CLIP)
    by_hand = {"encoder": keras.optimizers.Adagrad(0.05), "decoder": keras.optimizers.SGD(0.2)}
    assert_equal(numbers(found), numbers(run_by_hand(by_hand, CLIP)))
    assert set(updater.optimizers) == {"shared", "decoder"}


def test_schedule_moves_with_the_steps():
    settings = config(name="sgd", schedule="linear", warmup_steps=2)
    found, updater, _ = run_updater(settings, 0.0)
    expected = numbers(make_variables())
    for step in range(6):
        rate = 0.05 * min(1, (step + 1) / 2) * fall_to(6, step)
        expected = [old - rate * g.numpy() for old, g in zip(expected, flat(make_gradients(step)), strict=True)]
    assert_equal(numbers(found), expected)
    assert updater.learning_rates == pytest.approx({"shared": 0.0})


def fall_to(total, step):
    return 1 - max(0, step - 2) / (total - 2)


@pytest.mark.parametrize("clip_norm", [0.0, CLIP])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_sparse_gradients_equal_dense(name, clip_norm):
    """Of an embedding; rows that occur twice add up, in the norm too."""
    rows = tf.IndexedSlices(tf.constant([[1.0, 2.0], [-3.0, 0.5], [0.5, 0.25]]), tf.constant([4, 1, 4]), [6, 2])
    found, norms = [], []
    for gradient in (rows, tf.convert_to_tensor(rows)):
        variable = keras.Variable(np.ones([6, 2], np.float32))
        updater = Updater({"encoder": [variable]}, config(name=name), clip_norm=clip_norm, total_steps=5)
        norms += [float(updater({"encoder": [gradient]}, 1)) for _ in range(2)]
        found.append(variable.numpy())
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(norms, np.linalg.norm([[1.5, 2.25], [-3.0, 0.5]]), rtol=1e-6)


def test_none_leaves_a_variable_alone():
    """As without it in the model, weight decay included; later gradients find fresh moments."""
    variables = make_variables()
    before = numbers(variables)
    updater = Updater(variables, config(weight_decay=0.5), clip_norm=CLIP, total_steps=5)
    gradients = make_gradients(0, 1.0)
    gradients["decoder"][1] = None
    norm = float(updater(gradients, 1))
    kept = [gradient.numpy() for gradient in flat(gradients) if gradient is not None]
    assert norm == pytest.approx(math.sqrt(sum((each**2).sum() for each in kept)), rel=1e-6)
    changed = [not np.array_equal(old, new) for old, new in zip(before, numbers(variables), strict=True)]
    assert changed == [True, True, True, False, True]
    updater(make_gradients(1), 2)
    assert not np.array_equal(numbers(variables)[3], before[3])


def test_a_part_without_gradients():
    variables = make_variables()
    before = numbers(variables)
    settings = config(encoder=config(name="sgd"))
    updater = Updater(variables, settings, clip_norm=1.0, total_steps=5)
    updater({"encoder": [None, None], "decoder": make_gradients(0)["decoder"]}, 1)
    changed = [not np.array_equal(old, new) for old, new in zip(before, numbers(variables), strict=True)]
    assert changed == [False, False, True, True, True]


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norm_shows_what_is_not_finite(bad, clip_norm):
    updater = Updater(make_variables(), config(), clip_norm=clip_norm, total_steps=5)
    gradients = make_gradients(0)
    gradients["decoder"][0] *= bad
    assert not math.isfinite(float(updater(gradients, 1)))


def test_traces_once():
    updater = Updater(make_variables(), config(), clip_norm=1.0, total_steps=5)
    for step in range(3):
        updater(make_gradients(step), step + 1)
    assert [move.experimental_get_tracing_count() for _, move in updater._moves] == [1]


# Groups of variables, and the steps that update them


def make_layers_of_variables():
    """Variables with the paths of layers: `encoder/embeddings`, `encoder/lstm_kernel`, `decoder/kernel`."""
    variables = {}
    for part, names in {"encoder": ["embeddings", "lstm_kernel"], "decoder": ["kernel"]}.items():
        with keras.name_scope(part):
            variables[part] = [keras.Variable(np.ones(3, np.float32), name=name) for name in names]
    return variables


def ones(variables):
    return {part: [tf.ones(3) for _ in each] for part, each in variables.items()}


def moves(settings, steps):
    """By how much each variable moved in each step, with gradients of one: `{path: [move, ...]}`."""
    variables = make_layers_of_variables()
    updater = Updater(variables, settings, clip_norm=0.0, total_steps=steps)
    found = {variable.path: [] for each in variables.values() for variable in each}
    for step in range(1, steps + 1):
        before = {variable.path: variable.numpy() for each in variables.values() for variable in each}
        updater(ones(variables), step)
        for each in variables.values():
            for variable in each:
                found[variable.path].append(round(float((before[variable.path] - variable.numpy())[0]), 5))
    return found


def test_groups_by_the_paths_of_variables():
    """The first group that matches the whole path, else the part's own, else the shared one."""
    sgd = config(name="sgd", learning_rate=1.0)
    groups = {
        "encoder/.*kernel": config(name="sgd", learning_rate=3.0),
        ".*kernel": config(name="sgd", learning_rate=4.0),
        "embeddings": sgd,
    }
    with pytest.raises(
        ValueError, match=r"'embeddings', which matches the whole path of no.*paths are encoder/embeddings"
    ):
        moves(dataclasses.replace(sgd, groups=groups), 1)
    del groups["embeddings"]
    own = dataclasses.replace(sgd, encoder=config(name="sgd", learning_rate=2.0), groups=groups)
    assert moves(own, 1) == {"encoder/embeddings": [2.0], "encoder/lstm_kernel": [3.0], "decoder/kernel": [4.0]}
    groups["decoder/kernel"] = sgd
    with pytest.raises(ValueError, match=r"'decoder/kernel', which .* none that a group before it"):
        moves(dataclasses.replace(sgd, groups=groups), 1)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"frozen": True}, [0, 0, 0, 0, 0, 0]),
        ({"every": 2}, [1, 0, 1, 0, 1, 0]),
        ({"first_step": 3}, [0, 0, 1, 1, 1, 1]),
        ({"last_step": 2}, [1, 1, 0, 0, 0, 0]),
        ({"first_step": 2, "last_step": 5, "every": 3}, [0, 1, 0, 0, 1, 0]),
    ],
)
def test_steps_that_update(steps, expected):
    sgd = config(name="sgd", learning_rate=1.0)
    found = moves(dataclasses.replace(sgd, encoder=dataclasses.replace(sgd, **steps)), 6)
    assert found["encoder/embeddings"] == found["encoder/lstm_kernel"] == expected
    assert found["decoder/kernel"] == [1] * 6


def test_frozen_parts_are_those_of_which_nothing_moves():
    """A part of which one variable moves is not frozen."""
    sgd = config(name="sgd", learning_rate=1.0)
    some = dataclasses.replace(sgd, groups={".*/embeddings": dataclasses.replace(sgd, frozen=True)})
    part = dataclasses.replace(sgd, encoder=dataclasses.replace(sgd, every=2))
    for settings, expected in ((some, [[], []]), (part, [[], ["encoder"]])):
        updater = Updater(make_layers_of_variables(), settings, clip_norm=0.0, total_steps=2)
        assert [updater.frozen(step) for step in (1, 2)] == expected


def test_schedule_counts_the_updates_of_its_optimizer():
    """Of ten steps an optimizer that updates in every third makes four, over which its rate falls to zero."""
    sgd = config(name="sgd", learning_rate=1.0)
    falling = dataclasses.replace(sgd, schedule="linear", every=3)
    found = moves(dataclasses.replace(sgd, decoder=falling), 10)["decoder/kernel"]
    assert found == [1.0, 0, 0, 0.75, 0, 0, 0.5, 0, 0, 0.25]


def test_what_is_not_applied_counts_for_no_norm():
    """The norm that clips is that of the gradients that move something."""
    sgd = config(name="sgd", learning_rate=1.0)
    variables = make_layers_of_variables()
    settings = dataclasses.replace(sgd, encoder=dataclasses.replace(sgd, frozen=True))
    updater = Updater(variables, settings, clip_norm=1.0, total_steps=1)
    assert float(updater(ones(variables), 1)) == pytest.approx(math.sqrt(3))
    np.testing.assert_allclose(variables["decoder"][0], 1 - 1 / math.sqrt(3), rtol=1e-6)
    everything = Updater(variables, dataclasses.replace(sgd, frozen=True), clip_norm=1.0, total_steps=1)
    assert float(everything(ones(variables), 1)) == 0


def test_a_part_may_have_the_name_of_a_key():
    variable = keras.Variable(np.ones(3, np.float32))
    updater = Updater({"name": [variable]}, config(name="sgd", learning_rate=1.0), clip_norm=0.0, total_steps=1)
    updater({"name": [tf.ones(3)]}, 1)
    assert list(updater.optimizers) == ["shared"]
    np.testing.assert_array_equal(variable, np.zeros(3))


def test_a_variable_of_two_parts_moves_once_by_the_sum():
    """It belongs to the first part; what any part gives counts, sparse or dense."""
    shared, own = keras.Variable(np.ones([2, 1], np.float32)), keras.Variable(np.ones(1, np.float32))
    sgd = config(name="sgd", learning_rate=1.0)
    settings = dataclasses.replace(sgd, decoder=config(name="sgd", learning_rate=100.0))
    updater = Updater({"encoder": [shared], "decoder": [own, shared]}, settings, clip_norm=0.0, total_steps=9)
    rows = tf.IndexedSlices(tf.constant([[0.5]]), tf.constant([1]), [2, 1])
    norm = updater({"encoder": [rows], "decoder": [None, tf.constant([[0.25], [0.125]])]}, 1)
    np.testing.assert_array_equal(shared, [[0.75], [0.375]])
    assert float(norm) == pytest.approx(math.hypot(0.25, 0.625))
    updater({"encoder": [rows], "decoder": [None, None]}, 2)
    np.testing.assert_array_equal(shared, [[0.75], [-0.125]])
    np.testing.assert_array_equal(own, [1.0])


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([5, 1, 3, 2], 2, [[0, 1], [2, 3]]),
        ([4, 4], 3, [[0], [1]]),
        ([1, 2], 1, [[1, 0]]),
        ([], 2, []),
    ],
)
def test_deals_variables_out_evenly(sizes, count, expected):
    assert _deal(sizes, count) == expected
