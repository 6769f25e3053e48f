"""The end of a decoder: the projection of its features onto the target vocabulary, and the losses.

Sources: Press and Wolf (2017), https://arxiv.org/abs/1608.05859, for tied embeddings; Szegedy et al. (2016),
https://arxiv.org/abs/1512.00567, for label smoothing.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.layers.cross_entropy import projected_cross_entropy, projected_logits
from seq2split.layers.weights import add_weight


class Losses(NamedTuple):
    """The losses of a batch, each a scalar in nats, summed over the real positions of the target.

    Attributes:
        loss: The loss that is minimized; in training its labels are smoothed.
        nll: The negative log-likelihood, which is only reported.
    """

    loss: tf.Tensor
    nll: tf.Tensor


class OutputProjection:
    """The last weights of a decoder.

    Args:
        layer: The decoder, to which the weights are added.
        embeddings: The embeddings of target pieces, `[vocabulary, units]`.
        units: The size of the features.
        tied: Whether the embeddings are the kernel; otherwise it is a weight of its own.
        label_smoothing: The probability that is spread over all pieces, in training only.

    Attributes:
        kernel: `[vocabulary, units]`.
        bias: `[vocabulary]`.
    """

    def __init__(
        self, layer: keras.Layer, embeddings: keras.Variable, units: int, *, tied: bool, label_smoothing: float
    ):
        vocabulary = embeddings.shape[0]
        self.kernel = embeddings if tied else add_weight(layer, "output_projection", (vocabulary, units))
        self.bias = add_weight(layer, "output_bias", (vocabulary,), "zeros")
        self._label_smoothing, self._compute_dtype = label_smoothing, layer.compute_dtype

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        """Return the logits `[rows, vocabulary]` of features `[rows, units]`."""
        return projected_logits(features, self.kernel.value, self.bias.value, self._compute_dtype)

    def losses(self, features: tf.Tensor, labels: tf.Tensor, real: tf.Tensor, training: bool) -> Losses:
        """Return the losses of a batch, whose positions stand in any order.

        Args:
            features: The features that predict each label, `[..., units]`.
            labels: The target's pieces, `[...]`, integers.
            real: Whether each is no padding, `[...]`, booleans.
            training: Whether to smooth labels.

        Returns:
            Their sums.
        """
        losses = projected_cross_entropy(
            tf.reshape(features, [-1, features.shape[-1]]),
            self.kernel.value,
            self.bias.value,
            tf.reshape(labels, [-1]),
            smoothing=self._label_smoothing if training else 0.0,
            compute_dtype=self._compute_dtype,
        )
        weights = tf.reshape(tf.cast(real, features.dtype), [-1])
        return Losses(*(tf.reduce_sum(loss * weights) for loss in losses))


def shifted(labels: tf.Tensor, bos: int, axis: int) -> tf.Tensor:
    """Return the piece before each label.

    Args:
        labels: The target's pieces, `[rows, time]` or `[time, rows]`, integers.
        bos: The piece that stands before the first.
        axis: The axis of time.

    Returns:
        Pieces of the same shape.

    Example:
        >>> import tensorflow as tf
        >>> shifted(tf.constant([[7, 8, 3]]), bos=2, axis=1).numpy().tolist()
        [[2, 7, 8]]
    """
    first, earlier = (labels[:1], labels[:-1]) if axis == 0 else (labels[:, :1], labels[:, :-1])
    return tf.concat([tf.fill(tf.shape(first), tf.cast(bos, labels.dtype)), earlier], axis)
