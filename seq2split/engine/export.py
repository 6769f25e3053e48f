"""A part as a SavedModel: a process that has TensorFlow and not this package loads it and runs its passes.

There is one function for each pass, with a trace for each part graph; TensorFlow picks the trace by the shapes and the
nests of what the function is called with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from seq2split.engine.part_graph import PartGraph
from seq2split.engine.passes import PASSES, ForwardPass, InferencePass, LossPass, Pass
from seq2split.engine.resources import find_resources
from seq2split.engine.signature import differentiable, tensor_spec
from seq2split.engine.variables import unwrapped

Nest = Any
P = TypeVar("P", bound=Pass)


class Exported(tf.Module):
    """What is saved: functions of the nests that the part takes and returns.

    Args:
        fn: The callable that they were traced from, which holds the lookup tables that it reads.
        graphs: The part graphs. `infer`, and `forward` unless `value_and_gradients` takes its place, are traced where
            they have not been.

    Attributes:
        forward: Takes the inputs; returns a dictionary of `outputs` and `residuals`.
        backward: Takes `residuals` and the cotangents of the outputs, `None` for those that are not differentiable;
            returns a dictionary of `inputs_ct` and `gradients`.
        value_and_gradients: Takes the inputs, and the loss's cotangent as a float64 scalar (that of losses that layers
            add is 1); returns a dictionary of `outputs`, `inputs_ct` and `gradients`.
        infer: Takes the inputs; returns the outputs.
        trained: The variables that get gradients, in the order of the gradients.
        read: All variables that the functions read or assign.
        resources: The lookup tables that the functions read.

    Raises:
        ValueError: The functions read a resource that nothing is known to hold.
    """

    def __init__(self, fn: Callable, graphs: Sequence[PartGraph]):
        super().__init__(name="part")
        for graph in graphs:
            graph.trace(*([] if LossPass in graph.passes else ["forward"]), "infer")
        self.trained = [unwrapped(variable) for variable in graphs[0].variables]
        found = {id(each): each for graph in graphs for traced in graph.passes.values() for each in traced.run.read}
        self.read = list(found.values())
        self.resources = find_resources(fn)
        self._check_resources(graphs)
        self._graphs = _Graphs(graphs)
        for kind in PASSES.values():
            self._add(kind, [graph for graph in graphs if kind in graph.passes])

    def _check_resources(self, graphs: Sequence[PartGraph]) -> None:
        known = {id(each.handle) for each in self.read} | {id(each.resource_handle) for each in self.resources}
        functions = [each for graph in graphs for traced in graph.passes.values() for each in traced.functions]
        for captured in (each for function in functions for each in function.concrete.captured_inputs):
            if captured.dtype == tf.resource and not tf.is_symbolic_tensor(captured) and id(captured) not in known:
                raise ValueError(
                    f"part {graphs[0].name!r} reads a resource that isn't known to be held by it, such as a lookup "
                    f"table: {captured}. Make it an attribute of the layer or tf.Module that is the part, so "
                    "that it can be saved."
                )

    def _add(self, kind: type[Pass], graphs: list[PartGraph]) -> None:
        """Add the function of a pass, with a trace for each part graph that has it."""
        if not graphs:
            return
        function = tf.function(getattr(self, f"_{kind.name}"), autograph=False)
        setattr(self, kind.name, function)
        further = [tf.TensorSpec([], tf.float64)] if kind is LossPass else []
        traces = [function.get_concrete_function(*graph.input_specs, *further) for graph in graphs]
        if kind is ForwardPass:
            self.backward = tf.function(self._backward, autograph=False)
            for graph, trace in zip(graphs, traces, strict=True):
                residuals = tf.nest.map_structure(tensor_spec, trace.structured_outputs["residuals"])
                outputs_ct = tf.nest.map_structure(_cotangent, graph.output_specs)
                self.backward.get_concrete_function(residuals, outputs_ct)

    def _forward(self, *inputs):
        number, traced = self._graphs.find(ForwardPass, inputs)
        flat = tf.nest.flatten(inputs)
        outputs, kept = traced.split(traced.run.within(flat))
        bound = zip(traced.bind(flat, outputs, kept), traced.bindings, strict=True)
        carried = [tensor for tensor, binding in bound if binding.kind != "constant"]
        # The number tells the residuals of one part graph from those of another of the same shapes.
        return {"outputs": traced.outputs.pack(outputs), "residuals": {str(number): carried}}

    def _backward(self, residuals, outputs_ct):
        ((number, carried),) = residuals.items()
        traced, carried = self._graphs[int(number)].passes[ForwardPass], iter(carried)
        bound = [source if kind == "constant" else next(carried) for kind, source in traced.bindings]
        cotangents = [each for each in tf.nest.flatten(outputs_ct) if each is not None]
        return _gradients(traced, traced.backward.within(cotangents + bound))

    def _value_and_gradients(self, *inputs):
        _, traced = self._graphs.find(LossPass, inputs[:-1])
        outputs, gradients = traced.split(traced.run.within([*tf.nest.flatten(inputs), tf.ones([], tf.float64)]))
        return {"outputs": traced.outputs.pack(outputs), **_gradients(traced, gradients)}

    def _infer(self, *inputs):
        _, traced = self._graphs.find(InferencePass, inputs)
        return traced.outputs.pack(traced.run.within(tf.nest.flatten(inputs)))


class _Graphs:
    """The part graphs by their inputs' shapes. Python holds them here, so that TensorFlow does not try to save them."""

    def __init__(self, graphs: Sequence[PartGraph]):
        self._graphs = list(graphs)

    def __getitem__(self, number: int) -> PartGraph:
        return self._graphs[number]

    def find(self, kind: type[P], inputs: tuple[Nest, ...]) -> tuple[int, P]:
        """Return the number of the part graph that was built for such inputs, and its pass."""
        shapes = _shapes(inputs)
        return next(
            (number, graph.passes[kind])
            for number, graph in enumerate(self._graphs)
            if kind in graph.passes and _shapes(graph.input_specs) == shapes
        )


def _shapes(inputs: tuple[Nest, ...]) -> list[tuple]:
    """Return what tells the inputs of one part graph from those of another."""
    return [(each.dtype, each.shape.as_list()) for each in tf.nest.flatten(inputs)]


def _gradients(traced: ForwardPass | LossPass, flat: list[tf.Tensor]) -> dict[str, Nest]:
    return dict(zip(("inputs_ct", "gradients"), traced.gradients.pack(flat), strict=True))


def _cotangent(spec: tf.TensorSpec | None) -> tf.TensorSpec | None:
    return spec if spec is not None and differentiable(spec) else None
