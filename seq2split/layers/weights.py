"""Weights that are read as they are stored."""

from __future__ import annotations

from collections.abc import Callable

import keras


def add_weight(
    layer: keras.Layer, name: str, shape: tuple[int, ...], initializer: str | Callable = "glorot_uniform"
) -> keras.Variable:
    """Adds a weight whose value has the variable dtype wherever it is read: our layers cast where they multiply.

    `autocast=False` of a layer isn't enough: Keras casts all the same where that layer is the outermost one called.
    """
    return layer.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)
