"""One layer of a Transformer's encoder or decoder, with its dropout.

Sources: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762; Xiong et al. (2020), https://arxiv.org/abs/2002.04745.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.layers.dropout import dropout
from seq2split.layers.multi_head_attention import KeysValues, LayerNormalization, MultiHeadAttention

_unconverted = tf.autograph.experimental.do_not_convert
NORMS = ("pre", "post")
Drop = Callable[[tf.Tensor, int], tf.Tensor]


class DropoutRates(NamedTuple):
    """Shares of values that are dropped in training.

    Attributes:
        residual: Of the embeddings, and of what each sublayer adds.
        attention: Of the attention weights.
        activation: Of the feed-forward layer's inner activations.
    """

    residual: float = 0.0
    attention: float = 0.0
    activation: float = 0.0


class DropoutMasks:
    """The dropout of one group of rows, each mask another.

    Attributes:
        weights: Of each attention so far, `[rows, heads, queries, time]`, nothing dropped.
    """

    def __init__(self, rates: DropoutRates, training: bool, seed: int, pieces: tf.Tensor, weights: tf.Tensor):
        self._masks, self.weights = 0, []
        self.residual, self._attention, self.activation = (
            self._numbered(dropout(rate * training, seed, pieces, weights)) for rate in rates
        )

    def attention(self, weights: tf.Tensor) -> tf.Tensor:
        """Drops attention weights."""
        self.weights.append(weights)
        return self._attention(weights)

    def _numbered(self, drop: Drop) -> Callable[[tf.Tensor], tf.Tensor]:
        def numbered(values: tf.Tensor) -> tf.Tensor:
            self._masks += 1
            return drop(values, self._masks)

        return numbered


class TransformerLayer(keras.Layer):
    """One layer of either: attention to itself, to each memory, and the feed-forward layer.

    Args:
        units: Size of its inputs and outputs.
        heads: Of each attention.
        feedforward: Inner size of the feed-forward layer.
        memories: The size of each memory that it attends to.
        norm: `pre` or `post`.
        **options: Of `keras.Layer`.

    Raises:
        ValueError: There is no such `norm`, or the units cannot be divided among the heads.
    """

    def __init__(self, units: int, heads: int, feedforward: int, memories: Sequence[int], norm: str, **options):
        super().__init__(autocast=False, **options)
        check_choice("norm", norm, NORMS)
        self.norm = norm
        dtype = {"dtype": self.dtype_policy}
        self.own = MultiHeadAttention(units, heads, name="own", **dtype)
        self.others = [
            MultiHeadAttention(units, heads, memory, name=f"memory{place + 1 if place else ''}", **dtype)
            for place, memory in enumerate(memories)
        ]
        self.inner = keras.layers.Dense(feedforward, "relu", name="inner", **dtype)
        self.outer = keras.layers.Dense(units, name="outer", **dtype)
        names = ["own_norm", *(f"{other.name}_norm" for other in self.others), "feedforward_norm"]
        self.norms = [LayerNormalization(name=name, **dtype) for name in names]

    def build(self, input_shape):
        """Creates the weights for inputs `[rows, time, units]`."""
        for layer in (self.own, *self.others, self.inner, *self.norms):
            with keras.name_scope(layer.name):
                layer.build(input_shape)
        with keras.name_scope(self.outer.name):
            self.outer.build((None, self.inner.units))

    @_unconverted
    def call(
        self,
        values: tf.Tensor,
        mask: tf.Tensor | None,
        memories: Sequence[tuple[KeysValues, tf.Tensor]],
        seen: KeysValues | None = None,
        *,
        drops: DropoutMasks,
    ) -> tuple[tf.Tensor, KeysValues]:
        """Runs the sublayers.

        Args:
            values: `[rows, time, units]`.
            mask: Of the attention to itself.
            memories: Keys and values of each memory, and its mask.
            seen: In a search, keys and values of earlier positions, which it attends to as well; then several rows may
                share a memory.
            drops: The dropout.

        Returns:
            `[rows, time, units]`, and the keys and values of all positions so far.
        """
        shared = seen is not None

        def attend(inputs):
            nonlocal seen
            queries, own = self.own.project(inputs)
            if seen is not None:
                own = KeysValues(*(tf.concat([old, new], 2) for old, new in zip(seen, own, strict=True)))
            seen = own
            return self.own(queries, own, mask, drop=drops.attention)

        values = self._sublayer(0, attend, values, drops)
        for place, (other, memory) in enumerate(zip(self.others, memories, strict=True), start=1):
            read = partial(_read_together if shared else _read, other, *memory, drops.attention)
            values = self._sublayer(place, read, values, drops)
        return self._sublayer(-1, lambda inputs: self.outer(drops.activation(self.inner(inputs))), values, drops), seen

    def _sublayer(self, place: int, function: Callable, values: tf.Tensor, drops: DropoutMasks) -> tf.Tensor:
        norm = self.norms[place]
        added = function(norm(values) if self.norm == "pre" else values)
        values += drops.residual(tf.cast(added, self.variable_dtype))
        return values if self.norm == "pre" else norm(values)


def _read(
    other: MultiHeadAttention, attended: KeysValues, mask: tf.Tensor, drop: Callable, inputs: tf.Tensor
) -> tf.Tensor:
    """What inputs `[rows, time, units]` read of a memory."""
    return other(other.project_queries(inputs), attended, mask, drop=drop)


def _read_together(
    other: MultiHeadAttention, attended: KeysValues, mask: tf.Tensor, drop: Callable, inputs: tf.Tensor
) -> tf.Tensor:
    """As `_read`, of one position a row, where several rows share a memory: they become its queries."""
    sentences = tf.shape(attended.keys)[0]
    together = tf.reshape(inputs, [sentences, -1, inputs.shape[-1]])
    return tf.reshape(_read(other, attended, mask, drop, together), [-1, 1, inputs.shape[-1]])
