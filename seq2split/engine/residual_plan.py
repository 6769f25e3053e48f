"""Which tensors a backward is given, and where each comes from.

Each tensor that a backward reads is followed to where it can be had for nothing: inputs and outputs are at hand,
constants and variable handles are bound once, variables are snapshots. What is left the forward returns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from seq2split.engine.provenance import NOT_COMPUTED, Provenance
from seq2split.engine.residuals import HELD, UNSIZED, ResidualSpec


class Binding(NamedTuple):
    """Where an argument of the backward after the cotangents comes from.

    Attributes:
        kind: An `input`, `output` or `residual` of the forward, or a `constant`.
        source: The number of that input, output or residual; the tensor of a constant.
    """

    kind: str
    source: Any


class ResidualPlan:
    """Decides, for each tensor that the backward captures, where its value comes from.

    Args:
        inputs: The forward's input tensors.
        outputs: The forward's output tensors.
        captured: What the backward captured: eager tensors, or symbolic ones of the forward.

    Attributes:
        residuals: The tensors that the forward must return beside its outputs.
        held: The numbers of those residuals that occupy memory of their own.
        specs: What the backward is given, by the reference of the tensor.
    """

    def __init__(self, inputs: list[tf.Tensor], outputs: list[tf.Tensor], captured: list[tf.Tensor]):
        self.residuals: list[tf.Tensor] = []
        self.held: list[int] = []
        self.specs: dict[Any, ResidualSpec] = {}
        self._bound: dict[Any, Binding] = {}
        self._provenance = Provenance()
        for kind, tensors in (("output", outputs), ("input", inputs)):  # an input passed through counts as input
            self._bound |= {
                self._provenance.origin(tensor).ref(): Binding(kind, index) for index, tensor in enumerate(tensors)
            }
        self._roots = {self._provenance.root(ref.deref()).ref(): kind for ref, (kind, _) in self._bound.items()}
        self._bindings = [self._bind(tensor) for tensor in captured]

    def keep_everything(self, graph: tf.Graph) -> None:
        """Add every tensor that the forward has computed so far, whether the backward reads it or not."""
        for operation in graph.get_operations():
            for tensor in operation.outputs if operation.type not in NOT_COMPUTED else ():
                if tensor.ref() not in self._bound and (tensor.dtype.is_floating or tensor.dtype.is_bool):
                    self._bound[tensor.ref()] = self._place(tensor)

    def bindings(self, forward: Any) -> tuple[Binding, ...]:
        """Return a binding for each captured tensor, in their order.

        Args:
            forward: The concrete function of the forward. Its own captures become constants.
        """
        outside = forward.captured_inputs
        inside = forward.inputs[len(forward.inputs) - len(outside) :]
        captures = dict(zip((tensor.name for tensor in inside), outside, strict=True))
        return tuple(
            Binding("constant", captures[binding.source]) if binding.kind == "capture" else binding
            for binding in self._bindings
        )

    def _bind(self, tensor: tf.Tensor) -> Binding:
        if not tf.is_symbolic_tensor(tensor):
            return Binding("constant", tensor)
        origin = self._provenance.origin(tensor)
        if origin.ref() not in self._bound:
            self._bound[origin.ref()] = self._place(origin)
        binding = self._bound[origin.ref()]
        if binding.kind in ("input", "output"):
            self._note(origin, binding.kind)
        return binding

    def _place(self, origin: tf.Tensor) -> Binding:
        if origin.op.type == "Placeholder":
            return Binding("capture", origin.name)
        value = tf.get_static_value(origin)
        if value is not None:
            with tf.init_scope():
                return Binding("constant", tf.constant(value, origin.dtype))
        self._note(origin, self._kind(origin))
        if self.specs[origin.ref()].kind in HELD:
            self.held.append(len(self.residuals))
        self.residuals.append(origin)
        return Binding("residual", len(self.residuals) - 1)

    def _kind(self, origin: tf.Tensor) -> str:
        root = self._provenance.root(origin)
        if root.op.type == "ReadVariableOp":
            return "variable"
        kind = self._roots.get(root.ref()) or ("random" if self._provenance.is_drawn(root) else "computed")
        self._roots.setdefault(root.ref(), "alias")
        return kind

    def _note(self, origin: tf.Tensor, kind: str) -> None:
        self.specs[origin.ref()] = ResidualSpec(origin.name, kind, origin.shape, origin.dtype, _nbytes(origin))


def _nbytes(tensor: tf.Tensor) -> int | None:
    if not tensor.shape.is_fully_defined() or tensor.dtype in UNSIZED:
        return None
    return tensor.shape.num_elements() * tensor.dtype.size
