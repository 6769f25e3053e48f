"""Steps over a static length: unrolled, or in a loop where XLA compiles them.

Unrolled, each step has operations of its own, and what it returns stays where it is: that is fastest where TensorFlow
runs the graph. XLA fuses what is elementwise into the kernel of whoever reads it, and the cotangent of an LSTM's cell
is elementwise from the last step to the first. So on a processor the kernel of each step computes all those again that
came before it: 32 steps make four times as many instructions to compile, and to run, as 16, and 64 take minutes. Where
XLA compiles (`common.compilation`), the steps are the body of one `tf.while_loop`, and what they return is stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from seq2split.common.compilation import is_for_xla

Nest = Any
Series = tf.Tensor | list[tf.Tensor]
"""A tensor for each step: one tensor `[time, ...]`, or a list."""
Step = Callable[..., tuple[Nest, tuple[tf.Tensor, ...]]]
"""Takes the state and what each series has for the step; returns the state after it, and what it has found."""


def take_steps(step: Step, state: Nest, given: Sequence[Series], order: range) -> tuple[Nest, list[Series]]:
    """Take all steps.

    Args:
        step: The function of one step. It reads no variables: a loop's backward would keep them at every step.
        state: The state before the first step.
        given: The series that the steps take.
        order: The numbers of the steps, in the order in which they are taken.

    Returns:
        The state after the last step, and a series of each tensor that the steps have found; all in the order of time.

    Example:
        >>> import tensorflow as tf
        >>> total, (sums,) = take_steps(lambda s, x: (s + x, (s + x,)), 0.0, [tf.constant([1.0, 2.0, 4.0])], range(3))
        >>> float(total), stacked(sums).numpy().tolist()
        (7.0, [1.0, 3.0, 7.0])
    """
    take = _take_in_a_loop if is_for_xla() and len(order) > 1 else _take_unrolled
    return take(step, state, given, order)


def stacked(series: Series) -> tf.Tensor:
    """Return a series as one tensor `[time, ...]`."""
    return tf.stack(series) if isinstance(series, list) else series


def joined(series: Series) -> tf.Tensor:
    """Return a series of matrices `[rows, columns]` as one, `[time * rows, columns]`."""
    return tf.concat(series, 0) if isinstance(series, list) else tf.reshape(series, [-1, series.shape[-1]])


def _take_unrolled(step: Step, state: Nest, given: Sequence[Series], order: range) -> tuple[Nest, list[Series]]:
    given = [each if isinstance(each, list) else tf.unstack(each, len(order)) for each in given]
    found: list[Any] = [None] * len(order)
    for at in order:
        state, found[at] = step(state, *(each[at] for each in given))
    return state, [list(each) for each in zip(*found, strict=True)]


def _take_in_a_loop(step: Step, state: Nest, given: Sequence[Series], order: range) -> tuple[Nest, list[Series]]:
    given, time = [stacked(each) for each in given], len(order)
    read = [tf.TensorArray(each.dtype, time, element_shape=each.shape[1:]).unstack(each) for each in given]
    specs = _found_specs(step, state, given)

    def body(taken: tf.Tensor, state: Nest, found: list[tf.TensorArray]) -> tuple:
        at = order.start + order.step * taken
        state, values = step(state, *(each.read(at) for each in read))
        return taken + 1, state, [array.write(at, value) for array, value in zip(found, values, strict=True)]

    found = [tf.TensorArray(spec.dtype, time, element_shape=spec.shape) for spec in specs]
    _, state, found = tf.while_loop(lambda taken, *_: taken < time, body, (0, state, found), maximum_iterations=time)
    return state, [array.stack() for array in found]


def _found_specs(step: Step, state: Nest, given: Sequence[tf.Tensor]) -> tuple[tf.TensorSpec, ...]:
    """Return the specs of what a step has found, by tracing one apart: a loop must know them before it begins."""
    specs = [tf.TensorSpec(each.shape[1:], each.dtype) for each in given]
    state_specs = tf.nest.map_structure(lambda each: tf.TensorSpec(each.shape, each.dtype), state)
    return tf.function(step, autograph=False).get_concrete_function(state_specs, *specs).structured_outputs[1]
