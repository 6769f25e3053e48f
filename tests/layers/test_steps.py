"""Steps in a loop against steps unrolled."""

from __future__ import annotations

import pytest
import tensorflow as tf
from arrays import assert_close, normal

from seq2split.common.compilation import tracing_for_xla
from seq2split.layers.steps import joined, stacked, take_steps

TIME, ROWS, UNITS = 5, 3, 4


def run(order, in_a_loop):
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

        with tf.GradientTape() as tape, tracing_for_xla(in_a_loop):
            tape.watch(sources)
            given = [inputs, tf.unstack(others)]  # a series is a tensor or a list
            state, (hidden, totals) = take_steps(
                step, {"hidden": first, "total": tf.constant(0.0, "float64")}, given, order
            )
            results = state["hidden"], state["total"], stacked(hidden), stacked(totals), joined(hidden)
            loss = tf.add_n([tf.reduce_sum(each * normal(*each.shape, seed=4)) for each in results])
        return results, tape.gradient(loss, sources)

    return traced(first, inputs, others, kernel), traced.get_concrete_function(first, inputs, others, kernel)


@pytest.mark.parametrize("order", [range(TIME), range(TIME)[::-1]], ids=["forwards", "backwards"])
def test_a_loop_equals_unrolled_steps(order):
    found, traced = run(order, in_a_loop=True)
    expected, unrolled = run(order, in_a_loop=False)
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert_close(left, right)
    assert expected[0][2].shape == (TIME, ROWS, UNITS)
    assert expected[0][4].shape == (TIME * ROWS, UNITS)
    loops = [["While" in operation.type for operation in each.graph.get_operations()] for each in (traced, unrolled)]
    assert [any(each) for each in loops] == [True, False]


def test_series_are_in_the_order_of_time():
    inputs = tf.constant([1.0, 2.0, 4.0])
    for in_a_loop in (False, True):
        with tracing_for_xla(in_a_loop):
            total, (sums,) = take_steps(lambda s, x: (s + x, (s + x,)), tf.constant(0.0), [inputs], range(3)[::-1])
        assert (float(total), stacked(sums).numpy().tolist()) == (7.0, [7.0, 6.0, 4.0])


def test_one_step_is_no_loop():
    with tracing_for_xla():
        _, (found,) = take_steps(lambda s, x: (s, (x,)), tf.zeros([]), [tf.ones([1, 2])], range(1))
    assert isinstance(found, list)
