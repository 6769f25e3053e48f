"""The residuals of one forward: the tensors that it keeps for its backward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

HELD = ("computed", "random")
"""The kinds of residuals that occupy memory of their own."""
UNSIZED = (tf.variant, tf.resource, tf.string)
"""The dtypes whose elements have no fixed number of bytes."""


@dataclass(frozen=True)
class ResidualSpec:
    """One forward tensor that the backward is given.

    Attributes:
        name: The tensor's name in the forward.
        kind: `computed` by the forward and kept in memory for the backward, or `random` if it follows from nothing but
            random draws; or, costing no memory of its own, the value of a `variable`, an `input`, an `output`, or of
            another residual in another shape (`alias`).
        shape: The static shape.
        dtype: The dtype.
        nbytes: The size in bytes; `None` where a dimension is unknown or the tensor is a list that a loop wrote.
    """

    name: str
    kind: str
    shape: tf.TensorShape
    dtype: tf.DType
    nbytes: int | None


class Residuals:
    """The forward tensors that one backward will read: from `PartGraph.forward` to `PartGraph.backward`.

    A set is consumed by its backward; `PartGraph.live_residuals` counts those that were not, so that a leak is visible.

    Args:
        owner: The part graph whose forward made them, to be compared and printed.
        tensors: The arguments of the backward after the cotangents.
        held: Those among them that occupy memory of their own.
        output_shapes: The shapes of the forward's outputs.

    Attributes:
        owner: The part graph whose forward made them.
        tensors: The arguments of the backward after the cotangents; none once they are consumed.
        held: Those among them that occupy memory of their own.
        output_shapes: The shapes of the forward's outputs.
        consumed: True once a backward has used them.
    """

    def __init__(
        self, owner: Any, tensors: list[tf.Tensor], held: list[tf.Tensor], output_shapes: list[tf.TensorShape]
    ):
        self.owner, self.tensors, self.held, self.output_shapes = owner, tensors, held, output_shapes
        self.consumed = False

    @property
    def nbytes(self) -> int:
        """What they add to memory, in bytes: what the forward computed, without the lists that a loop wrote."""
        sized = [tensor for tensor in self.held if tensor.dtype not in UNSIZED]
        return sum(math.prod(tensor.shape) * tensor.dtype.size for tensor in sized)

    def release(self) -> None:
        """Let the tensors go, as a backward does that has used them."""
        self.tensors, self.held, self.consumed = [], [], True

    def __repr__(self) -> str:
        return f"Residuals({self.owner}, {'consumed' if self.consumed else f'{self.nbytes} bytes'})"
