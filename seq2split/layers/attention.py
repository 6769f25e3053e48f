"""Attention of a decoder over the encoder's outputs, masked so that padding never changes a result.

Sources: Luong et al. (2015), https://arxiv.org/abs/1508.04025 (the `general` score); Bahdanau et al. (2015),
https://arxiv.org/abs/1409.0473 (the additive score).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.layers.configuration import constructor_arguments
from seq2split.layers.masks import additive_mask
from seq2split.layers.weights import add_weight

_unconverted = tf.autograph.experimental.do_not_convert


class AttentionMemory(NamedTuple):
    """An encoder's outputs, prepared once for all queries.

    Attributes:
        values: The outputs, `[rows, time, features]`, in the compute dtype.
        keys: Their projections, which the score compares with a query, `[rows, time, units]`.
        mask: The mask that is added to the scores, `[rows, 1, time]`: a large negative number at padding, or zero.
    """

    values: tf.Tensor
    keys: tf.Tensor
    mask: tf.Tensor


class Attention(keras.Layer):
    """The base of `LuongAttention` and `BahdanauAttention`.

    Args:
        units: The size of a query.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.
    """

    def __init__(self, units: int, **options):
        super().__init__(autocast=False, **options)
        self.units = units

    def build(self, input_shape):
        """Create the weights for an encoder's outputs `[rows, time, features]`."""
        self.kernel = add_weight(self, "kernel", (input_shape[-1], self.units))
        self._build_score()

    @_unconverted
    def prepare(self, values: tf.Tensor, lengths: tf.Tensor) -> AttentionMemory:
        """Project an encoder's outputs once for all queries.

        Args:
            values: The outputs, `[rows, time, features]`.
            lengths: The real positions of each row, `[rows]`, integers.

        Returns:
            What queries attend to.
        """
        if not self.built:
            self.build(values.shape)
        values = tf.cast(values, self.compute_dtype)
        keys = tf.einsum("rtf,fu->rtu", values, tf.cast(self.kernel.value, self.compute_dtype))
        real = tf.sequence_mask(lengths, tf.shape(values)[1])[:, None]
        return AttentionMemory(values, keys, additive_mask(real, self.variable_dtype))

    @_unconverted
    def call(
        self, queries: tf.Tensor, attended: AttentionMemory, score_weights: Sequence[tf.Tensor] | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attend to an encoder's outputs.

        Args:
            queries: `[rows, queries, units]`.
            attended: The prepared outputs.
            score_weights: What the method `score_weights` returned, for whoever attends in a loop; by default it is
                called.

        Returns:
            One context for each query, `[rows, queries, features]`, and the attention weights,
            `[rows, queries, time]`, exactly zero at padding; both in the variable dtype.
        """
        score_weights = self.score_weights() if score_weights is None else score_weights
        scores = self._scores(tf.cast(queries, self.compute_dtype), attended.keys, *score_weights)
        weights = tf.nn.softmax(tf.cast(scores, self.variable_dtype) + attended.mask)
        contexts = tf.cast(tf.matmul(tf.cast(weights, self.compute_dtype), attended.values), self.variable_dtype)
        return contexts, weights

    def get_config(self) -> dict:
        """Return what the layer was made with."""
        return super().get_config() | constructor_arguments(self)

    @abstractmethod
    def score_weights(self) -> list[tf.Tensor]:
        """Return the values of the weights that a query is scored with: those beside `kernel`."""

    @abstractmethod
    def _build_score(self) -> None:
        """Create the weights beside `kernel`."""

    @abstractmethod
    def _scores(self, queries: tf.Tensor, keys: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        """Score each of `queries [rows, queries, units]` against each of `keys [rows, time, units]`."""


@keras.saving.register_keras_serializable(package="seq2split")
class LuongAttention(Attention):
    """Multiplicative attention of any number of queries at once.

    Args:
        units: The size of a query.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Example:
        >>> import tensorflow as tf
        >>> attention = LuongAttention(units=8)
        >>> attended = attention.prepare(tf.ones([2, 5, 6]), tf.constant([5, 3]))
        >>> contexts, weights = attention(tf.ones([2, 4, 8]), attended)
        >>> contexts.shape.as_list(), weights.shape.as_list()
        ([2, 4, 6], [2, 4, 5])
    """

    def score_weights(self) -> list[tf.Tensor]:
        """Return nothing: the score is a product."""
        return []

    def _build_score(self) -> None:
        pass

    def _scores(self, queries: tf.Tensor, keys: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        return tf.matmul(queries, keys, transpose_b=True)


@keras.saving.register_keras_serializable(package="seq2split")
class BahdanauAttention(Attention):
    """Additive attention.

    Its scores take a tensor `[rows, queries, time, units]`, so it is meant for one query at a time.

    Args:
        units: The size of a query.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Example:
        >>> import tensorflow as tf
        >>> attention = BahdanauAttention(units=8)
        >>> attended = attention.prepare(tf.ones([2, 5, 6]), tf.constant([5, 3]))
        >>> contexts, weights = attention(tf.ones([2, 1, 8]), attended)
        >>> contexts.shape.as_list(), weights[1, 0, 3:].numpy().tolist()
        ([2, 1, 6], [0.0, 0.0])
    """

    def _build_score(self) -> None:
        self.query_kernel = add_weight(self, "query_kernel", (self.units, self.units))
        self.bias = add_weight(self, "bias", (self.units,), "zeros")
        self.score = add_weight(self, "score", (self.units, 1))

    def score_weights(self) -> list[tf.Tensor]:
        """Return the values of the query's kernel, the bias and the score."""
        return [tf.convert_to_tensor(weight.value) for weight in (self.query_kernel, self.bias, self.score)]

    def _scores(self, queries: tf.Tensor, keys: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        query_kernel, bias, score = weights
        projected = tf.einsum("rqu,uv->rqv", queries, tf.cast(query_kernel, self.compute_dtype))
        projected = tf.cast(projected, self.variable_dtype) + bias
        hidden = tf.tanh(projected[:, :, None] + tf.cast(keys, self.variable_dtype)[:, None])
        return tf.einsum("rqtu,u->rqt", hidden, score[:, 0])
