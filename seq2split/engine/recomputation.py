"""What of a forward its backward can compute again: the operations that lead to what it reads.

Internal to `partition` and `policies`. Operations are copied out of the forward's graph by TensorFlow's own importer.
What changes a state, and what draws random numbers, is never among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

import tensorflow as tf

from seq2split.engine.provenance import VIEWS, Provenance, is_random

_FREE = ("Placeholder", "ReadVariableOp")


class Recipe(NamedTuple):
    """How a backward gets what it reads.

    Attributes:
        given: The forward tensors that it is given, in the order in which they are first needed.
        recomputed: The operations that it runs again.
    """

    given: list[tf.Tensor]
    recomputed: list[tf.Operation]


class Region:
    """The tensors of a forward from which what its backward reads can be computed.

    Args:
        reads: What the backward reads, symbolic tensors of the forward's graph.
        at_hand: Forward tensors that cost nothing to keep: inputs and outputs.
        spec_of: What a tensor is while it is kept, where that is another than in the forward.
    """

    def __init__(
        self,
        reads: Iterable[tf.Tensor],
        at_hand: Iterable[tf.Tensor],
        spec_of: Callable[[tf.Tensor], tf.TensorSpec] = lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype),
    ):
        self.spec_of = spec_of
        self.reads = list({tensor.ref(): tensor for tensor in reads}.values())
        self._sources = Provenance()
        self._at_hand = {self._sources.origin(tensor).ref() for tensor in at_hand}
        self._read = {ref for tensor in self.reads for ref in (tensor.ref(), self.root(tensor).ref())}

    @cached_property
    def reachable(self) -> list[tf.Tensor]:
        """All of them, in the order in which a walk from what is read meets them."""
        return self._walk(lambda _: False)[1]

    def recipe(self, keep: Callable[[tf.Tensor], bool]) -> Recipe:
        """What the backward is given, and what it runs again.

        Args:
            keep: Whether a tensor is kept that could also be computed again. It isn't asked of what is free, nor of
                what costs nothing to compute again: a view is kept as what it shows.
        """
        return self._walk(lambda tensor: not self.costs_nothing(tensor) and keep(tensor))[0]

    def is_read(self, tensor: tf.Tensor) -> bool:
        """Whether the backward reads it, or a view of it."""
        return tensor.ref() in self._read

    def is_free(self, tensor: tf.Tensor) -> bool:
        """Whether it costs nothing to keep: an input, an output, the value of a variable, or what was captured."""
        return self._sources.origin(tensor).ref() in self._at_hand or tensor.op.type in _FREE

    @staticmethod
    def costs_nothing(tensor: tf.Tensor) -> bool:
        """Whether computing it again costs nothing: a constant, or a view, which shares the memory of another."""
        return tensor.op.type == "Const" or tensor.op.type in VIEWS

    @staticmethod
    def can_recompute(operation: tf.Operation) -> bool:
        """Whether running it again gives the same, and does nothing else."""
        return not operation._is_stateful and not is_random(operation)

    def root(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensor whose memory this one shares."""
        return self._sources.root(tensor)

    def _walk(self, keep: Callable[[tf.Tensor], bool]) -> tuple[Recipe, list[tf.Tensor]]:
        """The recipe, and all tensors that it met."""
        given: list[tf.Tensor] = []
        rerun: dict[str, tf.Operation] = {}
        seen = {tensor.ref() for tensor in self.reads}
        met: list[tf.Tensor] = []
        todo = list(reversed(self.reads))
        while todo:
            tensor = todo.pop()
            met.append(tensor)
            if self.is_free(tensor) or not self.can_recompute(tensor.op) or keep(tensor):
                given.append(tensor)
                continue
            rerun[tensor.op.name] = tensor.op
            for source in reversed(list(tensor.op.inputs)):
                if source.ref() not in seen:
                    seen.add(source.ref())
                    todo.append(source)
        return Recipe(given, list(rerun.values())), met


def recompute(recipe: Recipe, given: list[tf.Tensor], wanted: list[tf.Tensor]) -> list[tf.Tensor]:
    """Runs operations of another graph again in the current one.

    Args:
        recipe: The operations.
        given: A tensor of this graph for each of `recipe.given`.
        wanted: Tensors of the other graph.

    Returns:
        A tensor of this graph for each of `wanted`.
    """
    at_hand = dict(zip((tensor.ref() for tensor in recipe.given), given, strict=True))
    missing = [tensor for tensor in wanted if tensor.ref() not in at_hand]
    if missing:
        names = {operation.name for operation in recipe.recomputed}
        used = {source.ref() for operation in recipe.recomputed for source in operation.inputs}
        found = tf.graph_util.import_graph_def(
            _definition(missing[0].graph, names),
            input_map={ref.deref().name: tensor for ref, tensor in at_hand.items() if ref in used},
            return_elements=[tensor.name for tensor in missing],
            name="again",
        )
        at_hand |= dict(zip((tensor.ref() for tensor in missing), found, strict=True))
    return [at_hand[tensor.ref()] for tensor in wanted]


def _definition(graph: tf.Graph, names: set[str]) -> tf.compat.v1.GraphDef:
    """The definition of some operations, without the order that side effects gave them."""
    definition = graph.as_graph_def()
    nodes = [node for node in definition.node if node.name in names]
    del definition.node[:]
    for node in nodes:
        data = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(data)
        node.attr.pop("_class", None)  # colocated with operations that may be left out
        definition.node.append(node)
    return definition
