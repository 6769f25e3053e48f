"""Recurrent layers for static lengths: unrolled, one input projection for all steps, padding that changes nothing.

The equations and weight layouts are those of `keras.layers.LSTM` and `keras.layers.GRU(reset_after=True)`, so weights
can be exchanged with them. Keras multiplies the input by its kernel at each step and selects the old state by a mask at
each step; here the product is taken once over all steps, and padding is held off by the gates themselves: a large
constant in the projected input closes the gates that let a step in, so that the state passes through a padded step bit
for bit, and no step pays for it.

How the steps are unrolled, and their gradient, stand in `unroll`.

Layers are time-major, `[time, rows, features]`, because a step is then a contiguous block. Matrix products run in the
compute dtype of the layer's policy, and everything between them in its variable dtype.

Sources: Hochreiter and Schmidhuber (1997), "Long short-term memory"; Cho et al. (2014),
https://arxiv.org/abs/1406.1078.
"""

from __future__ import annotations

from abc import abstractmethod

import keras
import tensorflow as tf

from seq2split.layers.recurrence import unroll
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
    recurrent_bias: keras.Variable | None = None
    """What is added to the product with the old output, where it is not added to that with the input."""

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
        # In reverse padding comes first, and an LSTM holds a given output through it only if that is zero: run over the
        # real steps turned round.
        turned = self.reverse and lengths is not None and state is not None
        backwards = self.reverse and not turned
        if turned:
            inputs = tf.reverse_sequence(inputs, lengths, seq_axis=0, batch_axis=1)
        padding = None if lengths is None else self._padding(lengths, inputs.shape[0])
        state = self.zero_state(tf.shape(inputs)[1]) if state is None else state
        inputs = tf.cast(inputs, self.variable_dtype)
        outputs, final = unroll(self, inputs, padding, state, backwards)
        if lengths is not None and not backwards:
            final = self._final(outputs, final, state, lengths)
        if turned:
            outputs = tf.reverse_sequence(outputs, lengths, seq_axis=0, batch_axis=1)
        return outputs, final

    def zero_state(self, rows: tf.Tensor) -> State:
        """A state of zeros."""
        return (tf.zeros([rows, self.units], self.variable_dtype),) * self.state_size

    def step(self, projected: tf.Tensor, state: State, recurrent: tf.Tensor) -> State:
        """One step.

        Args:
            projected: The input's share of the pre-activations, `[rows, gates * units]`.
            state: The state before it.
            recurrent: The recurrent kernel in the compute dtype.

        Returns:
            The state after it.
        """
        recurred = self.product(state[0], recurrent)
        if self.recurrent_bias is not None:
            recurred += self.recurrent_bias.value
        return self.advance(projected, recurred, state)[0]

    def weight_values(self) -> list[tf.Tensor]:
        """Those of the kernel, its bias, the recurrent kernel and, where there is one, its bias."""
        weights = (self.kernel, self.bias, self.recurrent_kernel, self.recurrent_bias)
        return [tf.convert_to_tensor(weight.value) for weight in weights if weight is not None]

    @abstractmethod
    def advance(self, projected: tf.Tensor, recurred: tf.Tensor, state: State) -> tuple[State, State]:
        """The forward of one step.

        Args:
            projected: The input's share of the pre-activations, `[rows, gates * units]`.
            recurred: The old output's share, likewise.
            state: The state before it.

        Returns:
            The state after it, and what `retreat` reads.
        """

    @abstractmethod
    def retreat(self, saved: State, state_ct: State) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor | None, ...]]:
        """The backward of one step.

        Args:
            saved: As of `advance`.
            state_ct: The cotangent of the state after it.

        Returns:
            The cotangents of `projected`, of `recurred`, and of the state before it, but for what goes through
            `recurred`; `None` where nothing is left.
        """

    @abstractmethod
    def _build_biases(self, columns: int) -> None:
        """Creates `bias` and any other."""

    @abstractmethod
    def _held_gates(self) -> list[float]:
        """For each gate, what keeps the state when it is added to the pre-activation."""

    def _final(self, outputs: tf.Tensor, final: State, initial: State, lengths: tf.Tensor) -> State:
        """The state after the last real step, of which padding has held all that it can."""
        return final

    def _padding(self, lengths: tf.Tensor, time: int) -> tf.Tensor:
        """Ones at padded steps, `[time, rows]`."""
        return 1.0 - tf.transpose(tf.sequence_mask(lengths, time, self.variable_dtype))

    def hold(self) -> tf.Tensor:
        """What holds the state through a step when it is added to the pre-activations, `[gates * units]`."""
        return tf.repeat(tf.constant(self._held_gates(), self.variable_dtype), self.units)

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

    def advance(self, projected: tf.Tensor, recurred: tf.Tensor, state: State) -> tuple[State, State]:
        """As of the base; gates in the order input, forget, candidate, output."""
        _, cell = state
        admit, keep, candidate, expose = tf.split(projected + recurred, 4, axis=1)
        admit, keep, candidate, expose = tf.sigmoid(admit), tf.sigmoid(keep), tf.tanh(candidate), tf.sigmoid(expose)
        after = keep * cell + admit * candidate
        squashed = tf.tanh(after)
        return (expose * squashed, after), (cell, admit, keep, candidate, expose, squashed)

    def retreat(self, saved: State, state_ct: State) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor | None, ...]]:
        """As of the base."""
        cell, admit, keep, candidate, expose, squashed = saved
        output_ct, after_ct = state_ct
        after_ct += tf.raw_ops.TanhGrad(y=squashed, dy=output_ct * expose)
        gates_ct = tf.concat(
            [
                tf.raw_ops.SigmoidGrad(y=admit, dy=after_ct * candidate),
                tf.raw_ops.SigmoidGrad(y=keep, dy=after_ct * cell),
                tf.raw_ops.TanhGrad(y=candidate, dy=after_ct * admit),
                tf.raw_ops.SigmoidGrad(y=expose, dy=output_ct * squashed),
            ],
            axis=1,
        )
        return gates_ct, gates_ct, (None, after_ct * keep)

    def _build_biases(self, columns: int) -> None:
        units = self.units

        def initialize(shape, dtype=None):  # the forget gate starts open: Jozefowicz et al. (2015)
            return tf.concat([tf.zeros([units], dtype), tf.ones([units], dtype), tf.zeros([2 * units], dtype)], 0)

        self.bias = add_weight(self, "bias", (columns,), initialize)

    def _held_gates(self) -> list[float]:
        return [-_SATURATED, _SATURATED, 0.0, 0.0]

    def _final(self, outputs: tf.Tensor, final: State, initial: State, lengths: tf.Tensor) -> State:
        """The cell is held through padding, but the output gate is not: take the output of the last real step."""
        last = tf.stack([tf.maximum(lengths - 1, 0), tf.range(tf.shape(lengths)[0], dtype=lengths.dtype)], axis=1)
        return tf.where(lengths[:, None] > 0, tf.gather_nd(outputs, last), initial[0]), final[1]


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

    def advance(self, projected: tf.Tensor, recurred: tf.Tensor, state: State) -> tuple[State, State]:
        """As of the base; gates in the order update (how much of the old state stays), reset, candidate."""
        (output,) = state
        stay, reset, candidate = tf.split(projected, 3, axis=1)
        stay_recurred, reset_recurred, candidate_recurred = tf.split(recurred, 3, axis=1)
        stay, reset = tf.sigmoid(stay + stay_recurred), tf.sigmoid(reset + reset_recurred)
        candidate = tf.tanh(candidate + reset * candidate_recurred)
        return (stay * output + (1.0 - stay) * candidate,), (output, stay, reset, candidate, candidate_recurred)

    def retreat(self, saved: State, state_ct: State) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor | None, ...]]:
        """As of the base."""
        output, stay, reset, candidate, candidate_recurred = saved
        (output_ct,) = state_ct
        stay_ct = tf.raw_ops.SigmoidGrad(y=stay, dy=output_ct * (output - candidate))
        candidate_ct = tf.raw_ops.TanhGrad(y=candidate, dy=output_ct * (1.0 - stay))
        reset_ct = tf.raw_ops.SigmoidGrad(y=reset, dy=candidate_ct * candidate_recurred)
        projected_ct = tf.concat([stay_ct, reset_ct, candidate_ct], axis=1)
        recurred_ct = tf.concat([stay_ct, reset_ct, candidate_ct * reset], axis=1)
        return projected_ct, recurred_ct, (output_ct * stay,)

    def _build_biases(self, columns: int) -> None:
        self.bias = add_weight(self, "bias", (columns,), "zeros")
        self.recurrent_bias = add_weight(self, "recurrent_bias", (columns,), "zeros")

    def _held_gates(self) -> list[float]:
        return [_SATURATED, 0.0, 0.0]
