"""Python functions that a graph calls while it runs: `tf.py_function`.

TensorFlow differentiates one by the tape of its last run, which it keeps under the function's token: of two forwards
before a backward, the backward would read the second one's, whichever it belongs to. So gradients can't flow through
one. A `tf.custom_gradient` whose backward calls a Python function is sound: what it reads are residuals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

_TYPE = "EagerPyFunc"
# TensorFlow names a gradient by the scope that it is taken in; that of a custom gradient belongs to an IdentityN.
_OF_A_GRADIENT = re.compile(r"(^gradient_tape/.*|_grad/)[^/]*$")
_OF_A_CUSTOM_GRADIENT = re.compile(r"IdentityN(_\d+)?_grad/[^/]*$")


def runs_python(definition: Any) -> bool:
    """True if a graph, given as its `GraphDef`, or a function that it calls, runs a `tf.py_function`."""
    return any(True for _ in _nodes(definition))


def differentiated(graph: tf.Graph) -> set[str]:
    """Return the names of the operations in a graph that take the gradient of a `tf.py_function`."""
    names = {node.name for node in _nodes(graph.as_graph_def())}
    return {name for name in names if _OF_A_GRADIENT.search(name) and not _OF_A_CUSTOM_GRADIENT.search(name)}


def _nodes(definition: Any) -> Iterator[Any]:
    for nodes in (definition.node, *(function.node_def for function in definition.library.function)):
        yield from (node for node in nodes if node.op == _TYPE)
