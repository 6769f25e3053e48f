"""What to keep of a forward for a price of memory: the minimum cut of a network of its tensors and operations.

On the source's side stand the tensors that the backward needs and the operations that it runs again. Cut is the edge
from a tensor to its operation, which costs the bytes of keeping it, or the one from an operation to the sink, which
costs the time of running it.

See Jain et al. (2020), https://arxiv.org/abs/1910.02653, for the optimum under a budget. A minimum cut finds those
optima that some price of memory gives, and is fast. It needs SciPy.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from seq2split.engine.recomputation import Recipe, Region

PRODUCTS = (
    "MatMul",
    "BatchMatMulV2",
    "BatchMatMulV3",
    "Einsum",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "DepthwiseConv2dNative",
)
"""The types of operations that multiply matrices."""
_BYTES_PER_SECOND = 1e10  # of an operation that reads and writes memory, on one core
_FLOPS_PER_SECOND = 1e11  # of a product, likewise
_SECONDS_PER_CALL = 2e-6
_SCALE = 2**29  # of integer capacities; twice that must fit 32 bits


class Tradeoff:
    """Chooses what to keep for a price of memory.

    Args:
        region: What the backward reads, and what it could be computed from.
        unknown: What an unknown dimension counts as; `None` if there must be none.
    """

    def __init__(self, region: Region, unknown: int | None):
        self._region, self._unknown = region, unknown

    def recipe(self, seconds_per_byte: float) -> Recipe:
        """Return the cheapest recipe if a byte is worth so many seconds; infinity for the fewest bytes."""
        needed = self._network.cut(seconds_per_byte)
        recomputed = {name for name, place in self._network.places.items() if needed[place]}
        return self._region.recipe(lambda tensor: tensor.op.name not in recomputed)

    def nbytes(self, recipe: Recipe) -> int:
        """Return the bytes that a recipe keeps.

        Raises:
            ValueError: A dimension is unknown, and nobody said what it counts as.
        """
        kept = {self._region.root(each).ref(): each for each in recipe.given if not self._region.is_free(each)}
        return sum(self._size(ref.deref()) for ref in kept if not self._region.is_free(ref.deref()))

    def seconds(self, operation: tf.Operation) -> float:
        """Return about how long an operation runs."""
        moved = sum(self._size(tensor) for tensor in (*operation.inputs, *operation.outputs))
        products = self._multiplications(operation) * 2 / _FLOPS_PER_SECOND if operation.type in PRODUCTS else 0.0
        return _SECONDS_PER_CALL + moved / _BYTES_PER_SECOND + products

    @cached_property
    def _network(self) -> _Network:
        region = self._region
        numbers = {tensor.ref(): at for at, tensor in enumerate(t for t in region.reachable if not region.is_free(t))}
        operations = {ref.deref().op.name: ref.deref().op for ref in numbers}
        operations = {name: each for name, each in operations.items() if region.can_recompute(each)}
        places = {name: len(numbers) + at for at, name in enumerate(operations)}
        source, sink = len(numbers) + len(places), len(numbers) + len(places) + 1
        edges: list[tuple[int, int, float, float]] = []  # from, to, bytes and seconds
        for ref, number in numbers.items():
            tensor = ref.deref()
            size = math.inf if region.costs_nothing(tensor) else self._size(tensor)
            edges.append((number, places.get(tensor.op.name, sink), size, 0.0))
            if region.is_read(tensor):
                edges.append((source, number, math.inf, 0.0))
        for name, operation in operations.items():
            edges.append((places[name], sink, 0.0, self.seconds(operation)))
            needed = {each.ref() for each in operation.inputs} & numbers.keys()
            edges += [(places[name], numbers[ref], math.inf, 0.0) for ref in needed]
        return _Network(places, source, sink, *(np.array(column) for column in zip(*edges, strict=True)))

    def _multiplications(self, operation: tf.Operation) -> float:
        """Return how often a product multiplies: its result's elements, times the length of what is summed over."""
        left, right, result = (self._elements(tensor) for tensor in (*operation.inputs[:2], operation.outputs[0]))
        if "Conv" in operation.type:
            return float(result) * right / max(1, operation.inputs[1].shape[-1] or self._unknown)
        return math.sqrt(float(left) * float(right) * float(result))

    def _size(self, tensor: tf.Tensor) -> int:
        return self._elements(tensor) * self._region.spec_of(tensor).dtype.size

    def _elements(self, tensor: tf.Tensor) -> int:
        shape = self._region.spec_of(tensor).shape
        dimensions = [None] if shape.rank is None else shape.as_list()
        if None in dimensions and self._unknown is None:
            raise ValueError(
                f"save policy: {tensor.name} has the shape {shape}, so that its bytes are not known. Build the "
                "part for known shapes, or say what an unknown dimension counts as: budget(nbytes, unknown=64)."
            )
        return math.prod(self._unknown if each is None else each for each in dimensions)


class _Network(NamedTuple):
    """A flow network whose capacities are prices.

    Attributes:
        places: The number of each operation's node, by its name.
        source: The number of the source's node.
        sink: The number of the sink's node.
        begin: The node where each edge begins, `[edges]`.
        end: The node where each edge ends, `[edges]`.
        nbytes: The bytes that cutting an edge costs, `[edges]`; infinite where it can't be cut.
        seconds: The seconds that cutting an edge costs, `[edges]`.
    """

    places: dict[str, int]
    source: int
    sink: int
    begin: np.ndarray
    end: np.ndarray
    nbytes: np.ndarray
    seconds: np.ndarray

    def cut(self, seconds_per_byte: float) -> np.ndarray:
        """Return True for each node on the source's side of the minimum cut, `[nodes]`."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        uncuttable = np.isinf(self.nbytes)
        byte, second = (1.0, 1e-6) if math.isinf(seconds_per_byte) else (seconds_per_byte, 1.0)
        costs = np.where(uncuttable, 0.0, self.nbytes) * byte + self.seconds * second
        capacities = np.ceil(costs * (_SCALE / max(costs.sum(), 1e-300))).astype(np.int32)
        capacities[uncuttable] = 2 * _SCALE
        shape = (self.sink + 1, self.sink + 1)
        network = csr_array((capacities, (self.begin, self.end)), shape=shape)
        left = network - maximum_flow(network, self.source, self.sink).flow
        left.eliminate_zeros()
        reached = np.zeros(shape[0], bool)
        reached[breadth_first_order(left, self.source, return_predecessors=False)] = True
        return reached
