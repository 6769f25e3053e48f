"""What a part returned while it is traced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from seq2split.engine.added_losses import WithLosses
from seq2split.engine.signature import Signature, describe, differentiable, leaf_paths, tensor_spec

Nest = Any


class Outputs:
    """The outputs of a part as tensors of the graph that is being traced.

    Args:
        structure: What the part returned; `WithLosses`, where the losses that its layers add join.
        owner: Who errors speak of, such as `part 'encoder'`.

    Attributes:
        signature: The nest of their specs.
        tensors: The tensors in order, without the `None`s of the nest.
        differentiable: Those that gradients flow through.

    Raises:
        TypeError: A leaf is neither a tensor nor `None`.
        ValueError: A leaf carries an implicit Keras mask.
    """

    def __init__(self, structure: Nest, owner: str):
        _check_no_masks(structure, owner)
        leaves = [leaf if leaf is None else _tensor(leaf, owner) for leaf in tf.nest.flatten(structure)]
        specs = [leaf if leaf is None else tensor_spec(leaf) for leaf in leaves]
        self.signature = Signature(tf.nest.pack_sequence_as(structure, specs), owner, "output")
        self._adds = isinstance(structure, WithLosses)
        own = structure.outputs if self._adds else structure
        self._is_ambiguous = isinstance(own, Mapping) and len(own) > 1
        self.tensors = [leaf for leaf in leaves if leaf is not None]
        self.differentiable = [tensor for tensor in self.tensors if differentiable(tensor)]

    @property
    def added(self) -> list[tf.Tensor]:
        """The losses that the part's layers added, one scalar, where they join; else none."""
        return self.tensors[-1:] if self._adds else []

    def loss(self) -> tf.Tensor:
        """Return the first output, which must be a scalar.

        Raises:
            ValueError: It isn't; or the outputs are a dictionary, of which none is the first.
        """
        if self._is_ambiguous:  # tf.nest sorts its keys: "accuracy" would be the loss
            raise ValueError(
                f"{self.signature.owner}: value_and_gradients takes a part that returns a scalar loss, alone or as the "
                f"first of several outputs; this one returns a dictionary, {describe(self.signature.structure)}. "
                'Return the loss before what is only reported: loss, {"accuracy": ...}.'
            )
        loss = self.tensors[0] if self.tensors else None
        if loss is None or loss.shape.rank != 0 or not differentiable(loss):
            raise ValueError(
                f"{self.signature.owner}: value_and_gradients takes a part that returns a scalar loss, alone or as the "
                f"first of several outputs; this one returns {describe(self.signature.structure)}. Sum the loss to "
                "a scalar, or use forward and backward."
            )
        return loss


def _check_no_masks(structure: Nest, owner: str) -> None:
    """Check that no output carries a mask that would be lost: only tensors cross from one part to the next."""
    for leaf, path in zip(tf.nest.flatten(structure), leaf_paths(structure, "output"), strict=True):
        # Keras notes the mask as an attribute of the tensor. A scalar, such as a loss, has nothing to mask.
        if getattr(leaf, "_keras_mask", None) is not None and leaf.shape.rank != 0:
            raise ValueError(
                f"{owner}: {path} carries an implicit Keras mask (from Embedding(mask_zero=True), Masking or a layer "
                "after one), which does not cross to the next part; there, padding would count. Return "
                "tf.identity(output) in its place, which has no mask. If the next part needs the mask, make it "
                "explicit: return the lengths (or the mask) as an output of its own, and give mask=... to the layer "
                "that reads it."
            )


def _tensor(leaf: Any, owner: str) -> tf.Tensor:
    try:
        return tf.convert_to_tensor(leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{owner}: it returns a {type(leaf).__name__}; a part returns a nest of tensors. Return the dense "
            "components of a ragged or sparse tensor."
        ) from error
