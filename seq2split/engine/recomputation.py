"""What of a forward its backward can compute again: the operations that lead to what it reads.

Operations are copied out of the forward's graph by TensorFlow's own importer. What changes a state, and what draws
random numbers, is never among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

import tensorflow as tf

from seq2split.engine.provenance import VIEWS, Provenance, is_random
from seq2split.engine.signature import tensor_spec

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
        reads: The tensors that the backward reads, symbolic ones of the forward's graph.
        at_hand: Forward tensors that cost nothing to keep: inputs and outputs.
        spec_of: Returns the spec of a tensor while it is kept.

    Attributes:
        reads: The tensors that the backward reads, each once.
        spec_of: Returns the spec of a tensor while it is kept.
    """

    def __init__(
        self,
        reads: Iterable[tf.Tensor],
        at_hand: Iterable[tf.Tensor],
        spec_of: Callable[[tf.Tensor], tf.TensorSpec] = tensor_spec,
    ):
        self.spec_of = spec_of
        self.reads = list({tensor.ref(): tensor for tensor in reads}.values())
        self._provenance = Provenance()
        self._at_hand = {self._provenance.origin(tensor).ref() for tensor in at_hand}
        self._read = {ref for tensor in self.reads for ref in (tensor.ref(), self.root(tensor).ref())}

    @cached_property
    def reachable(self) -> list[tf.Tensor]:
        """All tensors of the region, in the order in which a walk from what is read meets them."""
        return self._walk(lambda _: False)[1]

    def recipe(self, keep: Callable[[tf.Tensor], bool]) -> Recipe:
        """Return what the backward is given, and what it runs again.

        Args:
            keep: Returns True if a tensor is kept that could also be computed again. It isn't asked of what is free,
                nor of what costs nothing to compute again: a view is kept as what it shows.
        """
        return self._walk(lambda tensor: not self.costs_nothing(tensor) and keep(tensor))[0]

    def is_read(self, tensor: tf.Tensor) -> bool:
        """True if the backward reads the tensor, or a view of it."""
        return tensor.ref() in self._read

    def is_free(self, tensor: tf.Tensor) -> bool:
        """True if a tensor costs nothing to keep: an input, an output, a variable's value, or what was captured."""
        return self._provenance.origin(tensor).ref() in self._at_hand or tensor.op.type in _FREE

    @staticmethod
    def costs_nothing(tensor: tf.Tensor) -> bool:
        """True if computing a tensor again costs nothing: a constant, or a view of another tensor's memory."""
        return tensor.op.type == "Const" or tensor.op.type in VIEWS

    @staticmethod
    def can_recompute(operation: tf.Operation) -> bool:
        """True if running an operation again gives the same, and does nothing else."""
        if operation.type == "Empty":  # stateful in name, so that no two of them are taken for one
            return True
        return not operation._is_stateful and not is_random(operation)

    def root(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor whose memory this one shares."""
        return self._provenance.root(tensor)

    def _walk(self, keep: Callable[[tf.Tensor], bool]) -> tuple[Recipe, list[tf.Tensor]]:
        """Return the recipe, and all tensors that were met on the way."""
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
    """Run operations of another graph again in the current one.

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
    """Return the definition of some operations, without the order that side effects gave them."""
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
