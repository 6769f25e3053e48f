"""A part as a SavedModel: a process that has TensorFlow and not this package loads it and runs its passes.

Internal to `partition`. There is one function for each pass, with a trace for each part graph; TensorFlow picks the
trace by the shapes and the nests of what the function is called with.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from seq2split.engine.passes import Forward, Fused, Inference
from seq2split.engine.signature import differentiable

Nest = Any
Passes = dict[str, Forward | Fused | Inference]


class Exported(tf.Module):
    """What is saved: functions of the nests that the part takes and returns.

    Args:
        passes: For each part graph the specs of its inputs, and its traced passes by name.
        variables: The variables that get gradients.

    Attributes:
        forward: Takes the inputs; returns a dictionary of `outputs` and `residuals`.
        backward: Takes `residuals` and the cotangents of the outputs, `None` for those that are not differentiable;
            returns a dictionary of `inputs_ct` and `gradients`.
        value_and_gradients: Takes the inputs, and the loss's cotangent as a float64 scalar; returns a dictionary of
            `outputs`, `inputs_ct` and `gradients`.
        infer: Takes the inputs; returns the outputs.
        trained: The variables that get gradients, in the order of the gradients.
        read: All variables that the functions read or assign.
    """

    def __init__(self, passes: Sequence[tuple[tuple[Nest, ...], Passes]], variables: Sequence):
        super().__init__(name="part")
        self.trained = [getattr(variable, "value", variable) for variable in variables]
        found = {id(each): each for _, group in passes for traced in group.values() for each in traced.run.read}
        self.read = list(found.values())
        # Python holds them, TensorFlow must not try to save them.
        self._passes = SimpleNamespace(all=[(_shapes(specs), group) for specs, group in passes])
        for name in {name: None for _, group in passes for name in group}:
            self._add(name, [specs for specs, group in passes if name in group])

    def _add(self, name: str, inputs: list[tuple[Nest, ...]]) -> None:
        setattr(self, name, tf.function(getattr(self, f"_{name}"), autograph=False))
        if name == "forward":
            self.backward = tf.function(self._backward, autograph=False)
        for specs in inputs:
            scalar = [tf.TensorSpec([], tf.float64)] if name == "value_and_gradients" else []
            concrete = getattr(self, name).get_concrete_function(*specs, *scalar)
            if name == "forward":
                _, traced = self._find(name, specs)
                residuals = tf.nest.map_structure(_spec, concrete.structured_outputs["residuals"])
                self.backward.get_concrete_function(
                    residuals, tf.nest.map_structure(_cotangent, traced.outputs.structure)
                )

    def _find(self, name: str, inputs: tuple[Nest, ...]) -> tuple[str, Any]:
        """The number of the part graph that was built for such inputs, and its pass."""
        shapes = _shapes(inputs)
        return next((str(at), group[name]) for at, (own, group) in enumerate(self._passes.all) if own == shapes)

    def _forward(self, *inputs):
        number, traced = self._find("forward", inputs)
        flat = tf.nest.flatten(inputs)
        results = traced.run.within(flat)
        count = len(traced.outputs.specs)
        bound = traced.bind(flat, results[:count], results[count:])
        carried = [each for each, (kind, _) in zip(bound, traced.bindings, strict=True) if kind != "constant"]
        # The number tells the residuals of one part graph from those of another of the same shapes.
        return {"outputs": traced.outputs.pack(results[:count]), "residuals": {number: carried}}

    def _backward(self, residuals, outputs_ct):
        ((number, carried),) = residuals.items()
        traced, carried = self._passes.all[int(number)][1]["forward"], iter(carried)
        bound = [at if kind == "constant" else next(carried) for kind, at in traced.bindings]
        cotangents = [each for each in tf.nest.flatten(outputs_ct) if each is not None]
        return _gradients(traced, traced.backward.within(cotangents + bound))

    def _value_and_gradients(self, *inputs):
        _, traced = self._find("value_and_gradients", inputs[:-1])
        results = traced.run.within(tf.nest.flatten(inputs))
        count = len(traced.outputs.specs)
        return {"outputs": traced.outputs.pack(results[:count]), **_gradients(traced, results[count:])}

    def _infer(self, *inputs):
        _, traced = self._find("infer", inputs)
        return traced.outputs.pack(traced.run.within(tf.nest.flatten(inputs)))


def _shapes(inputs: tuple[Nest, ...]) -> list[tuple]:
    """What tells the inputs of one part graph from those of another."""
    return [(each.dtype, each.shape.as_list()) for each in tf.nest.flatten(inputs)]


def _gradients(traced: Forward | Fused, flat: list[tf.Tensor]) -> dict[str, Nest]:
    return dict(zip(("inputs_ct", "gradients"), traced.gradients.pack(flat), strict=True))


def _spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _cotangent(spec: tf.TensorSpec | None) -> tf.TensorSpec | None:
    return spec if spec is not None and differentiable(spec) else None
