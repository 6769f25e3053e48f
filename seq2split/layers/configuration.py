"""What Keras writes of a layer, so that a saved one can be made again."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

import keras


def constructor_arguments(layer: keras.Layer, *omitted: str) -> dict[str, Any]:
    """Return the arguments that a layer was made with, for its `get_config`.

    Args:
        layer: A layer that keeps each named argument of its constructor as an attribute of the same name.
        *omitted: The names of arguments that are left out, and so have their defaults again.

    Returns:
        The arguments by name; those of `keras.Layer` (`**options`) are not among them.
    """
    parameters = signature(type(layer).__init__).parameters.values()
    names = [each.name for each in parameters if each.kind is not Parameter.VAR_KEYWORD][1:]  # but for self
    return {name: getattr(layer, name) for name in names if name not in omitted}
