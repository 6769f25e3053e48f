"""What the methods of a part graph return. Each is a named tuple, so that it also unpacks."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from seq2split.engine.gradients import Gradient
from seq2split.engine.residuals import Residuals

Nest = Any


class ForwardResult(NamedTuple):
    """The result of `PartGraph.forward`.

    Attributes:
        outputs: What the part returns, in its nest.
        residuals: What the backward will read; used by one `PartGraph.backward`.

    Example:
        >>> from seq2split.engine import Part
        >>> graph = Part(tf.square, variables=[]).build(tf.TensorSpec([2], tf.float32))
        >>> result = graph.forward([1.0, 2.0] * tf.ones(2))
        >>> result.outputs.numpy().tolist(), result.residuals.consumed
        ([1.0, 4.0], False)
        >>> outputs, residuals = result
    """

    outputs: Nest
    residuals: Residuals


class BackwardResult(NamedTuple):
    """The result of `PartGraph.backward`.

    Attributes:
        inputs_ct: The input cotangents, a tuple with one nest for each argument (see `jax.vjp`); `None` where an input
            is not differentiable or the outputs don't depend on it.
        gradients: The gradients, aligned with `PartGraph.variables`: `tf.IndexedSlices` stay sparse, and `None` stands
            where there is no path.

    Example:
        >>> from seq2split.engine import Part
        >>> graph = Part(tf.square, variables=[]).build(tf.TensorSpec([2], tf.float32))
        >>> outputs, residuals = graph.forward([1.0, 2.0] * tf.ones(2))
        >>> result = graph.backward(residuals, tf.ones(2))
        >>> result.inputs_ct[0].numpy().tolist(), result.gradients
        ([2.0, 4.0], [])
        >>> inputs_ct, gradients = result
    """

    inputs_ct: tuple[Nest, ...]
    gradients: list[Gradient]


class LossResult(NamedTuple):
    """The result of `PartGraph.value_and_gradients`.

    Attributes:
        outputs: What the part returns, in its nest: the scalar loss, alone or as the first of several outputs.
        inputs_ct: The input cotangents, as in `BackwardResult`.
        gradients: The gradients, as in `BackwardResult`.

    Example:
        >>> from seq2split.engine import Part
        >>> part = Part(lambda x: {"loss": tf.reduce_sum(x * x)}, variables=[], name="loss")
        >>> result = part.build(tf.TensorSpec([2], tf.float32)).value_and_gradients([1.0, 2.0] * tf.ones(2))
        >>> float(result.loss), float(result.outputs["loss"]), result.inputs_ct[0].numpy().tolist()
        (5.0, 5.0, [2.0, 4.0])
        >>> outputs, inputs_ct, gradients = result
    """

    outputs: Nest
    inputs_ct: tuple[Nest, ...]
    gradients: list[Gradient]

    @property
    def loss(self) -> tf.Tensor:
        """The loss, a scalar: the first output."""
        return next(output for output in tf.nest.flatten(self.outputs) if output is not None)
