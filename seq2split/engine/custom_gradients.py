"""What `tf.custom_gradient` registers of a graph, released when nobody will read it any more.

TensorFlow registers a function for each call of a custom gradient in a graph. It holds the graph, and is never let go
of: a process that makes and drops models would keep all their graphs (tensorflow #97697, mended after 2.21). A part
graph has taken all its gradients when it is traced, and what was registered for it can go. That of a user's own
`tf.function` which a part calls stays, since the user may differentiate that elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

try:  # Not public; where it is gone, a version of TensorFlow that mends the fault is hoped for.
    from tensorflow.python.framework.ops import gradient_registry

    _REGISTERED: dict[str, Any] = gradient_registry._registry
except (ImportError, AttributeError):  # pragma: no cover
    _REGISTERED = {}

_PREFIX = "CustomGradient-"
_ATTRIBUTE = "_gradient_op_type"
_BODIES = ("body", "cond", "then_branch", "else_branch")


def release(definition: Any) -> None:
    """Release what is registered for the custom gradients of a graph, its loops and its branches.

    Args:
        definition: The graph's `GraphDef`. Gradients of the graph can't be taken any more.
    """
    functions = {function.signature.name: function.node_def for function in definition.library.function}
    todo = [definition.node]
    while todo:
        for node in todo.pop():
            if _ATTRIBUTE in node.attr and (name := node.attr[_ATTRIBUTE].s.decode()).startswith(_PREFIX):
                _REGISTERED.pop(name, None)
            todo += [functions.pop(name) for name in _bodies(node) if name in functions]


def _bodies(node: Any) -> Iterator[str]:
    yield from (node.attr[key].func.name for key in _BODIES if key in node.attr)
    yield from (each.name for each in (node.attr["branches"].list.func if "branches" in node.attr else ()))
