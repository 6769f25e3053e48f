"""Recurrent layers for static lengths: unrolled, one input projection for all steps, padding that changes nothing.

The equations and weight layouts are those of `keras.layers.LSTM` and `keras.layers.GRU(reset_after=True)`, so weights
can be exchanged with them. Keras multiplies the input by its kernel at each step and selects the old state by a mask at
each step; here the product is taken once over all steps, and padding is held off by the gates themselves: a large
constant added to the projected input closes the gates that let a step in, so that the state passes through a padded
step bit for bit, and no step pays for it.

Layers are time-major, `[time, rows, features]`, because a step is then a contiguous block. Matrix products run in the
compute dtype of the layer's policy, and everything between them in its variable dtype.

Sources: Hochreiter and Schmidhuber (1997), "Long short-term memory"; Cho et al. (2014),
https://arxiv.org/abs/1406.1078.
"""

from __future__ import annotations

from abc import abstractmethod

import keras
import tensorflow as tf

from seq2split.layers.weights import add_weight

State = tuple[tf.Tensor, ...]
_SATURATED = 1e4  # a pre-activation at which the sigmoid is exactly 0 or 1 in every float type
_unconverted = tf.autograph.experimental.do_not_convert


class Recurrent(keras.Layer):
    """The base of `LSTM` and `GRU`.

    Args:
        units: Size of the state.
        reverse: Whether to run from the last step to the first.
        **options: Of `keras.Layer`, such as `dtype` and `name`.
    """

    gates: int
    """How many blocks of `units` columns the kernels have."""
    state_size: int
    """How many tensors `[rows, units]` a state holds; the first is the output of the step."""

    def __init__(self, units: int, *, reverse: bool = False, **options):
        super().__init__(autocast=False, **options)
        self.units, self.reverse = units, reverse

    def build(self, input_shape):
        """Creates the weights for inputs `[..., features]`."""
        columns = self.gates * self.units
        self.kernel = add_weight(self, "kernel", (input_shape[-1], columns))
        self.recurrent_kernel = add_weight(self, "recurrent_kernel", (self.units, columns), "orthogonal")
        self._build_biases(columns)

    @_unconverted
    def call(
        self, inputs: tf.Tensor, lengths: tf.Tensor | None = None, state: State | None = None
    ) -> tuple[tf.Tensor, State]:
        """Runs all steps.

        Args:
            inputs: `[time, rows, features]`; time is static.
            lengths: `[rows]` integers: steps from there on are padding. `None` where none are.
            state: The state to start from; zeros by default.

        Returns:
            The outputs `[time, rows, units]` (those at padded steps mean nothing) and the final state, which is that
            of the last real step.
        """
        projected = self.project(inputs)
        if lengths is not None:
            projected += self._hold(lengths, inputs.shape[0])
        # In reverse padding comes first, and an LSTM holds a given output through it only if that is zero: run over the
        # real steps turned round.
        turned = self.reverse and lengths is not None and state is not None
        if turned:
            projected = tf.reverse_sequence(projected, lengths, seq_axis=0, batch_axis=1)
        backwards = self.reverse and not turned
        state = self.zero_state(tf.shape(inputs)[1]) if state is None else state
        recurrent = tf.cast(self.recurrent_kernel.value, self.compute_dtype)
        states = [state]
        steps = tf.unstack(projected)
        for step in reversed(steps) if backwards else steps:
            states.append(self.step(step, states[-1], recurrent))
        outputs = [state[0] for state in states[1:]]
        outputs = tf.stack(outputs[::-1] if backwards else outputs)
        if turned:
            outputs = tf.reverse_sequence(outputs, lengths, seq_axis=0, batch_axis=1)
        return outputs, self._final(states, None if backwards else lengths)

    def project(self, inputs: tf.Tensor) -> tf.Tensor:
        """The input's share of the pre-activations, `[..., gates * units]`, of all steps in one product."""
        return self.product(inputs, self.kernel.value) + self.bias.value

    def zero_state(self, rows: tf.Tensor) -> State:
        """A state of zeros."""
        return (tf.zeros([rows, self.units], self.variable_dtype),) * self.state_size

    @abstractmethod
    def step(self, projected: tf.Tensor, state: State, recurrent: tf.Tensor) -> State:
        """One step.

        Args:
            projected: The input's share of the pre-activations, `[rows, gates * units]`.
            state: The state before it.
            recurrent: The recurrent kernel in the compute dtype.

        Returns:
            The state after it.
        """

    @abstractmethod
    def _build_biases(self, columns: int) -> None:
        """Creates `bias` and any other."""

    @abstractmethod
    def _held_gates(self) -> list[float]:
        """For each gate, what keeps the state when it is added to the pre-activation."""

    def _final(self, states: list[State], lengths: tf.Tensor | None) -> State:
        """The state after the last real step; `lengths` is `None` where that is the last of all."""
        return states[-1]

    def _hold(self, lengths: tf.Tensor, time: int) -> tf.Tensor:
        padding = tf.logical_not(tf.sequence_mask(lengths, time))
        padding = tf.cast(tf.transpose(padding)[:, :, None], self.variable_dtype)
        return padding * tf.repeat(tf.constant(self._held_gates(), self.variable_dtype), self.units)

    def product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """`inputs [..., features]` times `kernel [features, columns]`, in the compute dtype."""
        flat = tf.reshape(inputs, [-1, inputs.shape[-1]])
        product = tf.matmul(tf.cast(flat, self.compute_dtype), tf.cast(kernel, self.compute_dtype))
        shape = tf.concat([tf.shape(inputs)[:-1], kernel.shape[-1:]], 0)
        return tf.reshape(tf.cast(product, self.variable_dtype), shape)


class LSTM(Recurrent):
    """Long short-term memory; state `(output, cell)`.

    Example:
        >>> import tensorflow as tf
        >>> layer = LSTM(8)
        >>> outputs, (output, cell) = layer(tf.ones([5, 2, 4]), lengths=tf.constant([5, 3]))
        >>> outputs.shape.as_list(), bool(tf.reduce_all(output[1] == outputs[2, 1]))
        ([5, 2, 8], True)
    """

    gates = 4
    state_size = 2

    def step(self, projected: tf.Tensor, state: State, recurrent: tf.Tensor) -> State:
        """One step; gates in the order input, forget, candidate, output."""
        output, cell = state
        gates = projected + self.product(output, recurrent)
        admit, keep, candidate, expose = tf.split(gates, 4, axis=1)
        cell = tf.sigmoid(keep) * cell + tf.sigmoid(admit) * tf.tanh(candidate)
        return tf.sigmoid(expose) * tf.tanh(cell), cell

    def _build_biases(self, columns: int) -> None:
        units = self.units

        def initialize(shape, dtype=None):  # the forget gate starts open: Jozefowicz et al. (2015)
            return tf.concat([tf.zeros([units], dtype), tf.ones([units], dtype), tf.zeros([2 * units], dtype)], 0)

        self.bias = add_weight(self, "bias", (columns,), initialize)

    def _held_gates(self) -> list[float]:
        return [-_SATURATED, _SATURATED, 0.0, 0.0]

    def _final(self, states: list[State], lengths: tf.Tensor | None) -> State:
        """The cell is held through padding, but the output gate is not: take the output of the last real step."""
        if lengths is None:
            return states[-1]
        outputs = tf.stack([state[0] for state in states], axis=1)
        return tf.gather(outputs, lengths, batch_dims=1), states[-1][1]


class GRU(Recurrent):
    """Gated recurrent unit, the reset gate applied after the product; state `(output,)`.

    Example:
        >>> import tensorflow as tf
        >>> layer = GRU(8)
        >>> outputs, (output,) = layer(tf.ones([5, 2, 4]), lengths=tf.constant([5, 3]))
        >>> outputs.shape.as_list(), bool(tf.reduce_all(output[1] == outputs[2, 1]))
        ([5, 2, 8], True)
    """

    gates = 3
    state_size = 1

    def step(self, projected: tf.Tensor, state: State, recurrent: tf.Tensor) -> State:
        """One step; gates in the order update (how much of the old state stays), reset, candidate."""
        (output,) = state
        update, reset, candidate = tf.split(projected, 3, axis=1)
        recurred = self.product(output, recurrent) + self.recurrent_bias.value
        update_recurred, reset_recurred, candidate_recurred = tf.split(recurred, 3, axis=1)
        stay = tf.sigmoid(update + update_recurred)
        candidate = tf.tanh(candidate + tf.sigmoid(reset + reset_recurred) * candidate_recurred)
        return (stay * output + (1.0 - stay) * candidate,)

    def _build_biases(self, columns: int) -> None:
        self.bias = add_weight(self, "bias", (columns,), "zeros")
        self.recurrent_bias = add_weight(self, "recurrent_bias", (columns,), "zeros")

    def _held_gates(self) -> list[float]:
        return [_SATURATED, 0.0, 0.0]
