"""Recurrent layers for static lengths: one input projection for all steps, padding that changes nothing.

The equations and weight layouts are those of `keras.layers.LSTM` and `keras.layers.GRU(reset_after=True)`, so weights
can be exchanged with them. Keras multiplies the input by its kernel at each step and selects the old state by a mask at
each step; here the product is taken once over all steps, and padding is held off by the gates themselves: a large
constant in the projected input closes the gates that let a step in, so that the state passes through a padded step bit
for bit, and no step pays for it.

The steps are taken, and differentiated, by `recurrence.recur`: unrolled, or in a loop (`steps.take_steps`).

Layers are time-major, `[time, rows, features]`, because a step is then a contiguous block. Matrix products run in the
compute dtype of the layer's policy, and everything between them in its variable dtype.

Sources: Hochreiter and Schmidhuber (1997), "Long short-term memory"; Cho et al. (2014),
https://arxiv.org/abs/1406.1078.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import keras
import tensorflow as tf

from seq2split.layers.configuration import constructor_arguments
from seq2split.layers.recurrence import State, StepCotangents, recur
from seq2split.layers.steps import Unroll, check_unroll
from seq2split.layers.weights import add_weight

_SATURATED = 1e4  # a pre-activation at which the sigmoid is exactly 0 or 1 in every float type
_unconverted = tf.autograph.experimental.do_not_convert


class Recurrent(keras.Layer):
    """The base of `LSTM` and `GRU`.

    Args:
        units: The size of the state.
        reverse: Whether to run from the last step to the first.
        unroll: Whether each step has operations of its own (`True`), or all are one loop (`False`), whose graph is
            built in half a second at any length; "auto" for a loop beyond 32 steps. Results are the same.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.
    """

    gates: int
    """The number of gates; the kernels have `units` columns for each."""
    state_size: int
    """The number of tensors `[rows, units]` in a state; the first is the output of the step."""
    recurrent_bias: keras.Variable | None = None
    """The bias of the product with the old output, in a layer that has one beside `bias`."""

    def __init__(self, units: int, *, reverse: bool = False, unroll: Unroll = "auto", **options):
        super().__init__(autocast=False, **options)
        self.units, self.reverse, self.unroll = units, reverse, check_unroll(type(self).__name__, unroll)

    def build(self, input_shape):
        """Create the weights for inputs `[..., features]`."""
        columns = self.gates * self.units
        self.kernel = add_weight(self, "kernel", (input_shape[-1], columns))
        self.recurrent_kernel = add_weight(self, "recurrent_kernel", (self.units, columns), "orthogonal")
        self._build_biases(columns)

    @_unconverted
    def call(
        self, inputs: tf.Tensor, lengths: tf.Tensor | None = None, state: State | None = None
    ) -> tuple[tf.Tensor, State]:
        """Run all steps.

        Args:
            inputs: `[time, rows, features]`; time is static.
            lengths: The real steps of each row, `[rows]`, integers; `None` where none is padding.
            state: The state to start from; zeros by default.

        Returns:
            The outputs `[time, rows, units]` (those at padded steps mean nothing) and the final state, which is that
            of the last real step.
        """
        # In reverse padding comes first, and an LSTM holds a given output through it only if that is zero: run over the
        # real steps turned round.
        turned = self.reverse and lengths is not None and state is not None
        backwards = self.reverse and not turned
        if turned:
            inputs = tf.reverse_sequence(inputs, lengths, seq_axis=0, batch_axis=1)
        padding = None if lengths is None else self._padding(lengths, inputs.shape[0])
        state = self.zero_state(tf.shape(inputs)[1]) if state is None else state
        inputs = tf.cast(inputs, self.variable_dtype)
        outputs, final = recur(self, inputs, padding, state, backwards)
        if lengths is not None and not backwards:
            final = self.final_state(outputs, final, state, lengths)
        if turned:
            outputs = tf.reverse_sequence(outputs, lengths, seq_axis=0, batch_axis=1)
        return outputs, final

    def zero_state(self, rows: tf.Tensor) -> State:
        """Return a state of zeros."""
        return (tf.zeros([rows, self.units], self.variable_dtype),) * self.state_size

    def step(self, projected: tf.Tensor, state: State, recurrent: Sequence[tf.Tensor]) -> State:
        """Take one step.

        Args:
            projected: The input's share of the pre-activations, `[rows, gates * units]`.
            state: The state before the step.
            recurrent: What `recurrent_weights` returned before the first step.

        Returns:
            The state after the step.
        """
        kernel, *biases = recurrent
        recurred = self.product(state[0], kernel)
        for bias in biases:
            recurred += bias
        return self.forward_step(projected, recurred, state)[0]

    def recurrent_weights(self) -> list[tf.Tensor]:
        """Return the recurrent kernel in the compute dtype, and the recurrent bias where there is one."""
        kernel, *biases = _read(self.recurrent_kernel, self.recurrent_bias)
        return [tf.cast(kernel, self.compute_dtype), *biases]

    def weight_values(self) -> list[tf.Tensor]:
        """Return the values of the weights; see `recurrence.Cell`."""
        return _read(self.kernel, self.bias, self.recurrent_kernel, self.recurrent_bias)

    def holding_bias(self) -> tf.Tensor:
        """Return what holds the state through padding; see `recurrence.Cell`."""
        return tf.repeat(tf.constant(self._holding_biases(), self.variable_dtype), self.units)

    def product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Multiply `inputs [..., features]` by `kernel [features, columns]` in the compute dtype."""
        flat = tf.reshape(inputs, [-1, inputs.shape[-1]])
        product = tf.matmul(tf.cast(flat, self.compute_dtype), tf.cast(kernel, self.compute_dtype))
        shape = tf.concat([tf.shape(inputs)[:-1], kernel.shape[-1:]], 0)
        return tf.reshape(tf.cast(product, self.variable_dtype), shape)

    def get_config(self) -> dict:
        """Return what the layer was made with."""
        return super().get_config() | constructor_arguments(self)

    @abstractmethod
    def forward_step(self, projected: tf.Tensor, recurred: tf.Tensor, state: State) -> tuple[State, State]:
        """Take one step; see `recurrence.Cell`."""

    @abstractmethod
    def backward_step(self, saved: State, state_ct: State) -> StepCotangents:
        """Take the gradient of one step; see `recurrence.Cell`."""

    @abstractmethod
    def final_state(self, outputs: tf.Tensor, last: State, initial: State, lengths: tf.Tensor) -> State:
        """Return the state after the last real step.

        Args:
            outputs: The outputs of all steps, `[time, rows, units]`.
            last: The state after the last step, through which padding has held what it can.
            initial: The state before the first step.
            lengths: The real steps of each row, `[rows]`, integers.
        """

    @abstractmethod
    def _build_biases(self, columns: int) -> None:
        """Create `bias`, and `recurrent_bias` in a layer that has one."""

    @abstractmethod
    def _holding_biases(self) -> list[float]:
        """Return for each gate what keeps the state when it is added to the pre-activation."""

    def _gates(self, activations: tf.Tensor) -> list[tf.Tensor]:
        """Return each gate's columns of pre-activations, without those that mean nothing."""
        further = activations.shape[1] - self.gates * self.units
        sizes = [self.units] * self.gates + ([further] if further else [])
        return tf.split(activations, sizes, axis=1)[: self.gates]

    def _padding(self, lengths: tf.Tensor, time: int) -> tf.Tensor:
        """Return ones at padded steps, `[time, rows]`."""
        return 1.0 - tf.transpose(tf.sequence_mask(lengths, time, self.variable_dtype))


@keras.saving.register_keras_serializable(package="seq2split")
class LSTM(Recurrent):
    """Long short-term memory; its state is `(output, cell)`.

    Args:
        units: The size of the state.
        reverse: Whether to run from the last step to the first.
        unroll: Whether each step has operations of its own (`True`), or all are one loop (`False`), whose graph is
            built in half a second at any length; "auto" for a loop beyond 32 steps. Results are the same.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Example:
        >>> import tensorflow as tf
        >>> layer = LSTM(8)
        >>> outputs, (output, cell) = layer(tf.ones([5, 2, 4]), lengths=tf.constant([5, 3]))
        >>> outputs.shape.as_list(), bool(tf.reduce_all(output[1] == outputs[2, 1]))
        ([5, 2, 8], True)
    """

    gates = 4
    state_size = 2

    def forward_step(self, projected: tf.Tensor, recurred: tf.Tensor, state: State) -> tuple[State, State]:
        """Take one step; the gates are in the order input, forget, candidate, output."""
        _, cell = state
        input, forget, candidate, output = self._gates(projected + recurred)
        input, forget, candidate, output = tf.sigmoid(input), tf.sigmoid(forget), tf.tanh(candidate), tf.sigmoid(output)
        after = forget * cell + input * candidate
        squashed = tf.tanh(after)
        return (output * squashed, after), (cell, input, forget, candidate, output, squashed)

    def backward_step(self, saved: State, state_ct: State) -> StepCotangents:
        """Take the gradient of one step."""
        cell, input, forget, candidate, output, squashed = saved
        output_ct, after_ct = state_ct
        after_ct += tf.raw_ops.TanhGrad(y=squashed, dy=output_ct * output)
        gates_ct = [
            tf.raw_ops.SigmoidGrad(y=input, dy=after_ct * candidate),
            tf.raw_ops.SigmoidGrad(y=forget, dy=after_ct * cell),
            tf.raw_ops.TanhGrad(y=candidate, dy=after_ct * input),
            tf.raw_ops.SigmoidGrad(y=output, dy=output_ct * squashed),
        ]
        return gates_ct, gates_ct, (None, after_ct * forget)

    def final_state(self, outputs: tf.Tensor, last: State, initial: State, lengths: tf.Tensor) -> State:
        """Return the cell, which padding has held, and the output of the last real step, which it has not."""
        steps = tf.stack([tf.maximum(lengths - 1, 0), tf.range(tf.shape(lengths)[0], dtype=lengths.dtype)], axis=1)
        return tf.where(lengths[:, None] > 0, tf.gather_nd(outputs, steps), initial[0]), last[1]

    def _build_biases(self, columns: int) -> None:
        units = self.units

        def initialize(shape, dtype=None):  # the forget gate starts open: Jozefowicz et al. (2015)
            return tf.concat([tf.zeros([units], dtype), tf.ones([units], dtype), tf.zeros([2 * units], dtype)], 0)

        self.bias = add_weight(self, "bias", (columns,), initialize)

    def _holding_biases(self) -> list[float]:
        return [-_SATURATED, _SATURATED, 0.0, 0.0]


@keras.saving.register_keras_serializable(package="seq2split")
class GRU(Recurrent):
    """Gated recurrent unit, the reset gate applied after the product; its state is `(output,)`.

    Args:
        units: The size of the state.
        reverse: Whether to run from the last step to the first.
        unroll: Whether each step has operations of its own (`True`), or all are one loop (`False`), whose graph is
            built in half a second at any length; "auto" for a loop beyond 32 steps. Results are the same.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Example:
        >>> import tensorflow as tf
        >>> layer = GRU(8)
        >>> outputs, (output,) = layer(tf.ones([5, 2, 4]), lengths=tf.constant([5, 3]))
        >>> outputs.shape.as_list(), bool(tf.reduce_all(output[1] == outputs[2, 1]))
        ([5, 2, 8], True)
    """

    gates = 3
    state_size = 1

    def forward_step(self, projected: tf.Tensor, recurred: tf.Tensor, state: State) -> tuple[State, State]:
        """Take one step; the gates are in the order update, reset, candidate; an open update gate keeps the state."""
        (output,) = state
        update, reset, candidate = self._gates(projected)
        update_recurred, reset_recurred, candidate_recurred = self._gates(recurred)
        update, reset = tf.sigmoid(update + update_recurred), tf.sigmoid(reset + reset_recurred)
        candidate = tf.tanh(candidate + reset * candidate_recurred)
        after = update * output + (1.0 - update) * candidate
        return (after,), (output, update, reset, candidate, candidate_recurred)

    def backward_step(self, saved: State, state_ct: State) -> StepCotangents:
        """Take the gradient of one step."""
        output, update, reset, candidate, candidate_recurred = saved
        (output_ct,) = state_ct
        update_ct = tf.raw_ops.SigmoidGrad(y=update, dy=output_ct * (output - candidate))
        candidate_ct = tf.raw_ops.TanhGrad(y=candidate, dy=output_ct * (1.0 - update))
        reset_ct = tf.raw_ops.SigmoidGrad(y=reset, dy=candidate_ct * candidate_recurred)
        projected_ct = [update_ct, reset_ct, candidate_ct]
        return projected_ct, [update_ct, reset_ct, candidate_ct * reset], (output_ct * update,)

    def final_state(self, outputs: tf.Tensor, last: State, initial: State, lengths: tf.Tensor) -> State:
        """Return the state after the last step, through which padding has held it."""
        return last

    def _build_biases(self, columns: int) -> None:
        self.bias = add_weight(self, "bias", (columns,), "zeros")
        self.recurrent_bias = add_weight(self, "recurrent_bias", (columns,), "zeros")

    def _holding_biases(self) -> list[float]:
        return [_SATURATED, 0.0, 0.0]


def _read(*weights: keras.Variable | None) -> list[tf.Tensor]:
    """Return the values of those weights that there are; `tf.cast` alone would leave it to each step to read them."""
    return [tf.convert_to_tensor(weight.value) for weight in weights if weight is not None]
