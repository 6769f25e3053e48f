"""Losses that the layers of a part add beside what it returns: `add_loss`, and regularizers of weights and outputs.

Keras's own `fit` adds them to the loss. Here they are an output of the part, so that its backward takes their cotangent
as that of any other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

Nest = Any


class WithLosses(NamedTuple):
    """What a `Part(..., losses=True)` returns.

    Attributes:
        outputs: What its callable returns.
        losses: The sum of the losses that its layers added, a scalar.

    Example:
        >>> from seq2split.engine import Part
        >>> layer = keras.layers.Dense(1, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.5))
        >>> graph = Part(layer, losses=True).build(tf.TensorSpec([2, 4], tf.float32))
        >>> (outputs, losses), residuals = graph.forward(tf.ones([2, 4]))
        >>> float(losses)
        2.0
        >>> inputs_ct, gradients = graph.backward(residuals, WithLosses(tf.zeros([2, 1]), 1.0))
        >>> gradients[0].numpy().ravel().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    outputs: Nest
    losses: tf.Tensor


def added_losses(owner: Any) -> list[tf.Tensor]:
    """Return what the layers of a Keras layer have added in the graph that is being traced.

    Args:
        owner: The layer; anything else adds nothing.
    """
    if not isinstance(owner, keras.Layer):
        return []
    graph = tf.compat.v1.get_default_graph()
    # A layer still holds what it added in another graph, where another method of it is another part.
    return [loss for loss in map(tf.convert_to_tensor, owner.losses) if getattr(loss, "graph", None) is graph]


def total(losses: list[tf.Tensor]) -> tf.Tensor:
    """Return the sum of losses as a scalar: float64 if one is, float32 otherwise."""
    dtype = tf.float64 if any(loss.dtype == tf.float64 for loss in losses) else tf.float32
    return tf.add_n([tf.zeros([], dtype), *(tf.reduce_sum(tf.cast(loss, dtype)) for loss in losses)])


def names_of_adding(owner: keras.Layer) -> list[str]:
    """Return the names of the layers that add losses, each the innermost that does."""
    layers = owner._flatten_layers()  # nothing public lists the layers in a layer
    return [
        layer.name
        for layer in layers
        if layer.losses and not any(inner.losses for inner in layer._flatten_layers(include_self=False))
    ]
