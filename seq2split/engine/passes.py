"""The passes of a part graph: `infer`, `value_and_gradients`, and `forward` with its backward.

A pass is traced when it is made. It then holds graph functions over flat lists of tensors, and says what these lists
mean. While the body of a traced function runs, it notes on the pass what it finds out beside the tensors it returns.
The pass does not keep what it was traced from: it would hold the part graph that holds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from seq2split.common.compilation import tracing_for_xla
from seq2split.engine.backward import NestedBackward
from seq2split.engine.gradients import Gradient, GradientLayout, Tape
from seq2split.engine.graph_function import GraphFunction
from seq2split.engine.outputs import Outputs
from seq2split.engine.policies import Policy
from seq2split.engine.residual_plan import Binding, ResidualPlan
from seq2split.engine.residuals import ResidualSpec
from seq2split.engine.signature import Signature

Nest = Any
_unconverted = tf.autograph.experimental.do_not_convert  # the part alone is converted


@dataclass(frozen=True)
class TracingContext:
    """What a part graph gives its passes to be traced from.

    Attributes:
        call: The part: takes a tuple of arguments, and whether it trains; returns the outputs.
        inputs: The signature of the arguments.
        variables: Returns the variables that get gradients, when a trace begins.
        save: The save policy.
        jit_compile: True if XLA compiles the passes.
    """

    call: Callable[[tuple[Nest, ...], bool], Nest]
    inputs: Signature
    variables: Callable[[], list]
    save: Policy
    jit_compile: bool

    def trace(self, body: Callable, *further: tf.TensorSpec) -> Any:
        """Return the concrete function of a body that takes the flat inputs, and further tensors after them."""
        function = tf.function(body, jit_compile=self.jit_compile or None)
        with tracing_for_xla(self.jit_compile):
            return function.get_concrete_function(*self.inputs.specs, *further)


class Pass(ABC):
    """A traced pass.

    Args:
        context: What it is traced from.

    Attributes:
        name: The method of `PartGraph` that runs it, and the word for it in `Part.build(trace=...)`.
        outputs: The signature of what the part returns.
        run: The function of the flat inputs. Its results begin with the flat outputs.
    """

    name: ClassVar[str]
    outputs: Signature
    run: GraphFunction

    @abstractmethod
    def __init__(self, context: TracingContext): ...

    @property
    @abstractmethod
    def functions(self) -> list[GraphFunction]:
        """All functions that it runs."""

    def split(self, results: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Split the results of `run` into the flat outputs and what follows them."""
        count = len(self.outputs.specs)
        return results[:count], results[count:]


class InferencePass(Pass):
    """The part alone, with `training=False`."""

    name = "infer"

    def __init__(self, context: TracingContext):
        def body(*flat):
            return self._finish(context, context.call(context.inputs.pack(flat), False))

        self.run = GraphFunction.closed(context.trace(body), context.inputs.owner)

    @property
    def functions(self) -> list[GraphFunction]:
        """The one function."""
        return [self.run]

    @_unconverted
    def _finish(self, context: TracingContext, structure: Nest) -> list[tf.Tensor]:
        outputs = Outputs(structure, context.inputs.owner)
        self.outputs = outputs.signature
        return outputs.tensors


class LossPass(Pass):
    """Both passes of a part that returns a loss, in one graph.

    Its function takes after the inputs the cotangents of the loss and of the losses that layers add, two float64
    scalars, and returns outputs and gradients.

    Attributes:
        gradients: What the gradients mean that follow the outputs.
    """

    name = "value_and_gradients"
    gradients: GradientLayout

    def __init__(self, context: TracingContext):
        def body(*flat):
            *inputs, loss_ct, losses_ct = flat
            tape = Tape(inputs, context.variables(), context.inputs.owner)
            with tape.recording:
                tape.watch()
                structure = context.call(context.inputs.pack(inputs), True)
                return self._finish(context, tape, structure, loss_ct, losses_ct)

        concrete = context.trace(body, *[tf.TensorSpec([], tf.float64)] * 2)
        self.run = GraphFunction.closed(concrete, context.inputs.owner)

    @property
    def functions(self) -> list[GraphFunction]:
        """The one function."""
        return [self.run]

    @_unconverted
    def _finish(
        self, context: TracingContext, tape: Tape, structure: Nest, loss_ct: tf.Tensor, losses_ct: tf.Tensor
    ) -> list[tf.Tensor]:
        outputs = Outputs(structure, context.inputs.owner)
        targets = [outputs.loss(), *outputs.added]
        cotangents = zip((loss_ct, losses_ct), targets, strict=False)
        found = tape.gradients(targets, [tf.cast(each, target.dtype) for each, target in cotangents])
        self.outputs = outputs.signature
        self.gradients = GradientLayout(context.inputs, found, tape.variables)
        return outputs.tensors + GradientLayout.flatten(found)


class ForwardPass(Pass):
    """The forward, which returns outputs and residuals, and its backward.

    Attributes:
        backward: The function of the cotangents and of what is bound.
        gradients: What the results of the backward mean.
        bindings: Where the arguments of the backward after the cotangents come from.
    """

    name = "forward"
    backward: GraphFunction
    gradients: GradientLayout
    _plan: ResidualPlan

    def __init__(self, context: TracingContext):
        def body(*flat):
            tape = Tape(flat, context.variables(), context.inputs.owner)
            with tape.recording:
                tape.watch()
                structure = context.call(context.inputs.pack(flat), True)
                return self._finish(context, tape, structure, flat)

        concrete = context.trace(body)
        self.run = GraphFunction.closed(concrete, context.inputs.owner)
        self.bindings: tuple[Binding, ...] = self._plan.bindings(concrete)

    @property
    def functions(self) -> list[GraphFunction]:
        """The forward and its backward."""
        return [self.run, self.backward]

    @property
    def residual_specs(self) -> tuple[ResidualSpec, ...]:
        """What the backward is given."""
        return tuple(self._plan.specs.values())

    def bind(self, inputs: list[tf.Tensor], outputs: list[tf.Tensor], residuals: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return the arguments of the backward after the cotangents."""
        kinds = {"input": inputs, "output": outputs, "residual": residuals}
        return [source if kind == "constant" else kinds[kind][source] for kind, source in self.bindings]

    def held(self, residuals: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return those residuals that occupy memory of their own."""
        return [residuals[index] for index in self._plan.held]

    @_unconverted
    def _finish(
        self, context: TracingContext, tape: Tape, structure: Nest, flat: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        outputs = Outputs(structure, context.inputs.owner)
        found: list[Gradient] = []

        def gradients(*cotangents):
            found[:] = tape.gradients(outputs.differentiable, list(cotangents))
            return GradientLayout.flatten(found)

        nested = NestedBackward(gradients, outputs.differentiable, [*flat, *outputs.tensors], context.inputs.owner)
        assemble = nested.assemble_for_xla if context.jit_compile else nested.assemble
        self.backward, taken = assemble(context.save)
        self.outputs = outputs.signature
        self.gradients = GradientLayout(context.inputs, found, tape.variables)
        self._plan = ResidualPlan(list(flat), outputs.tensors, taken)
        if context.save.keeps_everything:
            self._plan.keep_everything(tf.compat.v1.get_default_graph())
        return outputs.tensors + self._plan.residuals


PASSES: dict[str, type[Pass]] = {kind.name: kind for kind in (ForwardPass, LossPass, InferencePass)}
"""The passes by the words of `Part.build(trace=...)`."""
