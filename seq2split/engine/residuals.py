"""Which tensors a backward is given, and where each comes from.

Internal to `partition`. What a backward reads is traced to where it can be had for nothing: inputs and outputs are at
hand, constants and variable handles are bound once, variables are snapshots. What is left the forward returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from seq2split.engine.provenance import NOT_COMPUTED, Provenance

HELD = ("computed", "random")
"""The kinds of residuals that occupy memory of their own."""


@dataclass(frozen=True)
class ResidualSpec:
    """One forward tensor that the backward is given.

    Attributes:
        name: The tensor's name in the forward.
        kind: `computed` by the forward and kept in memory for the backward, or `random` if it follows from nothing but
            random draws; or, costing no memory of its own, the value of a `variable`, an `input`, an `output`, or of
            another residual in another shape (`alias`).
        shape: Its static shape.
        dtype: Its dtype.
        nbytes: Its size in bytes; `None` where a dimension is unknown or the tensor is a list that a loop wrote.
    """

    name: str
    kind: str
    shape: tf.TensorShape
    dtype: tf.DType
    nbytes: int | None


class ResidualPlan:
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
        self.held: list[int] = []
        self.specs: dict[Any, ResidualSpec] = {}
        self._known: dict[Any, tuple[str, Any]] = {}
        self._sources = Provenance()
        for kind, tensors in (("output", outputs), ("input", inputs)):  # an input passed through counts as input
            self._known |= {self._sources.origin(tensor).ref(): (kind, index) for index, tensor in enumerate(tensors)}
        self._roots = {self._sources.root(ref.deref()).ref(): kind for ref, (kind, _) in self._known.items()}
        self._bindings = [self._bind(tensor) for tensor in captured]

    def keep(self, graph: tf.Graph) -> None:
        """Adds every tensor that the forward has computed so far, whether the backward reads it or not."""
        for operation in graph.get_operations():
            for tensor in operation.outputs if operation.type not in NOT_COMPUTED else ():
                if tensor.ref() not in self._known and (tensor.dtype.is_floating or tensor.dtype.is_bool):
                    self._known[tensor.ref()] = self._place(tensor)

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
        if self.specs[origin.ref()].kind in HELD:
            self.held.append(len(self.residuals))
        self.residuals.append(origin)
        return "residual", len(self.residuals) - 1

    def _kind(self, origin: tf.Tensor) -> str:
        root = self._sources.root(origin)
        if root.op.type == "ReadVariableOp":
            return "variable"
        kind = self._roots.get(root.ref()) or ("random" if self._sources.is_drawn(root) else "computed")
        self._roots.setdefault(root.ref(), "alias")
        return kind

    def _note(self, origin: tf.Tensor, kind: str) -> None:
        self.specs[origin.ref()] = ResidualSpec(origin.name, kind, origin.shape, origin.dtype, _nbytes(origin))


def _nbytes(tensor: tf.Tensor) -> int | None:
    if not tensor.shape.is_fully_defined() or tensor.dtype in (tf.variant, tf.resource, tf.string):
        return None
    return tensor.shape.num_elements() * tensor.dtype.size
