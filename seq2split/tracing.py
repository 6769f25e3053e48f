"""How the three passes of a part graph are traced: `forward` with its backward, `value_and_gradients`, and `infer`.

Internal to `partition`. A traced pass holds compiled functions over flat lists of tensors, and the plan that says which
forward tensor is bound to which argument of the backward; applying the plan takes a few lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import keras
import tensorflow as tf

from seq2split.policies import Policy
from seq2split.recomputation import Recipe, Region, recompute
from seq2split.residuals import ResidualPlan, ResidualSpec
from seq2split.signature import Signature, describe, differentiable

Nest = Any
Gradient = tf.Tensor | tf.IndexedSlices | None
Call = Callable[[tuple[Nest, ...]], Nest]
unconverted = tf.autograph.experimental.do_not_convert


class Compiled:
    """A concrete function over a flat list of tensors, called at the floor of what a call costs.

    `ConcreteFunction.__call__` takes 1.3 ms with 151 tensors, the raw operation 0.16 ms.
    """

    def __init__(self, concrete: Any, captured: list[tf.Tensor]):
        self._concrete = concrete  # the function lives as long as this object
        self._captured = captured
        self._dtypes = [tensor.dtype for tensor in concrete.outputs]
        self.variables = concrete.trainable_variables
        self.read = concrete.variables
        """All variables that it reads or assigns."""

    def __call__(self, flat: list[tf.Tensor]) -> list[tf.Tensor]:
        if not tf.executing_eagerly():
            raise RuntimeError(
                "a part graph was called while another graph is being traced; part graphs are called eagerly: take the "
                "call out of the surrounding tf.function"
            )
        with tf.init_scope():  # an outer gradient tape must not see the call
            return self.within(flat)

    def within(self, flat: list[tf.Tensor]) -> list[tf.Tensor]:
        """Calls it from whatever is being traced."""
        return tf.raw_ops.StatefulPartitionedCall(args=flat + self._captured, Tout=self._dtypes, f=self._concrete)


@dataclass(frozen=True)
class Inference:
    """The traced `infer`."""

    outputs: Signature
    run: Compiled


@dataclass(frozen=True)
class Fused:
    """The traced `value_and_gradients`: takes inputs and the loss's cotangent, returns outputs and gradients."""

    outputs: Signature
    run: Compiled
    gradients: GradientLayout


@dataclass(frozen=True)
class Forward:
    """The traced `forward` and its backward.

    A binding says where an argument of the backward after the cotangents comes from: `("input", i)`, `("output", i)`
    or `("residual", i)` of the forward, or `("constant", tensor)`.
    """

    outputs: Signature
    run: Compiled
    backward: Compiled
    gradients: GradientLayout
    bindings: tuple[tuple[str, Any], ...]
    residual_specs: tuple[ResidualSpec, ...]
    held_indices: tuple[int, ...]

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


def trace_inference(call: Call, inputs: Signature) -> Inference:
    """Traces `call` alone."""
    traced = SimpleNamespace()

    @unconverted
    def close(structure: Nest) -> list[tf.Tensor]:
        traced.outputs = _Outputs(structure, inputs.owner)
        return traced.outputs.tensors

    def body(*flat):
        return close(call(inputs.pack(flat)))

    concrete = tf.function(body).get_concrete_function(*inputs.specs)
    return Inference(traced.outputs.signature, Compiled(concrete, concrete.captured_inputs))


def trace_fused(call: Call, inputs: Signature, variables: Callable[[], list]) -> Fused:
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

    concrete = tf.function(body).get_concrete_function(*inputs.specs, tf.TensorSpec([], tf.float64))
    return Fused(traced.outputs, Compiled(concrete, concrete.captured_inputs), traced.gradients)


def trace_forward(call: Call, inputs: Signature, variables: Callable[[], list], policy: Policy) -> Forward:
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
        traced.backward, given = _with_policy(policy, nested, cotangents, [*flat, *outputs.tensors])
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

    concrete = tf.function(body).get_concrete_function(*inputs.specs)
    return Forward(
        traced.outputs,
        Compiled(concrete, concrete.captured_inputs),
        traced.backward,
        traced.gradients,
        traced.plan.bindings(concrete),
        tuple(traced.plan.specs.values()),
        tuple(traced.plan.held),
    )


def _with_policy(
    policy: Policy, backward: Any, cotangents: list[tf.TensorSpec], at_hand: list[tf.Tensor]
) -> tuple[Compiled, list[tf.Tensor]]:
    """The backward as a policy wants it, and the forward tensors that it takes after the cotangents."""
    captured = backward.captured_inputs
    recipe = policy.recipe(Region([each for each in captured if tf.is_symbolic_tensor(each)], at_hand))
    if not recipe.recomputed:
        return Compiled(backward, []), captured
    whole = tf.function(partial(_recompute_and_run, recipe, backward, len(cotangents)), autograph=False)
    concrete = whole.get_concrete_function(*cotangents, *map(_spec, recipe.given))
    return Compiled(concrete, concrete.captured_inputs), recipe.given


def _recompute_and_run(recipe: Recipe, backward: Any, count: int, *flat: tf.Tensor) -> list[tf.Tensor]:
    """Computes what the backward reads from what it is given, and runs it."""
    captured = backward.captured_inputs
    wanted = [each for each in captured if tf.is_symbolic_tensor(each)]
    found = iter(recompute(recipe, list(flat[count:]), wanted))
    read = [next(found) if tf.is_symbolic_tensor(each) else each for each in captured]
    dtypes = [each.dtype for each in backward.outputs]
    return tf.raw_ops.StatefulPartitionedCall(args=[*flat[:count], *read], Tout=dtypes, f=backward)


def _spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)
