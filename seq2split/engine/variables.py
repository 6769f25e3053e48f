"""Variables of Keras and of TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf


def unwrapped(variable: tf.Variable | keras.Variable) -> tf.Variable:
    """Return the TensorFlow variable that a variable of Keras wraps, and any other as it is."""
    return variable.value if isinstance(variable, keras.Variable) else variable
