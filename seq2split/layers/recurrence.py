"""A recurrence over all steps of a static length, with a gradient of its own.

What differentiation by TensorFlow does at each step is done once here: the products that give the gradients of the
kernels are taken over all steps together, instead of one for each step and a sum of them. And the backward keeps only
what it reads: the activations of each step and one block of inputs and outputs, in the dtype of the products. A step
then costs one product and a few passes over its gates, either way.

A product of few rows is as fast as its kernel lies well in memory, so that is arranged once for all steps: the backward
multiplies by a transposed copy (a product that transposes as it reads takes 1.1 ms more at each step for 256 units),
and the gates have a few columns of zeros after them where their number is one that `products.spread` avoids.

The forward and the backward of one step are the cell's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from seq2split.layers.products import spread, widened
from seq2split.layers.steps import Unroll, joined, stacked, take_steps

State = tuple[tf.Tensor, ...]
"""The state of a recurrence, tensors `[rows, units]`; the first is the output of the step."""
StepCotangents = tuple[list[tf.Tensor], list[tf.Tensor], tuple[tf.Tensor | None, ...]]
"""The cotangents of the gates' two shares, and of the state; see `Cell.backward_step`."""


class Cell(Protocol):
    """What `recur` needs of a recurrent layer.

    Attributes:
        compute_dtype: The dtype of matrix products.
        variable_dtype: The dtype of everything between them.
        unroll: Whether the steps are unrolled.
    """

    compute_dtype: str
    variable_dtype: str
    unroll: Unroll

    def weight_values(self) -> list[tf.Tensor]:
        """Return the values of the weights.

        Returns:
            The kernel `[features, columns]`, its bias `[columns]`, the recurrent kernel `[units, columns]` and, where
            there is one, its bias.
        """

    def holding_bias(self) -> tf.Tensor:
        """Return what holds the state through a step when it is added to the pre-activations, `[columns]`."""

    def forward_step(self, projected: tf.Tensor, recurred: tf.Tensor, state: State) -> tuple[State, State]:
        """Take one step.

        Args:
            projected: The input's share of the pre-activations, `[rows, columns]`; further columns mean nothing.
            recurred: The old output's share, likewise.
            state: The state before the step.

        Returns:
            The state after the step, and the activations that `backward_step` reads.
        """

    def backward_step(self, saved: State, state_ct: State) -> StepCotangents:
        """Take the gradient of one step.

        Args:
            saved: The activations that `forward_step` returned.
            state_ct: The cotangents of the state after the step.

        Returns:
            The cotangents of each gate's columns of `projected` and of `recurred`, `[rows, units]` (one list where they
            are the same); and those of the state before the step, without what goes through `recurred`: `None` where
            nothing is left.
        """


def recur(
    cell: Cell, inputs: tf.Tensor, padding: tf.Tensor | None, state: State, backwards: bool
) -> tuple[tf.Tensor, State]:
    """Run a cell over all steps.

    Args:
        cell: The cell.
        inputs: `[time, rows, features]`; time is static.
        padding: Ones where a step is padding and the state is held, zeros elsewhere, `[time, rows]`; `None` where no
            step is.
        state: The state to start from.
        backwards: Whether to run from the last step to the first.

    Returns:
        The outputs `[time, rows, units]` and the state after the last step taken.
    """
    compute, variable, weights = cell.compute_dtype, cell.variable_dtype, cell.weight_values()
    (features, columns), time, rows = weights[0].shape, inputs.shape[0], tf.shape(inputs)[1]
    order = range(time)[::-1] if backwards else range(time)
    zeros = [tf.zeros([rows, spread(columns) - columns], compute)] if spread(columns) > columns else []

    def take(step, state, *given, order):
        return take_steps(step, state, given, order, cell.unroll, has_gradient=False)

    @tf.custom_gradient
    def run(inputs, kernel, bias, recurrent_kernel, *others):
        recurrent_bias, state = others[: len(weights) - 3], others[len(weights) - 3 :]
        flat = tf.reshape(inputs, [-1, features])
        extra = [(tf.ones_like(flat[:, 0]), bias)]
        extra += [] if padding is None else [(tf.reshape(padding, [-1]), cell.holding_bias())]
        flat = widened(flat, [column for column, _ in extra], 1, compute)
        wide_kernel = _filled(widened(kernel, [row for _, row in extra], 0, compute))
        kernel, recurrent_kernel = tf.cast(kernel, compute), tf.cast(recurrent_kernel, compute)
        wide_recurrent_kernel, wide_bias = _filled(recurrent_kernel), [_filled(bias) for bias in recurrent_bias]
        projected = tf.reshape(tf.matmul(flat, wide_kernel), [time, -1, wide_kernel.shape[1]])

        def forward_step(state, projected):
            read = tf.cast(state[0], compute)
            recurred = tf.cast(tf.matmul(read, wide_recurrent_kernel), variable)
            recurred = recurred + wide_bias[0] if wide_bias else recurred
            state, saved = cell.forward_step(tf.cast(projected, variable), recurred, state)
            return state, (state[0], read, *saved)

        state, (outputs, read, *saved) = take(forward_step, state, projected, order=order)

        def backward(outputs_ct, *state_ct):
            # Both at once: TensorFlow would fold what is only transposed back into each product.
            transposed = _filled(tf.transpose(tf.concat([recurrent_kernel, kernel], 0)), axis=0)
            recurrent_transposed, kernel_transposed = tf.split(transposed, [-1, features], axis=1)

            def backward_step(state_ct, output_ct, *saved):
                projected_ct, recurred_ct, state_ct = cell.backward_step(
                    saved, (state_ct[0] + output_ct, *state_ct[1:])
                )
                is_shared = recurred_ct is projected_ct
                projected_ct = side_by_side(projected_ct)
                recurred_ct = projected_ct if is_shared else side_by_side(recurred_ct)
                through = tf.cast(tf.matmul(recurred_ct, recurrent_transposed), variable)
                state_ct = (through if state_ct[0] is None else through + state_ct[0], *state_ct[1:])
                return state_ct, (projected_ct, recurred_ct)

            state_ct, found = take(backward_step, state_ct, outputs_ct, *saved, order=order[::-1])
            projected_ct, recurred_ct = map(joined, found)
            wide_kernel_ct = tf.cast(tf.matmul(flat, projected_ct, transpose_a=True), variable)[:, :columns]
            recurrent_kernel_ct = tf.cast(tf.matmul(joined(read), recurred_ct, transpose_a=True), variable)[:, :columns]
            recurrent_bias_ct = [tf.reduce_sum(tf.cast(recurred_ct, variable), 0)[:columns] for _ in recurrent_bias]
            inputs_ct = tf.cast(tf.matmul(projected_ct, kernel_transposed), variable)
            kernels_ct = (wide_kernel_ct[:features], wide_kernel_ct[features], recurrent_kernel_ct)
            return tf.reshape(inputs_ct, [time, -1, features]), *kernels_ct, *recurrent_bias_ct, *state_ct

        def side_by_side(gates: Sequence[tf.Tensor]) -> tf.Tensor:
            return tf.concat([*(tf.cast(gate, compute) for gate in gates), *zeros], 1)

        return (stacked(outputs), *state), backward

    outputs, *state = run(inputs, *weights, *state)
    return outputs, tuple(state)


def _filled(weight: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Return a weight with zeros up to as many columns (or rows) as `products.spread` says."""
    missing = spread(weight.shape[axis]) - weight.shape[axis]
    paddings = [[0, 0] for _ in weight.shape]
    paddings[axis] = [0, missing]
    return tf.pad(weight, paddings) if missing else weight
