"""Values followed through the loops and functions of a graph, by its definition.

`provenance` follows tensors within a graph; this looks into the functions that the graph calls.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

LOOPS = ("While", "StatelessWhile")
_BRANCHES = ("If", "StatelessIf")
_CALLED = {"PartitionedCall": "f", "StatefulPartitionedCall": "f", **dict.fromkeys(_BRANCHES, "then_branch")}
_BODIES = dict.fromkeys(LOOPS, "body")


class Place(NamedTuple):
    """An output of a node in a graph or in the body of a function, or an argument of that function.

    Attributes:
        nodes: The nodes of the graph or function, by name.
        reference: The output, written as in the inputs of a node.
        arguments: The places that the arguments of the function come from, by name.
    """

    nodes: dict[str, Any]
    reference: str
    arguments: dict[str, Place]

    @property
    def name(self) -> str:
        """The name of the node or argument."""
        return self.reference.split(":")[0]

    @property
    def node(self) -> Any:
        """The node; `None` for an argument."""
        return self.nodes.get(self.name)

    @property
    def op(self) -> str:
        """The type of the node's operation; empty for an argument."""
        return self.node.op if self.node else ""

    @property
    def index(self) -> int:
        """The number of the output of a node that has one list of outputs."""
        last = self.reference.split(":")[-1]
        return int(last) if last.isdigit() else 0

    def input(self, index: int) -> Place:
        """Return the place that an input of the node comes from."""
        return self._replace(reference=self.node.input[index])


class Dataflow:
    """Follows the values of one graph.

    Args:
        graph: The graph. What is added to it later is not seen.
    """

    def __init__(self, graph: tf.Graph):
        definition = graph.as_graph_def()
        self._nodes = {node.name: node for node in definition.node}
        self._functions = {function.signature.name: function for function in definition.library.function}

    def place(self, tensor: tf.Tensor) -> Place:
        """Return the place of a tensor of the graph."""
        return Place(self._nodes, tensor.name, {})

    def source(self, place: Place, *, through: Container[str] = (), into_bodies: bool = False) -> Place:
        """Return the place of a value before identities, calls, branches and loops.

        Args:
            place: The place of the value. What a loop returns is followed to what the loop began with.
            through: Types of operations whose first input is followed as well.
            into_bodies: True if what a loop returns is followed to what its last step made.
        """
        while True:
            if place.node is None:
                place = place.arguments[place.name]
            elif place.op in _CALLED or (into_bodies and place.op in LOOPS):
                place = self._returned(place)
            elif place.op in LOOPS or place.op == "IdentityN":
                place = place.input(place.index)
            elif place.op == "Identity" or place.op in through:
                place = place.input(0)
            else:
                return place

    def constant(self, place: Place) -> np.ndarray | None:
        """Return the value at a place if it is a constant, else `None`."""
        source = self.source(place)
        return tf.make_ndarray(source.node.attr["value"].tensor) if source.op == "Const" else None

    def _returned(self, place: Place) -> Place:
        """Return the place, within the function that a node calls, of what it returns as the output."""
        function = self._functions[place.node.attr[(_CALLED | _BODIES)[place.op]].func.name]
        first = 1 if place.op in _BRANCHES else 0  # the condition
        arguments = {each.name: place.input(first + at) for at, each in enumerate(function.signature.input_arg)}
        nodes = {each.name: each for each in function.node_def}
        return Place(nodes, function.ret[function.signature.output_arg[place.index].name], arguments)
