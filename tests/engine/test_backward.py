"""Gradients of branches whose own gradients read tensors from outside of them."""

from __future__ import annotations

import pytest
import tensorflow as tf
from engine_subjects import floats, variable
from engine_trials import close

from seq2split.engine import Part


@tf.custom_gradient
def sine(x):
    return tf.sin(x), lambda sine_ct: sine_ct * tf.cos(x)


def times(y):
    """A custom gradient that reads a tensor that it is not given."""
    return tf.custom_gradient(lambda x: (x * y, lambda product_ct: product_ct * y))


def either(fn, otherwise):
    return tf.cond(tf.reduce_sum(otherwise) < 100, fn, lambda: otherwise)


def one_of(fn, otherwise):
    return tf.switch_case(tf.cast(tf.reduce_sum(otherwise) > 100, tf.int32), [fn, lambda: otherwise])


# What a branch computes of a hidden tensor and the input, both from outside of it.
BRANCHES = {
    "custom_gradient": lambda h, x, own: sine(own(h)),
    "recompute_grad": lambda h, x, own: tf.recompute_grad(lambda y: tf.sin(tf.cos(y)))(own(h)),
    "silu": lambda h, x, own: tf.nn.silu(own(h)),
    "reads another": lambda h, x, own: times(own(x))(2 * h),
}


def branching(name, choose, own):
    w = variable("float64", 3, 3)

    def fn(x):
        h = x @ w
        return choose(lambda: BRANCHES[name](h, x, own), h)

    return fn, [w], floats("float64", 2, 3)


@pytest.mark.parametrize("choose", [either, one_of])
@pytest.mark.parametrize("name", BRANCHES)
def test_what_a_branch_reads_from_outside_is_an_error_that_says_the_mend(name, choose):
    fn, variables, _ = branching(name, choose, own=lambda y: y)
    with pytest.raises(ValueError, match=r"part 'encoder': .*branch of tf.cond.*give it tf.identity\(x\)"):
        Part(fn, variables=variables, name="encoder").build(tf.TensorSpec([2, 3], "float64"))


@pytest.mark.parametrize("choose", [either, one_of])
@pytest.mark.parametrize("name", BRANCHES)
def test_the_mends_give_the_gradients_of_the_joint_graph(name, choose):
    for own, trace in ((tf.identity, "forward"), (lambda y: y, "value_and_gradients")):
        fn, variables, x = branching(name, choose, own)

        @tf.function
        def joint(x, fn=fn, variables=variables):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(fn(x))
            return tape.gradient(loss, [x, *variables])

        part = Part(lambda x, fn=fn: tf.reduce_sum(fn(x)), variables=variables)
        graph = part.build(tf.TensorSpec([2, 3], "float64"), trace=[trace])
        if trace == "forward":
            loss, residuals = graph.forward(x)
            (inputs_ct,), gradients = graph.backward(residuals, tf.ones_like(loss))
        else:
            _, (inputs_ct,), gradients = graph.value_and_gradients(x)
        for found, expected in zip([inputs_ct, *gradients], joint(tf.constant(x)), strict=True):
            close(found, expected, 1e-12)


def test_an_assertion_of_the_users_own_gradient_stays():
    @tf.custom_gradient
    def fails(x):
        def gradient(y):
            raise AssertionError("no gradient")

        return x, gradient

    with pytest.raises(AssertionError, match="no gradient"):
        Part(fails, variables=[]).build(tf.TensorSpec([2]))
