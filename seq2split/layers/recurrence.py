"""A recurrence over all steps of a static length, with a gradient of its own.

What differentiation by TensorFlow does at each step is done once here: the products that give the gradients of the
kernels are taken over all steps together, instead of one for each step and a sum of them. And the backward keeps only
what it reads: the activations of each step and one block of inputs and outputs, in the dtype of the products. A step
then costs one product and a few passes over its gates, either way.

The forward and the backward of one step are the cell's.
"""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from seq2split.layers.products import widened
from seq2split.layers.steps import joined, stacked, take_steps

State = tuple[tf.Tensor, ...]
"""The state of a recurrence, tensors `[rows, units]`; the first is the output of the step."""


class Cell(Protocol):
    """What `recur` needs of a recurrent layer.

    Attributes:
        compute_dtype: The dtype of matrix products.
        variable_dtype: The dtype of everything between them.
    """

    compute_dtype: str
    variable_dtype: str

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
            projected: The input's share of the pre-activations, `[rows, columns]`.
            recurred: The old output's share, likewise.
            state: The state before the step.

        Returns:
            The state after the step, and the activations that `backward_step` reads.
        """

    def backward_step(self, saved: State, state_ct: State) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor | None, ...]]:
        """Take the gradient of one step.

        Args:
            saved: The activations that `forward_step` returned.
            state_ct: The cotangents of the state after the step.

        Returns:
            The cotangents of `projected`, of `recurred`, and of the state before the step, without what goes through
            `recurred`; `None` where nothing is left.
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
    (features, columns), time = weights[0].shape, inputs.shape[0]
    order = range(time)[::-1] if backwards else range(time)

    @tf.custom_gradient
    def run(inputs, kernel, bias, recurrent_kernel, *others):
        recurrent_bias, state = others[: len(weights) - 3], others[len(weights) - 3 :]
        flat = tf.reshape(inputs, [-1, features])
        extra = [(tf.ones_like(flat[:, 0]), bias)]
        extra += [] if padding is None else [(tf.reshape(padding, [-1]), cell.holding_bias())]
        flat = widened(flat, [column for column, _ in extra], 1, compute)
        wide_kernel = widened(kernel, [row for _, row in extra], 0, compute)
        kernel, recurrent_kernel = tf.cast(kernel, compute), tf.cast(recurrent_kernel, compute)
        projected = tf.reshape(tf.matmul(flat, wide_kernel), [time, -1, columns])

        def forward_step(state, projected):
            read = tf.cast(state[0], compute)
            recurred = tf.cast(tf.matmul(read, recurrent_kernel), variable)
            recurred = recurred + recurrent_bias[0] if recurrent_bias else recurred
            state, saved = cell.forward_step(tf.cast(projected, variable), recurred, state)
            return state, (state[0], read, *saved)

        state, (outputs, read, *saved) = take_steps(forward_step, state, [projected], order)

        def backward_step(state_ct, output_ct, *saved):
            *gates_ct, state_ct = cell.backward_step(saved, (state_ct[0] + output_ct, *state_ct[1:]))
            projected_ct, recurred_ct = (tf.cast(gate_ct, compute) for gate_ct in gates_ct)
            through = tf.cast(tf.matmul(recurred_ct, recurrent_kernel, transpose_b=True), variable)
            state_ct = (through if state_ct[0] is None else through + state_ct[0], *state_ct[1:])
            return state_ct, (projected_ct, recurred_ct)

        def backward(outputs_ct, *state_ct):
            state_ct, found = take_steps(backward_step, state_ct, [outputs_ct, *saved], order[::-1])
            projected_ct, recurred_ct = map(joined, found)
            wide_kernel_ct = tf.cast(tf.matmul(flat, projected_ct, transpose_a=True), variable)
            recurrent_kernel_ct = tf.cast(tf.matmul(joined(read), recurred_ct, transpose_a=True), variable)
            recurrent_bias_ct = [tf.reduce_sum(tf.cast(recurred_ct, variable), 0) for _ in recurrent_bias]
            inputs_ct = tf.cast(tf.matmul(projected_ct, kernel, transpose_b=True), variable)
            kernels_ct = (wide_kernel_ct[:features], wide_kernel_ct[features], recurrent_kernel_ct)
            return tf.reshape(inputs_ct, [time, -1, features]), *kernels_ct, *recurrent_bias_ct, *state_ct

        return (stacked(outputs), *state), backward

    outputs, *state = run(inputs, *weights, *state)
    return outputs, tuple(state)
