"""The updater against plain Keras optimizers, and in which steps it moves which variables."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2split.split.threads import Workers
from seq2split.training import UpdateRule, WarmupSchedule
from seq2split.training.rules import make_rules
from seq2split.training.updater import Updater, deal

CLIP = 1.5
SHAPES = {"encoder": [(3, 4), (4,)], "decoder": [(2, 5), (5, 3), (3,)]}
OTHERS = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap")
OPTIMIZERS = {
    name: getattr(keras.optimizers, name)
    for name in dir(keras.optimizers)
    if isinstance(getattr(keras.optimizers, name), type) and name not in OTHERS
}


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


def sgd(rate=1.0, **steps):
    return UpdateRule(keras.optimizers.SGD(rate), **steps)


def make_updater(variables, optimizer, groups=None, *, clip_norm=0.0, threads=1):
    rules = make_rules(optimizer, groups, list(variables))
    return Updater(variables, rules, clip_norm=clip_norm, workers=Workers(threads))


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


def run_updater(optimizer, clip_norm, steps=6, threads=1):
    variables = make_variables()
    updater = make_updater(variables, optimizer, clip_norm=clip_norm, threads=threads)
    norms = [float(updater(make_gradients(step), step + 1)) for step in range(steps)]
    return variables, updater, norms


@pytest.mark.parametrize(("weight_decay", "clip_norm"), [(None, CLIP), (0.1, 0.0)])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("threads", [1, 9])
def test_updater_equals_keras(threads, name, weight_decay, clip_norm):
    """Those of Keras that do more than `update_step` among them."""
    rate = 5.0 if name == "Adadelta" else 0.05
    options = {} if weight_decay is None else {"weight_decay": weight_decay}
    made = [OPTIMIZERS[name](rate, **options) for _ in range(2)]
    found, updater, norms = run_updater(made[0], clip_norm, threads=threads)
    assert_equal(numbers(found), numbers(run_by_hand({"encoder": made[1], "decoder": made[1]}, clip_norm)))
    assert_moved(found)
    assert list(updater.optimizers) == ["shared"]
    assert int(updater.optimizers["shared"].iterations) == 6
    by_hand = [math.sqrt(sum(float(tf.reduce_sum(g**2)) for g in flat(make_gradients(step)))) for step in range(6)]
    np.testing.assert_allclose(norms, by_hand, rtol=1e-6)
    assert min(norms) < CLIP < max(norms), "some of the gradients should be clipped and some not"


def test_clips_all_parts_together():
    """One part's large gradient scales down the other's, though that one alone is below the norm."""
    variables = make_variables()
    before = numbers(variables)
    updater = make_updater(variables, sgd(), clip_norm=1.0)
    gradients = {"encoder": make_gradients(0, 10.0)["encoder"], "decoder": make_gradients(0, 0.01)["decoder"]}
    norm = float(updater(gradients, 1))
    assert norm > 10
    moved = [old - new for old, new in zip(before, numbers(variables), strict=True)]
    assert_equal(moved, [gradient.numpy() / norm for gradient in flat(gradients)])
    np.testing.assert_allclose(math.sqrt(sum((each**2).sum() for each in moved)), 1.0, rtol=1e-5)


@pytest.mark.parametrize("clip_norm", [0.0, CLIP])
def test_own_optimizers(clip_norm):
    own = {"encoder": keras.optimizers.Adam(0.01), "decoder": sgd(0.2)}
    found, updater, _ = run_updater(own, clip_norm)
    by_hand = {"encoder": keras.optimizers.Adam(0.01), "decoder": keras.optimizers.SGD(0.2)}
    assert_equal(numbers(found), numbers(run_by_hand(by_hand, clip_norm)))
    assert_moved(found)
    assert list(updater.optimizers) == ["encoder", "decoder"]
    assert updater.learning_rates == pytest.approx({"encoder": 0.01, "decoder": 0.2})


def test_one_part_has_its_own():
    variables = make_variables()
    updater = make_updater(variables, keras.optimizers.Adagrad(0.05), {"decoder": sgd(0.2)}, clip_norm=CLIP)
    for step in range(6):
        updater(make_gradients(step), step + 1)
    by_hand = {"encoder": keras.optimizers.Adagrad(0.05), "decoder": keras.optimizers.SGD(0.2)}
    assert_equal(numbers(variables), numbers(run_by_hand(by_hand, CLIP)))
    assert set(updater.optimizers) == {"shared", "decoder"}


def test_schedule_moves_with_the_steps():
    found, updater, _ = run_updater(keras.optimizers.SGD(WarmupSchedule(0.05, 2, "linear", 6)), 0.0)
    expected = numbers(make_variables())
    for step in range(6):
        rate = 0.05 * min(1, (step + 1) / 2) * fall_to(6, step)
        expected = [old - rate * g.numpy() for old, g in zip(expected, flat(make_gradients(step)), strict=True)]
    assert_equal(numbers(found), expected)
    assert updater.learning_rates == pytest.approx({"shared": 0.0})


def fall_to(total, step):
    return 1 - max(0, step - 2) / (total - 2)


@pytest.mark.parametrize("clip_norm", [0.0, CLIP])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad", "RMSprop"])
def test_sparse_gradients_equal_dense(name, clip_norm):
    """Of an embedding; rows that occur twice add up, in the norm too."""
    rows = tf.IndexedSlices(tf.constant([[1.0, 2.0], [-3.0, 0.5], [0.5, 0.25]]), tf.constant([4, 1, 4]), [6, 2])
    found, norms = [], []
    for gradient in (rows, tf.convert_to_tensor(rows)):
        variable = keras.Variable(np.ones([6, 2], np.float32))
        updater = make_updater({"encoder": [variable]}, OPTIMIZERS[name](0.05), clip_norm=clip_norm)
        norms += [float(updater({"encoder": [gradient]}, 1)) for _ in range(2)]
        found.append(variable.numpy())
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(norms, np.linalg.norm([[1.5, 2.25], [-3.0, 0.5]]), rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 9])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("clip_norm", [0.0, CLIP])
@pytest.mark.parametrize("name", ["Adam", "SGD", "Adadelta"])
def test_what_is_not_finite_moves_nothing(name, clip_norm, bad, threads):
    """Neither variables nor optimizers, those of Keras's `apply` among them. A norm beyond float32 isn't finite."""
    variables = make_variables()
    updater = make_updater(variables, OPTIMIZERS[name](0.05), clip_norm=clip_norm, threads=threads)
    updater(make_gradients(0), 1)
    state = [*flat(variables), *updater.optimizers["shared"].variables]
    before = [variable.numpy() for variable in state]
    gradients = make_gradients(1)
    gradients["decoder"][1] *= bad
    assert not math.isfinite(float(updater(gradients, 2)))
    for variable, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    updater(make_gradients(2), 3)
    assert int(updater.optimizers["shared"].iterations) == 2


def test_none_leaves_a_variable_alone():
    """As without it in the model, weight decay included; later gradients find fresh moments."""
    variables = make_variables()
    before = numbers(variables)
    updater = make_updater(variables, keras.optimizers.Adam(0.05, weight_decay=0.5), clip_norm=CLIP)
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
    updater = make_updater(variables, keras.optimizers.Adam(0.05), {"encoder": sgd(0.05)}, clip_norm=1.0)
    updater({"encoder": [None, None], "decoder": make_gradients(0)["decoder"]}, 1)
    changed = [not np.array_equal(old, new) for old, new in zip(before, numbers(variables), strict=True)]
    assert changed == [False, False, True, True, True]


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norm_shows_what_is_not_finite(bad, clip_norm):
    updater = make_updater(make_variables(), keras.optimizers.Adam(0.05), clip_norm=clip_norm)
    gradients = make_gradients(0)
    gradients["decoder"][0] *= bad
    assert not math.isfinite(float(updater(gradients, 1)))


def test_traces_once():
    updater = make_updater(make_variables(), keras.optimizers.Adam(0.05), clip_norm=1.0)
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


def moves(optimizer, groups, steps):
    """Return by how much each variable moved in each step, with gradients of one: `{path: [move, ...]}`."""
    variables = make_layers_of_variables()
    updater = make_updater(variables, optimizer, groups)
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
    groups = {"encoder/.*kernel": sgd(3.0), ".*kernel": sgd(4.0), "encoder": sgd(2.0)}
    found = moves(sgd(), groups, 1)
    assert found == {"encoder/embeddings": [2.0], "encoder/lstm_kernel": [3.0], "decoder/kernel": [4.0]}
    with pytest.raises(
        ValueError, match=r"'embeddings', which matches the whole path of no.*paths are encoder/embeddings"
    ):
        moves(sgd(), groups | {"embeddings": sgd()}, 1)
    with pytest.raises(ValueError, match=r"'decoder/kernel', which .* none that a group before it"):
        moves(sgd(), groups | {"decoder/kernel": sgd()}, 1)


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
    found = moves(sgd(), {"encoder": sgd(**steps)}, 6)
    assert found["encoder/embeddings"] == found["encoder/lstm_kernel"] == expected
    assert found["decoder/kernel"] == [1] * 6


def test_frozen_parts_are_those_of_which_nothing_moves():
    """A part of which one variable moves is not frozen."""
    for groups, expected in (
        ({".*/embeddings": sgd(frozen=True)}, [[], []]),
        ({"encoder": sgd(every=2)}, [[], ["encoder"]]),
        ({"decoder": None}, [["decoder"], ["decoder"]]),
    ):
        updater = make_updater(make_layers_of_variables(), sgd(), groups)
        assert [updater.frozen(step) for step in (1, 2)] == expected


def test_a_part_without_an_optimizer_stays():
    """Whether it is left out, or has none by name."""
    for optimizer, groups in (({"encoder": sgd()}, None), (sgd(), {"decoder": None})):
        found = moves(optimizer, groups, 2)
        assert found == {"encoder/embeddings": [1, 1], "encoder/lstm_kernel": [1, 1], "decoder/kernel": [0, 0]}


def test_schedule_counts_the_updates_of_its_optimizer():
    """Of ten steps an optimizer that updates in every third makes four, over which its rate falls to zero."""
    falling = UpdateRule(keras.optimizers.SGD(WarmupSchedule(1.0, 0, "linear", 4)), every=3)
    found = moves(sgd(), {"decoder": falling}, 10)["decoder/kernel"]
    assert found == [1.0, 0, 0, 0.75, 0, 0, 0.5, 0, 0, 0.25]


def test_what_is_not_applied_counts_for_no_norm():
    """The norm that clips is that of the gradients that move something."""
    variables = make_layers_of_variables()
    updater = make_updater(variables, sgd(), {"encoder": sgd(frozen=True)}, clip_norm=1.0)
    assert float(updater(ones(variables), 1)) == pytest.approx(math.sqrt(3))
    np.testing.assert_allclose(variables["decoder"][0], 1 - 1 / math.sqrt(3), rtol=1e-6)
    everything = make_updater(variables, sgd(frozen=True), clip_norm=1.0)
    assert float(everything(ones(variables), 1)) == 0


def test_a_variable_of_two_parts_moves_once_by_the_sum():
    """It belongs to the first part; what any part gives counts, sparse or dense."""
    shared, own = keras.Variable(np.ones([2, 1], np.float32)), keras.Variable(np.ones(1, np.float32))
    updater = make_updater({"encoder": [shared], "decoder": [own, shared]}, sgd(), {"decoder": sgd(100.0)})
    rows = tf.IndexedSlices(tf.constant([[0.5]]), tf.constant([1]), [2, 1])
    norm = updater({"encoder": [rows], "decoder": [None, tf.constant([[0.25], [0.125]])]}, 1)
    np.testing.assert_array_equal(shared, [[0.75], [0.375]])
    assert float(norm) == pytest.approx(math.hypot(0.25, 0.625))
    updater({"encoder": [rows], "decoder": [None, None]}, 2)
    np.testing.assert_array_equal(shared, [[0.75], [-0.125]])
    np.testing.assert_array_equal(own, [1.0])


# Optimizers with options of their own


def bounded(values):
    return tf.clip_by_value(values, -0.4, 0.4)


OPTIONS = {  # Keras takes the decay in single precision, in which 0.25 is exact
    "weight_decay": {"weight_decay": 0.25},
    "clipnorm": {"clipnorm": 0.3},
    "clipvalue": {"clipvalue": 0.05},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "use_ema": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 3},
    "amsgrad": {"amsgrad": True},
    "all": {
        "weight_decay": 0.25,
        "global_clipnorm": 0.5,
        "use_ema": True,
        "ema_overwrite_frequency": 3,
        "gradient_accumulation_steps": 2,
    },
}


@pytest.mark.parametrize("kind", ["keras", "tensorflow"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_keras(options, kind):
    """Step by step as Keras does it, of plain TensorFlow variables too; a variable may be kept from decaying."""
    assert_equals_keras_step_by_step(lambda: keras.optimizers.Adam(0.05, **options), kind=kind)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}], ids=str)
def test_constraints(options):
    assert_equals_keras_step_by_step(lambda: keras.optimizers.SGD(0.5, **options), constraint=bounded)


def assert_equals_keras_step_by_step(make_optimizer, kind="keras", constraint=None, steps=7):
    def make():
        optimizer, variables = make_optimizer(), {}
        for part, each in make_variables().items():
            values = [one.numpy().astype(np.float64) for one in each]
            if kind == "tensorflow":
                variables[part] = [tf.Variable(value, name=f"{part}_{at}") for at, value in enumerate(values)]
            else:
                variables[part] = [
                    keras.Variable(value, dtype="float64", name=f"{part}_{at}") for at, value in enumerate(values)
                ]
                for variable in variables[part]:
                    variable.constraint = constraint
        if optimizer.weight_decay:
            optimizer.exclude_from_weight_decay(var_names=["encoder_1"])
        return optimizer, variables

    (optimizer, found), (reference, expected) = make(), make()
    updater = make_updater(found, optimizer, threads=2)
    reference.build(flat(expected))
    for step in range(1, steps + 1):
        gradients = {part: [tf.cast(one, tf.float64) for one in each] for part, each in make_gradients(step).items()}
        updater(gradients, step)
        reference.apply(flat(gradients), flat(expected))
        for one, other in zip(numbers(found), numbers(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
        assert int(optimizer.iterations) == int(reference.iterations)
    assert_moved(found)
    assert len(optimizer.variables) == len(reference.variables)
    for one, other in zip(optimizer.variables, reference.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_an_optimizer_of_ones_own():
    """Whatever a subclass does to all its variables at once, it does here too."""

    class Halved(keras.optimizers.SGD):
        def apply(self, grads, trainable_variables=None):
            super().apply([0.5 * gradient for gradient in grads], trainable_variables)

    variables = make_layers_of_variables()
    make_updater(variables, Halved(1.0))(ones(variables), 1)
    for each in flat(variables):
        np.testing.assert_array_equal(each, np.full(3, 0.5))


def test_an_optimizer_of_other_variables():
    """One of the same goes on."""
    optimizer, variables = keras.optimizers.Adam(0.05), make_variables()
    for _ in range(2):
        make_updater(variables, optimizer)
    with pytest.raises(ValueError, match=r"'adam.*' was built for 5 other variables before.*an optimizer of its own"):
        make_updater(make_variables(), optimizer)
    with pytest.raises(ValueError, match="built for 5 other variables"):
        make_updater(variables, optimizer, {"encoder": sgd()})


def test_rules_that_share_an_optimizer():
    """They are one, which counts its steps once; in different steps it could not."""
    shared = keras.optimizers.SGD(1.0)
    variables = make_layers_of_variables()
    updater = make_updater(variables, {"encoder": shared, "decoder": shared})
    updater(ones(variables), 1)
    assert list(updater.optimizers) == ["encoder"]
    assert int(shared.iterations) == 1
    assert all(not np.any(each) for each in flat(variables))
    with pytest.raises(ValueError, match="rules 'encoder' and 'decoder' share one optimizer, but move"):
        make_updater(variables, {"encoder": shared, "decoder": UpdateRule(shared, every=2)})


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
    assert deal(sizes, count) == expected
