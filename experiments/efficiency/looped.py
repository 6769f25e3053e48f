"""Recurrent layers for lengths that no graph knows."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from seq2split.layers import Recurrent
from seq2split.layers.recurrence import State
from seq2split.models import RecurrentEncoder


class Looped:
    """A recurrent layer in a `tf.while_loop`. The product of its inputs is still one for all steps, before the loop.

    Args:
        layer: The layer, whose weights and step these are; it runs forwards.
    """

    def __init__(self, layer: Recurrent):
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __call__(
        self, inputs: tf.Tensor, lengths: tf.Tensor | None = None, state: State | None = None
    ) -> tuple[tf.Tensor, State]:
        """Run all steps, as the layer does; the time of `inputs [time, rows, features]` may be unknown."""
        layer = self._layer
        time, rows = tf.shape(inputs)[0], tf.shape(inputs)[1]
        projected = layer.product(inputs, layer.kernel.value) + layer.bias.value
        if lengths is not None:
            padding = 1.0 - tf.transpose(tf.sequence_mask(lengths, time, layer.variable_dtype))
            projected += padding[:, :, None] * layer.holding_bias()
        recurrent = layer.recurrent_weights()
        first = tuple(layer.zero_state(rows) if state is None else state)

        def body(step: tf.Tensor, state: State, outputs: tf.TensorArray) -> tuple:
            state = layer.step(steps.read(step), state, recurrent)
            return step + 1, state, outputs.write(step, state[0])

        steps = tf.TensorArray(layer.variable_dtype, time).unstack(projected)
        outputs = tf.TensorArray(layer.variable_dtype, time, element_shape=[None, layer.units])
        _, final, outputs = tf.while_loop(
            lambda step, *_: step < time, body, (0, first, outputs), maximum_iterations=time
        )
        outputs = outputs.stack()
        return outputs, final if lengths is None else layer.final_state(outputs, final, first, lengths)


def loop(encoder: keras.Layer, decoder: keras.Layer) -> None:
    """Put the recurrent layers of a model into loops; a Transformer has none, and takes unknown lengths as it is."""
    if not isinstance(encoder, RecurrentEncoder):
        return
    encoder.stack = [[Looped(layer) for layer in directions] for directions in encoder.stack]
    decoder.stack = [Looped(layer) for layer in decoder.stack]
