"""One layer of a Transformer's encoder or decoder.

Sources: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762; Xiong et al. (2020), https://arxiv.org/abs/2002.04745,
for normalization before each sublayer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.layers.configuration import constructor_arguments
from seq2split.layers.dropout import NO_DROPOUT, DropoutMasks
from seq2split.layers.layer_normalization import LayerNormalization
from seq2split.layers.multi_head_attention import KeysValues, MultiHeadAttention

_unconverted = tf.autograph.experimental.do_not_convert
NORMS = ("pre", "post")


class LayerOutputs(NamedTuple):
    """What a layer returns.

    Attributes:
        values: `[rows, time, units]`, in the variable dtype.
        keys_values: The keys and values of its self-attention, of all positions so far.
        weights: The weights of each cross-attention; `[rows, heads, time, source time]`, or in a search
            `[sentences, heads, width, source time]`.
    """

    values: tf.Tensor
    keys_values: KeysValues
    weights: list[tf.Tensor]


@keras.saving.register_keras_serializable(package="seq2split")
class TransformerLayer(keras.Layer):
    """Self-attention, a cross-attention to each encoder, and the feed-forward layer.

    Args:
        units: The size of its inputs and outputs.
        heads: The number of heads of each attention.
        feedforward: The size of the feed-forward layer's activations.
        encoded_dims: The size of each encoder's outputs; none in an encoder.
        norm: `pre` normalizes what enters a sublayer, `post` the sum with what leaves it.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: There is no such `norm`, or the units cannot be divided among the heads.

    Example:
        >>> import tensorflow as tf
        >>> layer = TransformerLayer(units=8, heads=2, feedforward=16)
        >>> layer(tf.ones([3, 5, 8])).values.shape.as_list()
        [3, 5, 8]
    """

    def __init__(
        self,
        units: int,
        heads: int,
        feedforward: int,
        encoded_dims: Sequence[int] = (),
        norm: str = "pre",
        **options,
    ):
        super().__init__(autocast=False, **options)
        check_choice("norm", norm, NORMS)
        self.units, self.heads, self.feedforward = units, heads, feedforward
        self.encoded_dims, self.norm = tuple(encoded_dims), norm
        dtype = {"dtype": self.dtype_policy}
        self.self_attention = MultiHeadAttention(units, heads, name="self_attention", **dtype)
        self.cross_attentions = [
            MultiHeadAttention(units, heads, size, name=f"cross_attention{place + 1 if place else ''}", **dtype)
            for place, size in enumerate(encoded_dims)
        ]
        self.feedforward_in = keras.layers.Dense(feedforward, "relu", name="feedforward_in", **dtype)
        self.feedforward_out = keras.layers.Dense(units, name="feedforward_out", **dtype)
        self.self_attention_norm = LayerNormalization(name="self_attention_norm", **dtype)
        self.cross_attention_norms = [
            LayerNormalization(name=f"{attention.name}_norm", **dtype) for attention in self.cross_attentions
        ]
        self.feedforward_norm = LayerNormalization(name="feedforward_norm", **dtype)

    def build(self, input_shape):
        """Create the weights for inputs `[rows, time, units]`."""
        norms = (self.self_attention_norm, *self.cross_attention_norms, self.feedforward_norm)
        for layer in (self.self_attention, *self.cross_attentions, self.feedforward_in, *norms):
            layer.build(input_shape)
        self.feedforward_out.build((None, self.feedforward))

    @_unconverted
    def call(
        self,
        values: tf.Tensor,
        mask: tf.Tensor | None = None,
        encoded: Sequence[tuple[KeysValues, tf.Tensor]] = (),
        cache: KeysValues | None = None,
        *,
        masks: DropoutMasks = NO_DROPOUT,
    ) -> LayerOutputs:
        """Run the sublayers.

        Args:
            values: `[rows, time, units]`, in the variable dtype.
            mask: The mask of the self-attention.
            encoded: For each cross-attention its keys and values, and their mask.
            cache: In a search, the keys and values of earlier positions, which the self-attention reads as well. Then
                `encoded` has an entry for each sentence, which serves as many rows as there are for each.
            masks: The dropout.

        Returns:
            The outputs, and what a search and a picture need.
        """
        searches, weights = cache is not None, []

        def attend_to_self(inputs: tf.Tensor) -> tf.Tensor:
            nonlocal cache
            queries, keys_values = self.self_attention.project(inputs)
            if cache is not None:
                pairs = zip(cache, keys_values, strict=True)
                keys_values = KeysValues(*(tf.concat([earlier, new], 2) for earlier, new in pairs))
            cache = keys_values
            return self.self_attention(queries, cache, mask, drop=masks.attention)[0]

        def attend_to_encoder(attention: MultiHeadAttention, attended: tuple, inputs: tf.Tensor) -> tf.Tensor:
            attend = _attend_together if searches else _attend
            outputs, found = attend(attention, *attended, masks.attention, inputs)
            weights.append(found)
            return outputs

        def feed_forward(inputs: tf.Tensor) -> tf.Tensor:
            return self.feedforward_out(masks.activation(self.feedforward_in(inputs)))

        values = self._sublayer(attend_to_self, self.self_attention_norm, values, masks)
        crossing = zip(self.cross_attentions, encoded, self.cross_attention_norms, strict=True)
        for attention, attended, norm in crossing:
            values = self._sublayer(partial(attend_to_encoder, attention, attended), norm, values, masks)
        return LayerOutputs(self._sublayer(feed_forward, self.feedforward_norm, values, masks), cache, weights)

    def get_config(self) -> dict:
        """Return what the layer was made with."""
        return super().get_config() | constructor_arguments(self)

    def _sublayer(
        self, function: Callable, norm: LayerNormalization, values: tf.Tensor, masks: DropoutMasks
    ) -> tf.Tensor:
        added = function(norm(values) if self.norm == "pre" else values)
        values += masks.residual(tf.cast(added, self.variable_dtype))
        return values if self.norm == "pre" else norm(values)


def _attend(
    attention: MultiHeadAttention, attended: KeysValues, mask: tf.Tensor, drop: Callable, inputs: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Attend to an encoder with inputs `[rows, time, units]`."""
    return attention(attention.project_queries(inputs), attended, mask, drop=drop)


def _attend_together(
    attention: MultiHeadAttention, attended: KeysValues, mask: tf.Tensor, drop: Callable, inputs: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Attend with one position a row, several rows to a sentence: they become its queries.

    So an encoder's keys and values are read once for all hypotheses of a sentence, and never repeated.
    """
    sentences = tf.shape(attended.keys)[0]
    together = tf.reshape(inputs, [sentences, -1, inputs.shape[-1]])
    outputs, weights = _attend(attention, attended, mask, drop, together)
    return tf.reshape(outputs, [-1, 1, inputs.shape[-1]]), weights
