"""The embeddings of pieces, a layer's own or shared with another."""

from __future__ import annotations

import keras

from seq2split.layers.weights import add_weight


def add_embeddings(layer: keras.Layer, count: int, units: int, name: str = "embeddings") -> keras.Variable:
    """Add a table `[count, units]`, normal, so that a row has a length of about 1."""
    return add_weight(layer, name, (count, units), keras.initializers.RandomNormal(stddev=units**-0.5))


def own_or_shared(layer: keras.Layer, count: int, units: int, shared: keras.Variable | None) -> keras.Variable:
    """Return the embeddings of a layer.

    Args:
        layer: The layer, to which new embeddings are added.
        count: The number of pieces.
        units: The size of an embedding.
        shared: The embeddings of another layer; `None` for new ones. A shared variable belongs to two parts, and gets
            one gradient, their sum.

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


def check_own(layer: keras.Layer, shared: bool) -> None:
    """Check that the configuration of a layer says all that is needed to make it again.

    Args:
        layer: The layer.
        shared: Whether its embeddings are those of another layer.

    Raises:
        ValueError: They are.
    """
    if shared:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} uses the embeddings of another layer, which its configuration "
            "cannot name, so that it can't be saved in a .keras file. Make the layers again in code, with "
            "embeddings=..., and load their weights (tf.train.Checkpoint); or give it embeddings of its own, with "
            "embeddings=None."
        )
