"""How the three passes of a part graph are traced: `forward` with its backward, `value_and_gradients`, and `infer`.

Internal to `partition`. A traced pass holds compiled functions over flat lists of tensors, and the plan that says which
forward tensor is bound to which argument of the backward; applying the plan takes a few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import keras
import tensorflow as tf

from seq2split.engine.graph_function import GraphFunction, compiled
from seq2split.engine.policies import Policy
from seq2split.engine.recomputation import Recipe, Region, recompute
from seq2split.engine.residuals import ResidualPlan, ResidualSpec
from seq2split.engine.signature import Signature, describe, differentiable
from seq2split.engine.tensor_lists import Crossing, TensorLists

Nest = Any
Gradient = tf.Tensor | tf.IndexedSlices | None
Call = Callable[[tuple[Nest, ...]], Nest]
_MEASURING = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")  # what reads no numbers
unconverted = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Inference:
    """The traced `infer`."""

    outputs: Signature
    run: GraphFunction

    @property
    def programs(self) -> list[GraphFunction]:
        """What it runs."""
        return [self.run]


@dataclass(frozen=True)
class Fused:
    """The traced `value_and_gradients`: takes inputs and the loss's cotangent, returns outputs and gradients."""

    outputs: Signature
    run: GraphFunction
    gradients: GradientLayout

    @property
    def programs(self) -> list[GraphFunction]:
        """What it runs."""
        return [self.run]


@dataclass(frozen=True)
class Forward:
    """The traced `forward` and its backward.

    A binding says where an argument of the backward after the cotangents comes from: `("input", i)`, `("output", i)`
    or `("residual", i)` of the forward, or `("constant", tensor)`.
    """

    outputs: Signature
    run: GraphFunction
    backward: GraphFunction
    gradients: GradientLayout
    bindings: tuple[tuple[str, Any], ...]
    residual_specs: tuple[ResidualSpec, ...]
    held_indices: tuple[int, ...]

    @property
    def programs(self) -> list[GraphFunction]:
        """What it runs."""
        return [self.run, self.backward]

    def bind(self, inputs: list[tf.Tensor], outputs: list[tf.Tensor], residuals: list[tf.Tensor]) -> list[tf.Tensor]:
        """The arguments of the backward after the cotangents."""
        sources = {"input": inputs, "output": outputs, "residual": residuals}
        return [at if kind == "constant" else sources[kind][at] for kind, at in self.bindings]

    def held(self, residuals: list[tf.Tensor]) -> list[tf.Tensor]:
        """Those residuals that occupy memory of their own."""
        return [residuals[index] for index in self.held_indices]


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
        """The tensors of a list of gradients."""
        flat: list[tf.Tensor] = []
        for gradient in gradients:
            if isinstance(gradient, tf.IndexedSlices):
                flat += [gradient.values, gradient.indices]
            elif gradient is not None:
                flat.append(gradient)
        return flat

    def pack(self, flat: list[tf.Tensor]) -> tuple[tuple[Nest, ...], list[Gradient]]:
        """Splits a flat list into input cotangents and gradients."""
        tensors = iter(flat)
        gradients: list[Gradient] = []
        for kind, dense_shape in zip(self._kinds, self._dense_shapes, strict=True):
            if kind is tf.IndexedSlices:
                gradients.append(tf.IndexedSlices(next(tensors), next(tensors), dense_shape))
            else:
                gradients.append(None if kind is None else next(tensors))
        count = len(self._inputs.specs)
        return self._inputs.pack(gradients[:count]), gradients[count:]


class _Outputs:
    """What a part returned while it is traced."""

    def __init__(self, structure: Nest, owner: str):
        leaves = [leaf if leaf is None else _tensor(leaf, owner) for leaf in tf.nest.flatten(structure)]
        specs = [leaf if leaf is None else _spec(leaf) for leaf in leaves]
        self.signature = Signature(tf.nest.pack_sequence_as(structure, specs), owner, "output")
        self.tensors = [leaf for leaf in leaves if leaf is not None]
        self.differentiable = [tensor for tensor in self.tensors if differentiable(tensor)]

    def loss(self) -> tf.Tensor:
        """The first output, which must be a scalar."""
        loss = self.tensors[0] if self.tensors else None
        if loss is None or loss.shape.rank != 0 or not differentiable(loss):
            raise ValueError(
                f"{self.signature.owner}: value_and_gradients takes a part that returns a scalar loss, alone or as the "
                f"first of several outputs; this one returns {describe(self.signature.structure)}. Reduce the loss to "
                "a scalar, or use forward and backward."
            )
        return loss


def _tensor(leaf: Any, owner: str) -> tf.Tensor:
    try:
        return tf.convert_to_tensor(leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{owner}: it returns a {type(leaf).__name__}; a part returns a nest of tensors. Return the dense "
            "components of a ragged or sparse tensor."
        ) from error


class _Gradients:
    """Records the forward on a tape, and takes its gradients."""

    def __init__(self, flat: tuple[tf.Tensor, ...], variables: list):
        self.variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        self._flat = flat
        self._inputs = [tensor for tensor in flat if differentiable(tensor)]
        # Only what is named is watched: a frozen variable must cost no residual.
        self.tape = tf.GradientTape(watch_accessed_variables=False)

    def watch(self) -> None:
        for source in self._inputs + self.variables:
            self.tape.watch(source)

    def of(self, outputs: list[tf.Tensor], cotangents: list[tf.Tensor]) -> list[Gradient]:
        """The gradients of `outputs`: one entry for each input and then for each variable."""
        sources = self._inputs + self.variables
        found = [None] * len(sources)
        if outputs and sources:
            found = self.tape.gradient(outputs, sources, output_gradients=cotangents)
        count = len(self._inputs)
        dense = iter([g if g is None else tf.convert_to_tensor(g) for g in found[:count]])
        return [next(dense) if differentiable(tensor) else None for tensor in self._flat] + found[count:]


def trace_inference(call: Call, inputs: Signature, jit_compile: bool) -> Inference:
    """Traces `call` alone."""
    traced = SimpleNamespace()

    @unconverted
    def close(structure: Nest) -> list[tf.Tensor]:
        traced.outputs = _Outputs(structure, inputs.owner)
        return traced.outputs.tensors

    def body(*flat):
        return close(call(inputs.pack(flat)))

    concrete = tf.function(body, jit_compile=jit_compile or None).get_concrete_function(*inputs.specs)
    return Inference(traced.outputs.signature, compiled(concrete, inputs.owner))


def trace_fused(call: Call, inputs: Signature, variables: Callable[[], list], jit_compile: bool) -> Fused:
    """Traces `call` and its backward into one graph, which takes the loss's cotangent as its last argument."""
    traced = SimpleNamespace()

    @unconverted
    def close(gradients: _Gradients, structure: Nest, loss_ct: tf.Tensor) -> list[tf.Tensor]:
        outputs = _Outputs(structure, inputs.owner)
        loss = outputs.loss()
        found = gradients.of([loss], [tf.cast(loss_ct, loss.dtype)])
        traced.outputs = outputs.signature
        traced.gradients = GradientLayout(inputs, found, gradients.variables)
        return outputs.tensors + GradientLayout.flatten(found)

    def body(*flat):
        gradients = _Gradients(flat[:-1], variables())
        with gradients.tape:
            gradients.watch()
            structure = call(inputs.pack(flat[:-1]))
            return close(gradients, structure, flat[-1])

    function = tf.function(body, jit_compile=jit_compile or None)
    concrete = function.get_concrete_function(*inputs.specs, tf.TensorSpec([], tf.float64))
    return Fused(traced.outputs, compiled(concrete, inputs.owner), traced.gradients)


def trace_forward(
    call: Call, inputs: Signature, variables: Callable[[], list], policy: Policy, jit_compile: bool
) -> Forward:
    """Traces `call`, and its backward as a function nested in it, whose captures become the residuals."""
    traced = SimpleNamespace()

    @unconverted
    def close(gradients: _Gradients, structure: Nest, flat: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        outputs = _Outputs(structure, inputs.owner)
        found: list[Gradient] = []

        def backward(*cotangents):
            found[:] = gradients.of(outputs.differentiable, list(cotangents))
            return GradientLayout.flatten(found)

        cotangents = [_spec(tensor) for tensor in outputs.differentiable]
        nested = tf.function(backward, autograph=False).get_concrete_function(*cotangents)
        traced.outputs = outputs.signature
        traced.gradients = GradientLayout(inputs, found, gradients.variables)
        at_hand = [*flat, *outputs.tensors]
        if jit_compile:
            recipe = policy.recipe(
                Region(_wanted(nested), at_hand, TensorLists(tf.compat.v1.get_default_graph()).dense_spec)
            )
            traced.backward, given = _assemble_compiled(recipe, nested, cotangents, inputs.owner)
        else:
            wanted, measured = _wanted_or_measured(nested, Region(_wanted(nested), at_hand))
            recipe = policy.recipe(Region(wanted, at_hand))
            traced.backward, given = _assemble(recipe, measured, nested, cotangents, inputs.owner)
        traced.plan = ResidualPlan(list(flat), outputs.tensors, given)
        if policy.keeps_everything:
            traced.plan.keep(tf.compat.v1.get_default_graph())
        return outputs.tensors + traced.plan.residuals

    def body(*flat):
        gradients = _Gradients(flat, variables())
        with gradients.tape:
            gradients.watch()
            structure = call(inputs.pack(flat))
            return close(gradients, structure, flat)

    concrete = tf.function(body, jit_compile=jit_compile or None).get_concrete_function(*inputs.specs)
    return Forward(
        traced.outputs,
        compiled(concrete, inputs.owner),
        traced.backward,
        traced.gradients,
        traced.plan.bindings(concrete),
        tuple(traced.plan.specs.values()),
        tuple(traced.plan.held),
    )


def _wanted(backward: Any) -> list[tf.Tensor]:
    """The forward tensors that a backward reads."""
    return [each for each in backward.captured_inputs if tf.is_symbolic_tensor(each)]


def _wanted_or_measured(backward: Any, region: Region) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Those forward tensors of which a backward reads the numbers, and those of which it reads nothing but the shape.

    The gradient of a sum is one that asks for shapes, where they are not static. What is free to keep is never among
    the latter.
    """
    inner = backward.inputs[len(backward.inputs) - len(backward.captured_inputs) :]
    returned = {tensor.ref() for tensor in backward.outputs}
    wanted, measured = [], []
    for tensor, placeholder in zip(backward.captured_inputs, inner, strict=True):
        if tf.is_symbolic_tensor(tensor):
            by_shape = all(operation.type in _MEASURING for operation in placeholder.consumers())
            by_shape &= placeholder.ref() not in returned and tensor.dtype.is_floating and tensor.shape.rank is not None
            (measured if by_shape and not region.is_free(tensor) else wanted).append(tensor)
    return wanted, measured


def _assemble(
    recipe: Recipe, measured: list[tf.Tensor], backward: Any, cotangents: list[tf.TensorSpec], owner: str
) -> tuple[GraphFunction, list[tf.Tensor]]:
    """The backward that follows a recipe, and the forward tensors that it takes after the cotangents.

    Of those that are only measured it takes the shapes, all in one tensor.
    """
    if not recipe.recomputed and not measured:
        return GraphFunction(backward, [], owner), backward.captured_inputs
    # int64, since TensorFlow keeps int32 results of a function where shapes aren't expected, and then refuses them.
    shapes = [tf.concat([tf.shape(tensor, tf.int64) for tensor in measured], 0)] if measured else []
    given, count = [*recipe.given, *shapes], len(cotangents)

    def run(*flat):
        unfilled = _unfilled(measured, flat[-1]) if measured else {}
        return _recompute_and_run(recipe, backward, flat[:count], flat[count : count + len(recipe.given)], unfilled)

    whole = tf.function(run, autograph=False)
    return compiled(whole.get_concrete_function(*cotangents, *map(_spec, given)), owner), given


def _unfilled(measured: list[tf.Tensor], shapes: tf.Tensor) -> dict[Any, tf.Tensor]:
    """For each reference of a tensor one of its shape, whose memory nobody writes or reads."""
    each = tf.split(tf.cast(shapes, tf.int32), [tensor.shape.rank for tensor in measured])
    pairs = zip(measured, each, strict=True)
    return {tensor.ref(): tf.raw_ops.Empty(shape=shape, dtype=tensor.dtype) for tensor, shape in pairs}


def _assemble_compiled(
    recipe: Recipe, backward: Any, cotangents: list[tf.TensorSpec], owner: str
) -> tuple[GraphFunction, list[tf.Tensor]]:
    """As `_assemble`, as a program of XLA's: what it takes has crossed from the forward's."""
    crossing = Crossing(recipe.given, owner)
    count = len(cotangents)

    def run(*flat):
        return _recompute_and_run(recipe, backward, flat[:count], crossing.arrive(flat[count:]), {})

    whole = tf.function(run, autograph=False, jit_compile=True)
    return compiled(whole.get_concrete_function(*cotangents, *map(_spec, crossing.given)), owner), crossing.given


def _recompute_and_run(
    recipe: Recipe,
    backward: Any,
    cotangents: Sequence[tf.Tensor],
    given: Sequence[tf.Tensor],
    known: Mapping[Any, tf.Tensor],
) -> list[tf.Tensor]:
    """Computes what the backward reads from what it is given, but for what is known by reference, and runs it."""
    wanted = [tensor for tensor in _wanted(backward) if tensor.ref() not in known]
    found = dict(zip((tensor.ref() for tensor in wanted), recompute(recipe, list(given), wanted), strict=True))
    found |= known
    read = [found[each.ref()] if tf.is_symbolic_tensor(each) else each for each in backward.captured_inputs]
    dtypes = [each.dtype for each in backward.outputs]
    called = tf.raw_ops.StatefulPartitionedCall(args=[*cotangents, *read], Tout=dtypes, f=backward)
    return called if dtypes else []  # without outputs an operation comes back


def _spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)
