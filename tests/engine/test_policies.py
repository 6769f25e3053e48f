"""Save policies: whatever is kept, the gradients are the joint graph's, and what is kept is what was asked for."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import SUBJECTS, floats, variable
from engine_trials import Trial, values

from seq2split.engine import Part, policies
from seq2split.engine.minimum_cut import Tradeoff
from seq2split.engine.policies import budget, drop

POLICIES = {
    "all": policies.everything,
    "inputs": policies.inputs,
    "products": policies.products,
    "drop": drop(lambda candidate: candidate.dtype.is_floating),
    "budget": budget(64, unknown=4),
}
OTHERS = [name for name in POLICIES if name != "inputs"]
CHOSEN = [(name, "inputs") for name in SUBJECTS]  # which computes everything again
CHOSEN += [(name, OTHERS[place % len(OTHERS)]) for place, name in enumerate(SUBJECTS)]


@pytest.mark.parametrize(("name", "policy"), CHOSEN)
def test_gradients_equal_those_of_the_joint_graph(name, policy):
    dtype = SUBJECTS[name].dtypes[-1]
    try:
        subject = Trial(name, dtype, POLICIES[policy])
    except ValueError as error:
        if policy != "budget" or "at least" not in str(error):
            raise
        pytest.skip(f"more than the budget must be kept: {error}")
    for call, weights in enumerate(subject.weights):
        outputs, residuals = subject.forward(call)
        assert values([subject.counter]) == [1]
        results = (outputs, *subject.graph.backward(residuals, weights))
        expected, states = subject.joint_results[call]
        subject.check(results, expected)
        subject.reset()
        outputs, residuals = subject.forward(call)
        subject.graph.backward(residuals, weights)
        np.testing.assert_equal(values(subject.states), states)  # side effects happened once


def small_part(policy="needed", dropout=0.0):
    layers = [keras.layers.Dense(8, activation="gelu"), keras.layers.Dropout(dropout, seed=1)]
    layers += [keras.layers.LayerNormalization(), keras.layers.Dense(4, activation="tanh")]
    return Part(keras.Sequential(layers), save=policy)


def built(policy, rows=6, dropout=0.0):
    return small_part(policy, dropout).build(tf.TensorSpec([rows, 5], tf.float32))


@pytest.mark.parametrize("policy", ["needed", *POLICIES])
def test_predicted_bytes_are_the_measured(policy):
    graph = built(POLICIES.get(policy, policy) if policy != "budget" else budget(500), dropout=0.5)
    _, residuals = graph.forward(floats("float32", 6, 5))
    assert graph.residual_bytes == residuals.nbytes
    held = sum(spec.nbytes for spec in graph.residual_specs if spec.kind in ("computed", "random"))
    assert held == residuals.nbytes


def test_policies_are_ordered_by_what_they_keep():
    kept = [built(name).residual_bytes for name in ("all", "needed", "products", "inputs")]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 4
    assert kept[-1] == 0


def test_random_numbers_are_kept_and_never_drawn_again():
    graph = built("inputs", dropout=0.5)
    kinds = {spec.kind for spec in graph.residual_specs if spec.kind in ("computed", "random")}
    assert kinds == {"random"}
    x = floats("float32", 6, 5)
    outputs, residuals = graph.forward(x)
    graph.forward(x)  # draws other masks in between
    (inputs_ct,), _ = graph.backward(residuals, tf.ones_like(outputs))
    again = built("needed", dropout=0.5)
    for ours, theirs in zip(again.variables, graph.variables, strict=True):
        ours.assign(theirs)
    expected, kept = again.forward(x)  # the first draw of the same seed
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_allclose(inputs_ct, again.backward(kept, tf.ones_like(outputs))[0][0], rtol=1e-5, atol=1e-6)


def test_what_a_predicate_picks_is_kept():
    specs = built("products").residual_specs
    assert {spec.name.split("/")[-1].split(":")[0] for spec in specs if spec.kind == "computed"} == {"MatMul"}


def test_what_a_pattern_drops_is_computed_again():
    def computed(policy):
        specs = [spec for spec in built(policy).residual_specs if spec.kind == "computed"]
        return {"/".join(spec.name.split("/")[2:]): spec.nbytes for spec in specs}

    needed, dropped = computed("needed"), computed(drop("*/Gelu/*"))
    gone = {name for name in needed if name.startswith("Gelu/")}
    assert gone
    assert {name for name in dropped if name.startswith("Gelu/")} == set()
    assert {"add_2:0", "mul:0", "Rsqrt:0"} <= needed.keys() & dropped.keys()
    assert sum(dropped.values()) < sum(needed.values())


def test_a_variable_that_moved_between_forward_and_backward_is_read_as_it_was():
    w = variable("float32", 4, 3)
    graph = Part(lambda x: tf.tanh(tf.tanh(x @ w) * 2.0), variables=[w], save="inputs").build(
        tf.TensorSpec([2, 4], tf.float32)
    )
    x, outputs_ct = floats("float32", 2, 4), floats("float32", 2, 3)
    _, residuals = graph.forward(x)
    expected = graph.backward(residuals, outputs_ct)
    _, residuals = graph.forward(x)
    w.assign(tf.zeros_like(w))
    found = graph.backward(residuals, outputs_ct)
    np.testing.assert_allclose(found[1][0], expected[1][0], rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_budget_is_kept(share):
    nbytes = int(share * built("needed").residual_bytes)
    assert built(budget(nbytes)).residual_bytes <= nbytes


def test_a_budget_that_holds_everything_runs_nothing_again():
    needed = built("needed")
    assert built(budget(needed.residual_bytes)).residual_bytes == needed.residual_bytes


def test_a_budget_counts_unknown_dimensions_as_it_is_told():
    def kept(unknown):
        graph = built(budget(500, unknown=unknown), rows=None)
        return graph.forward(floats("float32", 6, 5))[1].nbytes

    assert 0 < kept(unknown=6) <= 500
    assert kept(unknown=100) < kept(unknown=6)


@pytest.mark.parametrize("seed", range(8))
def test_a_price_of_memory_finds_the_best_of_all_choices(seed):
    """Against a search over every set of tensors that could be kept."""
    rng = np.random.default_rng(seed)
    region = None

    class Spy(policies.Policy):
        name = "spy"

        def recipe(self, given):
            nonlocal region
            region = given
            return policies.needed.recipe(given)

    def fn(x):
        values = [x]
        for _ in range(6):
            a, b = (values[at] for at in rng.integers(0, len(values), 2))
            op = [lambda a, b: tf.sin(a) * b, lambda a, b: tf.matmul(a, b, transpose_b=True) @ b, tf.multiply][
                rng.integers(0, 3)
            ]
            values.append(op(a, b))
        return tf.reduce_sum(tf.tanh(values[-1])[:, : rng.integers(1, 4)]) + tf.reduce_sum(values[-2])

    Part(fn, variables=[], save=Spy()).build(tf.TensorSpec([3, 4], tf.float32))
    tradeoff = Tradeoff(region, None)
    kept_or_not = [each for each in region.reachable if not region.is_free(each) and not region.costs_nothing(each)]

    def price(recipe, per_byte):
        return sum(map(tradeoff.seconds, recipe.recomputed)) + per_byte * tradeoff.nbytes(recipe)

    for per_byte in (1e-9, 3e-8, 1e-7, 1e-6):
        best = min(
            price(region.recipe(lambda each, chosen=chosen: each.ref() in chosen), per_byte)
            for count in range(min(len(kept_or_not), 14) + 1)
            for chosen in ({each.ref() for each in some} for some in itertools.combinations(kept_or_not[:14], count))
        )
        assert price(tradeoff.recipe(per_byte), per_byte) <= best * (1 + 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Part(tf.tanh, save="minimal"), "the save policy is 'minimal'; expected one of needed, all"),
        (lambda: budget(-1), "give a number of bytes"),
        (lambda: built(budget(500), rows=None), "the shape .* so that its bytes are not known"),
        (lambda: built(budget(10), dropout=0.5), r"budget\(10\): at least .* bytes must be kept"),
    ],
)
def test_what_cannot_be_met_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_budget_without_scipy_says_what_to_install(monkeypatch):
    monkeypatch.setattr(policies, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs SciPy .*pip install scipy"):
        policies.budget(1)
