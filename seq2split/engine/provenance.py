"""Where the values of a graph's tensors come from."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf

_IDENTITIES = ("Identity", "IdentityN")
VIEWS = (*_IDENTITIES, "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient")
"""The types of operations whose results share the memory of an input."""
NOT_COMPUTED = ("Placeholder", "Const", "ReadVariableOp", "VarHandleOp", *VIEWS)
"""The types of operations whose results occupy no memory of their own."""
_FAR = 64  # tensors; what follows from draws alone is near them
_RANDOM = re.compile(
    r"(Stateless|Stateful)?(Random|Multinomial|Truncated|Parameterized|SampleDistorted)|Stateful(Standard|Uniform)"
)


class Provenance:
    """Follows tensors of one graph back to where their values come from."""

    def __init__(self) -> None:
        self._bodies: dict[str, Any] = {}

    def origin(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor that holds the same value before identities, and before loops that only pass it through."""
        while tensor.op.type in _IDENTITIES or self._passed_through(tensor):
            tensor = tensor.op.inputs[tensor.value_index]
        return tensor

    def root(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor whose memory this one shares."""
        tensor = self.origin(tensor)
        while tensor.op.type in VIEWS:  # no identity any more, so that the view is of the first input
            tensor = self.origin(tensor.op.inputs[0])
        return tensor

    def is_drawn(self, tensor: tf.Tensor) -> bool:
        """True if the tensor follows from random draws and constants, and from nothing else."""
        seen, todo, drawn = {tensor.ref()}, [tensor], False
        while todo:
            operation = todo.pop().op
            if is_random(operation):
                drawn = True
            elif operation.type != "Const":
                fresh = [each for each in operation.inputs if each.ref() not in seen]
                if not operation.inputs or len(seen) > _FAR:
                    return False
                seen |= {each.ref() for each in fresh}
                todo += fresh
        return drawn

    def constants(self, tensor: tf.Tensor) -> list[tf.Operation] | None:
        """Return the operations that compute a tensor from constants alone; `None` if there are others, or many."""
        found, todo = {}, [tensor.op]
        while todo:
            operation = todo.pop()
            if operation.type == "Placeholder" or operation._is_stateful or len(found) > _FAR:
                return None
            found[operation.name] = operation
            todo += [each.op for each in operation.inputs if each.op.name not in found]
        return list(found.values())

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


def is_random(operation: tf.Operation) -> bool:
    """True if an operation draws random numbers."""
    return _RANDOM.match(operation.type) is not None
