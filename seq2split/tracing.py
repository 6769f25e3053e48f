"""How the three passes of a part graph are traced: `forward` with its backward, `value_and_gradients`, and `infer`.

Internal to `partition`. A traced pass holds compiled functions over flat lists of tensors, and the plan that says which
forward tensor is bound to which argument of the backward; applying the plan takes a few lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import keras
import tensorflow as tf

from seq2split.signature import Signature, describe, differentiable

Nest = Any
Gradient = tf.Tensor | tf.IndexedSlices | None
Call = Callable[[tuple[Nest, ...]], Nest]
unconverted = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class ResidualSpec:
    """One forward tensor that the backward reads.

    Attributes:
        name: The tensor's name in the forward.
        kind: `computed` by the forward and kept in memory for the backward; or, costing no memory of its own, the
            value of a `variable`, an `input`, an `output`, or of another residual in another shape (`alias`).
        shape: Its static shape.
        dtype: Its dtype.
        nbytes: Its size in bytes; `None` where a dimension is unknown or the tensor is a list that a loop wrote.
    """

    name: str
    kind: str
    shape: tf.TensorShape
    dtype: tf.DType
    nbytes: int | None


class Compiled:
    """A concrete function over a flat list of tensors, called at the floor of what a call costs.

    `ConcreteFunction.__call__` takes 1.3 ms with 151 tensors, the raw operation 0.16 ms.
    """

    def __init__(self, concrete: Any, captured: list[tf.Tensor]):
        self._concrete = concrete  # the function lives as long as this object
        self._captured = captured
        self._dtypes = [tensor.dtype for tensor in concrete.outputs]
        self.variables = concrete.trainable_variables

    def __call__(self, flat: list[tf.Tensor]) -> list[tf.Tensor]:
        if not tf.executing_eagerly():
            raise RuntimeError(
                "a part graph was called while another graph is being traced; part graphs are called eagerly: take the "
                "call out of the surrounding tf.function"
            )
        with tf.init_scope():  # an outer gradient tape must not see the call
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
    computed_indices: tuple[int, ...]

    def bind(self, inputs: list[tf.Tensor], outputs: list[tf.Tensor], residuals: list[tf.Tensor]) -> list[tf.Tensor]:
        """The arguments of the backward after the cotangents."""
        sources = {"input": inputs, "output": outputs, "residual": residuals}
        return [at if kind == "constant" else sources[kind][at] for kind, at in self.bindings]

    def computed(self, residuals: list[tf.Tensor]) -> list[tf.Tensor]:
        """Those residuals that occupy memory of their own."""
        return [residuals[index] for index in self.computed_indices]


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


def trace_forward(call: Call, inputs: Signature, variables: Callable[[], list]) -> Forward:
    """Traces `call`, and its backward as a function nested in it, whose captures become the residuals."""
    traced = SimpleNamespace()

    @unconverted
    def close(gradients: _Gradients, structure: Nest, flat: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        outputs = _Outputs(structure, inputs.owner)
        found: list[Gradient] = []

        def backward(*cotangents):
            found[:] = gradients.of(outputs.differentiable, list(cotangents))
            return GradientLayout.flatten(found)

        nested = tf.function(backward, autograph=False)
        traced.backward = nested.get_concrete_function(*[_spec(tensor) for tensor in outputs.differentiable])
        traced.outputs = outputs.signature
        traced.gradients = GradientLayout(inputs, found, gradients.variables)
        traced.plan = _Plan(list(flat), outputs.tensors, traced.backward.captured_inputs)
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
        Compiled(traced.backward, []),
        traced.gradients,
        traced.plan.bindings(concrete),
        tuple(traced.plan.specs.values()),
        tuple(traced.plan.computed),
    )


class _Plan:
    """Decides, for each tensor that the backward captures, where its value comes from.

    Inputs and outputs are at hand, constants and variable handles are bound once, and the rest are residuals that the
    forward returns.

    Args:
        inputs: The forward's input tensors.
        outputs: Its output tensors.
        captured: What the backward captured: eager tensors, or symbolic ones of the forward.
    """

    def __init__(self, inputs: list[tf.Tensor], outputs: list[tf.Tensor], captured: list[tf.Tensor]):
        self.residuals: list[tf.Tensor] = []
        self.computed: list[int] = []
        self.specs: dict[Any, ResidualSpec] = {}
        self._known: dict[Any, tuple[str, Any]] = {}
        self._sources = _Sources()
        for kind, tensors in (("output", outputs), ("input", inputs)):  # an input passed through counts as input
            self._known |= {self._sources.origin(tensor).ref(): (kind, index) for index, tensor in enumerate(tensors)}
        self._roots = {self._sources.root(ref.deref()).ref(): kind for ref, (kind, _) in self._known.items()}
        self._bindings = [self._bind(tensor) for tensor in captured]

    def bindings(self, concrete: Any) -> tuple[tuple[str, Any], ...]:
        """The bindings, with the forward's own captures replaced by the tensors that it captured."""
        held = concrete.captured_inputs
        placeholders = concrete.inputs[len(concrete.inputs) - len(held) :]
        external = dict(zip((tensor.name for tensor in placeholders), held, strict=True))
        return tuple(("constant", external[at]) if kind == "capture" else (kind, at) for kind, at in self._bindings)

    def _bind(self, tensor: tf.Tensor) -> tuple[str, Any]:
        if not tf.is_symbolic_tensor(tensor):
            return "constant", tensor
        origin = self._sources.origin(tensor)
        if origin.ref() not in self._known:
            self._known[origin.ref()] = self._place(origin)
        kind, at = self._known[origin.ref()]
        if kind in ("input", "output"):
            self._note(origin, kind)
        return kind, at

    def _place(self, origin: tf.Tensor) -> tuple[str, Any]:
        if origin.op.type == "Placeholder":
            return "capture", origin.name
        value = tf.get_static_value(origin)
        if value is not None:
            with tf.init_scope():
                return "constant", tf.constant(value, origin.dtype)
        self._note(origin, self._kind(origin))
        if self.specs[origin.ref()].kind == "computed":
            self.computed.append(len(self.residuals))
        self.residuals.append(origin)
        return "residual", len(self.residuals) - 1

    def _kind(self, origin: tf.Tensor) -> str:
        root = self._sources.root(origin)
        if root.op.type == "ReadVariableOp":
            return "variable"
        kind = self._roots.get(root.ref(), "computed")
        self._roots.setdefault(root.ref(), "alias")
        return kind

    def _note(self, origin: tf.Tensor, kind: str) -> None:
        self.specs[origin.ref()] = ResidualSpec(origin.name, kind, origin.shape, origin.dtype, _nbytes(origin))


class _Sources:
    """Follows tensors of one graph back to where their values come from."""

    def __init__(self) -> None:
        self._bodies: dict[str, Any] = {}

    def origin(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensor that holds the same value before identities, and before loops that only pass it through."""
        while tensor.op.type in ("Identity", "IdentityN") or self._passed_through(tensor):
            tensor = tensor.op.inputs[tensor.value_index]
        return tensor

    def root(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensor whose memory this one shares."""
        tensor = self.origin(tensor)
        while tensor.op.type in ("Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient"):
            tensor = self.origin(tensor.op.inputs[0])
        return tensor

    def _passed_through(self, tensor: tf.Tensor) -> bool:
        if tensor.op.type not in ("While", "StatelessWhile"):
            return False
        if tensor.dtype == tf.resource:
            return True
        body = self._body(tensor.op)
        given = body.signature.input_arg[tensor.value_index].name
        returned = body.ret[body.signature.output_arg[tensor.value_index].name]
        identities = {f"{node.name}:output:0": node.input[0] for node in body.node_def if node.op == "Identity"}
        while returned in identities:
            returned = identities[returned]
        return returned == given

    def _body(self, loop: tf.Operation) -> Any:
        name = loop.get_attr("body").name
        if name not in self._bodies:
            library = loop.graph.as_graph_def().library.function
            self._bodies |= {function.signature.name: function for function in library}
        return self._bodies[name]


def _spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _nbytes(tensor: tf.Tensor) -> int | None:
    if not tensor.shape.is_fully_defined() or tensor.dtype in (tf.variant, tf.resource, tf.string):
        return None
    return tensor.shape.num_elements() * tensor.dtype.size
