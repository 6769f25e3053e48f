"""Weights that are read as they are stored."""

from __future__ import annotations

from collections.abc import Callable

import keras


def add_weight(
    layer: keras.Layer, name: str, shape: tuple[int, ...], initializer: str | Callable = "glorot_uniform"
) -> keras.Variable:
    """Add a weight whose value has the variable dtype wherever it is read: our layers cast where they multiply.

    `autocast=False` in the layer isn't enough: where that layer is the outermost one called, Keras casts all the same.
    """
    return layer.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)
