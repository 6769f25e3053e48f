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
from importlib.util import find_spec

import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.engine.minimum_cut import PRODUCTS, Tradeoff
from seq2split.engine.recomputation import Recipe, Region

_EXPONENTS = (-18.0, 3.0)  # of ten: seconds that a byte may be worth
_BISECTIONS = 30


@dataclass(frozen=True)
class Candidate:
    """A forward tensor that may be kept.

    Attributes:
        name: The name in the forward, without the output's number if it is the first.
        op: The type of the operation that computes it, such as `MatMul`.
        shape: The static shape.
        dtype: The dtype.
        is_read: True if the backward reads it; false if it only leads to what the backward reads.
    """

    name: str
    op: str
    shape: tf.TensorShape
    dtype: tf.DType
    is_read: bool


Which = str | Callable[[Candidate], bool]
"""A pattern of names as in a shell (`*/dense*/*`), or a predicate."""


class Policy(ABC):
    """Which forward tensors are kept.

    Attributes:
        name: The name in tables.
        keeps_everything: True if every tensor that the forward computes is kept beside what the recipe gives.
    """

    name: str
    keeps_everything = False

    @abstractmethod
    def recipe(self, region: Region) -> Recipe:
        """Return how a backward gets what it reads.

        Args:
            region: The tensors that it could be computed from.
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
        tradeoff = Tradeoff(region, self._unknown)
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


def _candidate(tensor: tf.Tensor, region: Region) -> Candidate:
    return Candidate(tensor.name.removesuffix(":0"), tensor.op.type, tensor.shape, tensor.dtype, region.is_read(tensor))


needed = _Read("needed", keeps_everything=False)
inputs = _Inputs()
everything = _Read("all", keeps_everything=True)


def save(which: Which) -> Policy:
    """Keep what is picked among all that leads to what the backward reads; the rest runs again.

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
    """Keep what the backward reads, but for what is picked, which runs again.

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
    """Keep at most so many bytes, such that what must run again takes the least time.

    It is the minimum cut between the forward and what the backward reads, each tensor at the price of its bytes and
    each operation at the price of its time; the price of a byte is raised until the cut fits the budget. See
    `minimum_cut` for what that finds. It needs SciPy.

    Args:
        nbytes: The most bytes of one set of residuals.
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
        raise ImportError("policies.budget needs SciPy for its minimum cut: pip install scipy")
    return _Budget(nbytes, unknown)


def find(policy: str | Policy) -> Policy:
    """Return a policy by its name, or itself.

    Raises:
        ValueError: There is no policy of that name.
    """
    if isinstance(policy, Policy):
        return policy
    check_choice("the save policy", policy, NAMED)
    return NAMED[policy]


def _label(which: Which) -> str:
    return repr(which) if isinstance(which, str) else which.__name__


products = _Chosen("products", lambda candidate: candidate.op in PRODUCTS, lambda candidate, picked: picked)

NAMED = {"needed": needed, "all": everything, "inputs": inputs, "products": products}
"""The policies that take no arguments, by name."""
