"""Steps in a loop against steps unrolled."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from arrays import assert_close, normal

from seq2split.common.compilation import tracing_for_xla
from seq2split.layers.steps import check_unroll, joined, stacked, take_steps

TIME, ROWS, UNITS = 5, 3, 4


def run(order, unroll):
    """The results of a step with a nest as its state, two series given and two found, and their gradients."""
    first, inputs, others = normal(ROWS, UNITS), normal(TIME, ROWS, UNITS, seed=1), normal(TIME, ROWS, seed=2)
    kernel = normal(UNITS, UNITS, seed=3)

    @tf.function
    def traced(*sources):
        first, inputs, others, kernel = sources

        def step(state, value, scale):
            hidden, total = state["hidden"], state["total"]
            hidden = tf.tanh(hidden @ kernel + value) * scale[:, None]
            return {"hidden": hidden, "total": total + tf.reduce_sum(hidden)}, (hidden, total)

        with tf.GradientTape() as tape:
            tape.watch(sources)
            given = [inputs, tf.unstack(others)]  # a series is a tensor or a list
            state, (hidden, totals) = take_steps(
                step, {"hidden": first, "total": tf.constant(0.0, "float64")}, given, order, unroll
            )
            results = state["hidden"], state["total"], stacked(hidden), stacked(totals), joined(hidden)
            loss = tf.add_n([tf.reduce_sum(each * normal(*each.shape, seed=4)) for each in results])
        return results, tape.gradient(loss, sources)

    return traced(first, inputs, others, kernel), traced.get_concrete_function(first, inputs, others, kernel)


@pytest.mark.parametrize("order", [range(TIME), range(TIME)[::-1]], ids=["forwards", "backwards"])
def test_a_loop_equals_unrolled_steps(order):
    found, traced = run(order, unroll=False)
    expected, unrolled = run(order, unroll=True)
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert_close(left, right)
    assert expected[0][2].shape == (TIME, ROWS, UNITS)
    assert expected[0][4].shape == (TIME * ROWS, UNITS)
    assert [has_loop(each) for each in (traced, unrolled)] == [True, False]


def has_loop(traced):
    return any("While" in operation.type for operation in traced.graph.get_operations())


@pytest.mark.parametrize("order", [range(TIME), range(TIME)[::-1]], ids=["forwards", "backwards"])
@pytest.mark.parametrize("for_xla", [False, True])
@pytest.mark.parametrize("rows", [ROWS, None], ids=["static", "any number"])
def test_a_loop_without_a_gradient_finds_states_and_tensors(order, for_xla, rows):
    """States before and after, their own tensors, some of them twice, in the buffers of one loop."""

    def step(state, value):
        total, count = state
        after = (total + value, count + 1)
        return after, (total, after[0], value * 2, after[0], value * 2, count, after[1])

    def take(inputs, unroll):
        state = tf.zeros_like(inputs[0]), tf.zeros_like(inputs[0], tf.int32)
        with tracing_for_xla(for_xla):
            state, found = take_steps(step, state, [inputs], order, unroll, has_gradient=False)
        return state, [stacked(each) for each in found]

    loop, unrolled = (tf.function(partial(take, unroll=unroll), autograph=False) for unroll in (False, True))
    spec = tf.TensorSpec([TIME, rows, UNITS], tf.float64)
    assert [has_loop(each.get_concrete_function(spec)) for each in (loop, unrolled)] == [True, False]
    inputs = normal(TIME, ROWS, UNITS)
    for left, right in zip(*(tf.nest.flatten(each(inputs)) for each in (loop, unrolled)), strict=True):
        np.testing.assert_array_equal(left, right)


def test_runs_at_once_write_to_buffers_of_their_own():
    """A loop that writes in place must not write into what another run, or the run before, has returned."""

    @tf.function(autograph=False)
    def doubled(inputs):
        return take_steps(
            lambda state, value: (state, (value * 2, value * 3)),
            (inputs[0],),
            [inputs],
            range(TIME),
            False,
            has_gradient=False,
        )[1]

    given = [normal(TIME, 50, 40, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(doubled, given))
    for inputs, (twice, thrice) in zip(given, found, strict=True):
        np.testing.assert_array_equal(twice, inputs * 2)
        np.testing.assert_array_equal(thrice, inputs * 3)


def test_series_are_in_the_order_of_time():
    for unroll in (False, True):
        take = tf.function(
            lambda inputs, unroll: take_steps(
                lambda s, x: (s + x, (s + x,)), tf.constant(0.0), [inputs], range(3)[::-1], unroll
            )
        )
        total, (sums,) = take(tf.constant([1.0, 2.0, 4.0]), unroll)
        assert (float(total), stacked(sums).numpy().tolist()) == (7.0, [7.0, 6.0, 4.0])


@pytest.mark.parametrize(("steps", "for_xla"), [(1, True), (32, False)])
@pytest.mark.parametrize("has_gradient", [True, False])
@pytest.mark.parametrize("further", [0, 1])
def test_auto_unrolls_few_steps(steps, for_xla, has_gradient, further):
    steps += further

    def take(inputs):
        with tracing_for_xla(for_xla):
            return take_steps(lambda s, x: (s, (x,)), (inputs[0],), [inputs], range(steps), has_gradient=has_gradient)

    assert has_loop(tf.function(take).get_concrete_function(tf.TensorSpec([steps, 3, 2]))) == bool(further)


def test_outside_a_graph_steps_are_unrolled():
    _, (found,) = take_steps(lambda s, x: (s, (x,)), tf.zeros([]), [tf.ones([9, 2])], range(9), False)
    assert isinstance(found, list)


def test_a_wrong_choice_teaches():
    with pytest.raises(ValueError, match=re.escape('LSTM: unroll is 1; expected True, False or "auto".')):
        check_unroll("LSTM", 1)
