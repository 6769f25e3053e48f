"""Save policies: which forward tensors a part keeps for its backward, and which the backward computes again.

A policy is given to a part, `Part(fn, save=...)`, by name or as an object:

| policy | what is kept |
| --- | --- |
| `needed` | what the backward reads, and nothing is computed again; the default |
| `all` | every tensor that the forward computes; the naive recipe, for comparison |
| `inputs` | nothing that can be computed again from the inputs: the backward runs the part again |
| `save(which)` | the tensors that a predicate or a name pattern picks, such as matrix products (`products`) |
| `drop(which)` | as `needed`, but for those |
| `budget(nbytes)` | what makes the backward's recomputation cheapest, within that many bytes |

Whatever the policy, gradients are the same. Inputs, outputs and variables are at hand and never count; random numbers,
and what operations with side effects return, are kept and never made again. The last part of a model runs both passes
in one graph (`value_and_gradients`) and keeps nothing, so that no policy applies to it.

Recomputation in place of storage: Chen et al. (2016), https://arxiv.org/abs/1604.06174.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from seq2split.engine.recomputation import Recipe, Region

_PRODUCTS = (
    "MatMul",
    "BatchMatMulV2",
    "BatchMatMulV3",
    "Einsum",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "DepthwiseConv2dNative",
)
_BYTES_PER_SECOND = 1e10  # of an operation that reads and writes memory, on one core
_FLOPS_PER_SECOND = 1e11  # of a product, likewise
_SECONDS_PER_CALL = 2e-6
_SCALE = 2**29  # of integer capacities; twice that must fit 32 bits
_EXPONENTS = (-18.0, 3.0)  # of ten: seconds that a byte may be worth
_BISECTIONS = 30


@dataclass(frozen=True)
class Candidate:
    """A forward tensor that may be kept.

    Attributes:
        name: Its name in the forward, without the output's number if it is the first.
        op: The type of the operation that computes it, such as `MatMul`.
        shape: Its static shape.
        dtype: Its dtype.
        is_read: Whether the backward reads it, and not only what leads to it.
    """

    name: str
    op: str
    shape: tf.TensorShape
    dtype: tf.DType
    is_read: bool


Which = str | Callable[[Candidate], bool]
"""A pattern of names, as of a shell (`*/dense*/*`), or a predicate."""


class Policy(ABC):
    """Which forward tensors are kept.

    Attributes:
        name: What tables call it.
        keeps_everything: Whether every tensor that the forward computes is kept beside.
    """

    name: str
    keeps_everything = False

    @abstractmethod
    def recipe(self, region: Region) -> Recipe:
        """How a backward gets what it reads.

        Args:
            region: What it could be computed from.
        """

    def __repr__(self) -> str:
        return f"policies.{self.name}"


class _Read(Policy):
    def __init__(self, name: str, keeps_everything: bool):
        self.name, self.keeps_everything = name, keeps_everything

    def recipe(self, region: Region) -> Recipe:
        return Recipe(region.reads, [])


class _Inputs(Policy):
    name = "inputs"

    def recipe(self, region: Region) -> Recipe:
        return region.recipe(lambda _: False)


class _Chosen(Policy):
    def __init__(self, name: str, which: Which, among: Callable[[Candidate, bool], bool]):
        self.name = name
        self._matches = which if callable(which) else lambda candidate: fnmatchcase(candidate.name, which)
        self._among = among

    def recipe(self, region: Region) -> Recipe:
        def keep(tensor: tf.Tensor) -> bool:
            candidate = _candidate(tensor, region)
            return self._among(candidate, bool(self._matches(candidate)))

        return region.recipe(keep)


class _Budget(Policy):
    def __init__(self, nbytes: int, unknown: int | None):
        self.name = f"budget({nbytes})"
        self._nbytes, self._unknown = nbytes, unknown

    def recipe(self, region: Region) -> Recipe:
        tradeoff = _Tradeoff(region, self._unknown)
        recipe = region.recipe(region.is_read)
        if tradeoff.nbytes(recipe) <= self._nbytes:
            return recipe
        least = tradeoff.recipe(seconds_per_byte=math.inf)
        if tradeoff.nbytes(least) > self._nbytes:
            raise ValueError(
                f"save policy {self.name}: at least {tradeoff.nbytes(least):,} bytes must be kept: random numbers, "
                "what operations with side effects return, or what is smaller than that. Raise the budget."
            )
        low, high, cheapest = *_EXPONENTS, least
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            recipe = tradeoff.recipe(seconds_per_byte=10.0**middle)
            if tradeoff.nbytes(recipe) > self._nbytes:
                low = middle
            else:
                high, cheapest = middle, recipe
        return cheapest


class _Network(NamedTuple):
    """A flow network whose capacities are prices.

    Attributes:
        places: The number of each operation's node, by its name.
        source: The number of the source's node.
        sink: That of the sink's.
        begin: Where each edge begins, `[edges]`.
        end: Where it ends.
        nbytes: The bytes that cutting it costs; endless where it can't be cut.
        seconds: The seconds that cutting it costs.
    """

    places: dict[str, int]
    source: int
    sink: int
    begin: np.ndarray
    end: np.ndarray
    nbytes: np.ndarray
    seconds: np.ndarray

    def cut(self, seconds_per_byte: float) -> np.ndarray:
        """Which nodes stand on the source's side of the minimum cut, `[nodes]`."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        endless = np.isinf(self.nbytes)
        byte, second = (1.0, 1e-6) if math.isinf(seconds_per_byte) else (seconds_per_byte, 1.0)
        costs = np.where(endless, 0.0, self.nbytes) * byte + self.seconds * second
        capacities = np.ceil(costs * (_SCALE / max(costs.sum(), 1e-300))).astype(np.int32)
        capacities[endless] = 2 * _SCALE
        shape = (self.sink + 1, self.sink + 1)
        network = csr_array((capacities, (self.begin, self.end)), shape=shape)
        left = network - maximum_flow(network, self.source, self.sink).flow
        left.eliminate_zeros()
        reached = np.zeros(shape[0], bool)
        reached[breadth_first_order(left, self.source, return_predecessors=False)] = True
        return reached


class _Tradeoff:
    """Chooses what to keep for a price of memory: a minimum cut.

    On the source's side stand the tensors that the backward needs and the operations that it runs again. Cut is the
    edge from a tensor to its operation, which costs the bytes of keeping it, or the one from an operation to the sink,
    which costs the time of running it.
    """

    def __init__(self, region: Region, unknown: int | None):
        self._region, self._unknown = region, unknown

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
            edges.append((places[name], sink, 0.0, self._seconds(operation)))
            needed = {each.ref() for each in operation.inputs} & numbers.keys()
            edges += [(places[name], numbers[ref], math.inf, 0.0) for ref in needed]
        return _Network(places, source, sink, *(np.array(column) for column in zip(*edges, strict=True)))

    def nbytes(self, recipe: Recipe) -> int:
        """What a recipe keeps."""
        kept = {self._region.root(each).ref(): each for each in recipe.given if not self._region.is_free(each)}
        return sum(self._size(ref.deref()) for ref in kept if not self._region.is_free(ref.deref()))

    def recipe(self, seconds_per_byte: float) -> Recipe:
        """The cheapest recipe if a byte is worth so many seconds."""
        needed = self._network.cut(seconds_per_byte)
        recomputed = {name for name, place in self._network.places.items() if needed[place]}
        return self._region.recipe(lambda tensor: tensor.op.name not in recomputed)

    def _seconds(self, operation: tf.Operation) -> float:
        """About what running an operation takes."""
        moved = sum(self._size(tensor) for tensor in (*operation.inputs, *operation.outputs))
        products = self._multiplications(operation) * 2 / _FLOPS_PER_SECOND if operation.type in _PRODUCTS else 0.0
        return _SECONDS_PER_CALL + moved / _BYTES_PER_SECOND + products

    def _multiplications(self, operation: tf.Operation) -> float:
        """Of a product: the elements of the result, times the length of what is summed over."""
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


def _candidate(tensor: tf.Tensor, region: Region) -> Candidate:
    return Candidate(tensor.name.removesuffix(":0"), tensor.op.type, tensor.shape, tensor.dtype, region.is_read(tensor))


needed = _Read("needed", keeps_everything=False)
inputs = _Inputs()
everything = _Read("all", keeps_everything=True)


def save(which: Which) -> Policy:
    """Keeps what is picked among all that leads to what the backward reads; the rest runs again.

    Args:
        which: A pattern of names, or a predicate on a `Candidate`.

    Returns:
        The policy.

    Example:
        >>> save(lambda candidate: candidate.op == "MatMul")
        policies.save(<lambda>)
    """
    return _Chosen(f"save({_label(which)})", which, lambda candidate, picked: picked)


def drop(which: Which) -> Policy:
    """Keeps what the backward reads, but for what is picked, which runs again.

    Args:
        which: A pattern of names, or a predicate on a `Candidate`.

    Returns:
        The policy.

    Example:
        >>> drop("*/dropout*")
        policies.drop('*/dropout*')
    """
    return _Chosen(f"drop({_label(which)})", which, lambda candidate, picked: candidate.is_read and not picked)


def budget(nbytes: int, unknown: int | None = None) -> Policy:
    """Keeps at most so many bytes, such that what must run again takes the least time.

    It is the minimum cut between the forward and what the backward reads, each tensor at the price of its bytes and
    each operation at the price of its time; the price of a byte is raised until the cut fits the budget. As of Jain et
    al. (2020), https://arxiv.org/abs/1910.02653, the optimum; a minimum cut finds those optima that some price of
    memory gives, and is fast. Needs SciPy.

    Args:
        nbytes: Bytes, for one set of residuals.
        unknown: What an unknown dimension counts as, such as the rows of a batch.

    Returns:
        The policy. Building a part raises a `ValueError` if the budget can't be met.

    Raises:
        ValueError: The number is negative.
        ImportError: SciPy is missing.

    Example:
        >>> budget(2**20, unknown=64)
        policies.budget(1048576)
    """
    if nbytes < 0:
        raise ValueError(f"budget({nbytes}): give a number of bytes, 0 or more.")
    if find_spec("scipy") is None:
        raise ImportError("policies.budget needs SciPy for its minimum cut: pip install 'seq2split[policies]'")
    return _Budget(nbytes, unknown)


def find(policy: str | Policy) -> Policy:
    """A policy by its name, or itself.

    Raises:
        ValueError: There is none of that name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in NAMED:
        raise ValueError(f"there is no save policy {policy!r}; expected one of {sorted(NAMED)}, or one of policies.*.")
    return NAMED[policy]


def _label(which: Which) -> str:
    return repr(which) if isinstance(which, str) else which.__name__


products = _Chosen("products", lambda candidate: candidate.op in _PRODUCTS, lambda candidate, picked: picked)

NAMED = {"needed": needed, "all": everything, "inputs": inputs, "products": products}
"""The policies that take no arguments, by name."""
