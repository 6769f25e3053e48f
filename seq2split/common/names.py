"""What variables are called."""

from typing import Any


def variable_path(variable: Any) -> str:
    """Return the path of a Keras variable, such as `encoder/dense/kernel`, or the name of a TensorFlow one."""
    return getattr(variable, "path", variable.name.removesuffix(":0"))
