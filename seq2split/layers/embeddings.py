"""The embeddings of pieces or places, a layer's own or shared with another."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.layers.multi_head_attention import sinusoids
from seq2split.layers.weights import add_weight


def add_embeddings(layer: keras.Layer, count: int, units: int, name: str = "embeddings") -> keras.Variable:
    """Adds a table `[count, units]`, normal, so that a row has a length of about 1."""
    return add_weight(layer, name, (count, units), keras.initializers.RandomNormal(stddev=units**-0.5))


def own_or_shared(layer: keras.Layer, count: int, units: int, shared: keras.Variable | None) -> keras.Variable:
    """The embeddings of a layer.

    Args:
        layer: The layer.
        count: Number of pieces.
        units: Size of an embedding.
        shared: Those of another layer; `None` for new ones. A shared variable stands in two parts, and gets one summed
            gradient.

    Returns:
        A table `[count, units]`.

    Raises:
        ValueError: The shared ones have another shape.
    """
    if shared is None:
        return add_embeddings(layer, count, units)
    if tuple(shared.shape) != (count, units):
        raise ValueError(
            f"{type(layer).__name__}: the shared embeddings have the shape {tuple(shared.shape)}, and it needs "
            f"{(count, units)}; give all sides one vocabulary, and embeddings of one size."
        )
    return shared


class Positions(NamedTuple):
    """How places enter the embeddings: a table of what was learned, or none for sinusoids."""

    table: keras.Variable | None

    @classmethod
    def of(cls, layer: keras.Layer, kind: str, longest: int, units: int) -> Positions:
        """Those of a layer; `kind` is `sinusoidal` or `learned`."""
        check_choice(f"{type(layer).__name__}: positions", kind, ("sinusoidal", "learned"))
        learned = kind == "learned"
        return cls(add_embeddings(layer, longest, units, "positions") if learned else None)

    def embed(self, embeddings: tf.Tensor, pieces: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """The embeddings `[rows, time, units]` of pieces `[rows, time]`, scaled, with those of places `[time]`."""
        units = embeddings.shape[1]
        values = tf.gather(embeddings, pieces) * tf.constant(units**0.5, embeddings.dtype)
        if self.table is None:
            return values + sinusoids(places, units, embeddings.dtype)
        scale = tf.constant(units**0.5, embeddings.dtype)
        return values + tf.gather(self.table.value, places) * scale
