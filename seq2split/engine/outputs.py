"""What a part returned while it is traced."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from seq2split.engine.signature import Signature, describe, differentiable, tensor_spec

Nest = Any


class Outputs:
    """The outputs of a part as tensors of the graph that is being traced.

    Args:
        structure: What the part returned.
        owner: Who errors speak of, such as `part 'encoder'`.

    Attributes:
        signature: The nest of their specs.
        tensors: The tensors in order, without the `None`s of the nest.
        differentiable: Those that gradients flow through.

    Raises:
        TypeError: A leaf is neither a tensor nor `None`.
    """

    def __init__(self, structure: Nest, owner: str):
        leaves = [leaf if leaf is None else _tensor(leaf, owner) for leaf in tf.nest.flatten(structure)]
        specs = [leaf if leaf is None else tensor_spec(leaf) for leaf in leaves]
        self.signature = Signature(tf.nest.pack_sequence_as(structure, specs), owner, "output")
        self.tensors = [leaf for leaf in leaves if leaf is not None]
        self.differentiable = [tensor for tensor in self.tensors if differentiable(tensor)]

    def loss(self) -> tf.Tensor:
        """Return the first output, which must be a scalar.

        Raises:
            ValueError: It isn't.
        """
        loss = self.tensors[0] if self.tensors else None
        if loss is None or loss.shape.rank != 0 or not differentiable(loss):
            raise ValueError(
                f"{self.signature.owner}: value_and_gradients takes a part that returns a scalar loss, alone or as the "
                f"first of several outputs; this one returns {describe(self.signature.structure)}. Reduce the loss to "
                "a scalar, or use forward and backward."
            )
        return loss


def _tensor(leaf: Any, owner: str) -> tf.Tensor:
    try:
        return tf.convert_to_tensor(leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{owner}: it returns a {type(leaf).__name__}; a part returns a nest of tensors. Return the dense "
            "components of a ragged or sparse tensor."
        ) from error
