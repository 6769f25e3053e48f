"""The gradients of a part: taken by a tape while it is traced, and put in order when it has run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from seq2split.engine.python_functions import differentiated
from seq2split.engine.signature import Signature, differentiable
from seq2split.engine.variables import unwrapped

Nest = Any
Gradient = tf.Tensor | tf.IndexedSlices | None


class Tape:
    """A gradient tape over a part's inputs and variables, for the graph that is being traced.

    Args:
        inputs: The input tensors.
        variables: The variables that get gradients.
        owner: Who errors speak of, such as `part 'encoder'`.

    Attributes:
        recording: The `tf.GradientTape`, to be entered around the part.
        variables: The variables as TensorFlow's.
    """

    def __init__(self, inputs: Sequence[tf.Tensor], variables: list, owner: str):
        self._owner = owner
        self.variables = [unwrapped(variable) for variable in variables]
        self._inputs = inputs
        self._sources = [tensor for tensor in inputs if differentiable(tensor)] + self.variables
        # Only what is named is watched: a frozen variable must cost no residual.
        self.recording = tf.GradientTape(watch_accessed_variables=False)

    def watch(self) -> None:
        """Watch the inputs and variables."""
        for source in self._sources:
            self.recording.watch(source)

    def gradients(self, outputs: list[tf.Tensor], cotangents: list[tf.Tensor]) -> list[Gradient]:
        """Return the gradients of the outputs: one entry for each input and then for each variable.

        Raises:
            ValueError: They would flow through a `tf.py_function`.
        """
        found: list[Gradient] = [None] * len(self._sources)
        if outputs and self._sources:
            graph = tf.compat.v1.get_default_graph()
            before = differentiated(graph)
            found = self.recording.gradient(outputs, self._sources, output_gradients=cotangents)
            self._check_no_python(differentiated(graph) - before)
        count = len(self._sources) - len(self.variables)
        dense = iter([g if g is None else tf.convert_to_tensor(g) for g in found[:count]])
        return [next(dense) if differentiable(tensor) else None for tensor in self._inputs] + found[count:]

    def _check_no_python(self, differentiated: set[str]) -> None:
        if differentiated:
            raise ValueError(
                f"{self._owner}: gradients would flow through a tf.py_function, which TensorFlow differentiates by the "
                "tape of its last run, whichever forward the backward belongs to. Compute it with TensorFlow's "
                "operations, give it a backward with tf.custom_gradient, or stop the gradient before it with "
                "tf.stop_gradient."
            )


class GradientLayout:
    """What a flat list of gradient tensors means: cotangents in the nest of the inputs, and gradients of variables.

    Args:
        inputs: The signature of the inputs.
        gradients: One for each input and then for each variable, as the tape returned them.
        variables: The variables.
    """

    def __init__(self, inputs: Signature, gradients: list[Gradient], variables: list[tf.Variable]):
        self._inputs = inputs
        self._kinds = [None if gradient is None else type(gradient) for gradient in gradients]
        with tf.init_scope():
            shapes = [tf.constant(variable.shape.as_list(), tf.int64) for variable in variables]
        self._dense_shapes = [None] * len(inputs.specs) + shapes

    @staticmethod
    def flatten(gradients: list[Gradient]) -> list[tf.Tensor]:
        """Return the tensors of a list of gradients."""
        flat: list[tf.Tensor] = []
        for gradient in gradients:
            if isinstance(gradient, tf.IndexedSlices):
                flat += [gradient.values, gradient.indices]
            elif gradient is not None:
                flat.append(gradient)
        return flat

    def pack(self, flat: list[tf.Tensor]) -> tuple[tuple[Nest, ...], list[Gradient]]:
        """Split a flat list into input cotangents and gradients."""
        tensors = iter(flat)
        gradients: list[Gradient] = []
        for kind, dense_shape in zip(self._kinds, self._dense_shapes, strict=True):
            if kind is tf.IndexedSlices:
                gradients.append(tf.IndexedSlices(next(tensors), next(tensors), dense_shape))
            else:
                gradients.append(None if kind is None else next(tensors))
        count = len(self._inputs.specs)
        return self._inputs.pack(gradients[:count]), gradients[count:]
