"""Attention of a decoder over the encoder's outputs, masked so that padding never changes a result.

Sources: Luong et al. (2015), https://arxiv.org/abs/1508.04025 (the `general` score); Bahdanau et al. (2015),
https://arxiv.org/abs/1409.0473 (the additive score).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.layers.masks import additive_mask
from seq2split.layers.weights import add_weight

_unconverted = tf.autograph.experimental.do_not_convert


class AttentionMemory(NamedTuple):
    """What attention reads of the encoder, prepared once.

    Attributes:
        values: `[rows, time, features]`.
        keys: What the score compares with the query, `[rows, time, units]`.
        mask: What is added to the scores, `[rows, 1, time]`: zero, or a large negative number at padding.
    """

    values: tf.Tensor
    keys: tf.Tensor
    mask: tf.Tensor


class Attention(keras.Layer):
    """The base of `LuongAttention` and `BahdanauAttention`.

    Args:
        units: Size of a query.
        **options: Of `keras.Layer`, such as `dtype` and `name`.
    """

    def __init__(self, units: int, **options):
        super().__init__(autocast=False, **options)
        self.units = units

    def build(self, input_shape):
        """Creates the weights for a memory `[rows, time, features]`."""
        self.kernel = add_weight(self, "kernel", (input_shape[-1], self.units))
        self._build_score()

    @_unconverted
    def prepare(self, values: tf.Tensor, lengths: tf.Tensor) -> AttentionMemory:
        """Projects the memory once for all queries: `values [rows, time, features]`, `lengths [rows]`."""
        values = tf.cast(values, self.compute_dtype)
        keys = tf.einsum("rtf,fu->rtu", values, tf.cast(self.kernel.value, self.compute_dtype))
        real = tf.sequence_mask(lengths, tf.shape(values)[1])[:, None]
        return AttentionMemory(values, keys, additive_mask(real, self.variable_dtype))

    @_unconverted
    def call(self, queries: tf.Tensor, memory: AttentionMemory) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads the memory.

        Args:
            queries: `[rows, queries, units]`.
            memory: As prepared.

        Returns:
            One context for each query, `[rows, queries, features]`, and the share that each position of the memory has
            in it, `[rows, queries, time]`, exactly zero at padding.
        """
        scores = self._scores(tf.cast(queries, self.compute_dtype), memory.keys)
        weights = tf.nn.softmax(tf.cast(scores, self.variable_dtype) + memory.mask)
        contexts = tf.cast(tf.matmul(tf.cast(weights, self.compute_dtype), memory.values), self.variable_dtype)
        return contexts, weights

    @abstractmethod
    def _build_score(self) -> None:
        """Creates the weights beside `kernel`."""

    @abstractmethod
    def _scores(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """How well each of `queries [rows, queries, units]` fits each of `keys [rows, time, units]`."""


class LuongAttention(Attention):
    """Multiplicative attention of any number of queries at once."""

    def _build_score(self) -> None:
        pass  # the score is a product

    def _scores(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        return tf.matmul(queries, keys, transpose_b=True)


class BahdanauAttention(Attention):
    """Additive attention; its score takes `[rows, queries, time, units]` of memory, so it is meant for one query."""

    def _build_score(self) -> None:
        self.query_kernel = add_weight(self, "query_kernel", (self.units, self.units))
        self.bias = add_weight(self, "bias", (self.units,), "zeros")
        self.score = add_weight(self, "score", (self.units, 1))

    def _scores(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        projected = tf.einsum("rqu,uv->rqv", queries, tf.cast(self.query_kernel.value, self.compute_dtype))
        projected = tf.cast(projected, self.variable_dtype) + self.bias.value
        hidden = tf.tanh(projected[:, :, None] + tf.cast(keys, self.variable_dtype)[:, None])
        return tf.einsum("rqtu,u->rqt", hidden, self.score.value[:, 0])
