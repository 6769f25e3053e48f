"""Sums of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf


def addends_by_part(variables: Mapping[str, Sequence]) -> dict[str, list[list[tuple[str, int]]]]:
    """Return whose gradients make up the gradient of each variable.

    Args:
        variables: The variables of each part whose gradients are wanted.

    Returns:
        For each part and each of its variables the parts that it stands in, and its place in each. Where several parts
        share a variable, the first of them has all of these, and the others have none.

    Example:
        >>> shared = tf.Variable(0.0)
        >>> addends_by_part({"encoder": [tf.Variable(0.0), shared], "decoder": [shared]})
        {'encoder': [[('encoder', 0)], [('encoder', 1), ('decoder', 0)]], 'decoder': [[]]}
    """
    found: dict[str, list[list[tuple[str, int]]]] = {}
    owners: dict[int, list] = {}
    for part, own in variables.items():
        found[part] = [[] for _ in own]
        for place, (variable, addends) in enumerate(zip(own, found[part], strict=True)):
            owners.setdefault(id(variable), addends).append((part, place))
    return found


def add_up_dense(gradients: Sequence) -> tf.Tensor | None:
    """Return the sum of gradients as a tensor, `None` if there are none.

    Keras's optimizers take `tf.IndexedSlices` whose indices repeat, as those of embeddings do, for so many updates of a
    row, and square each apart: Adam then does something else than for the gradient itself.

    Args:
        gradients: Gradients of one variable; `None` counts for nothing.

    Example:
        >>> slices = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([0, 0]), tf.constant([2, 1]))
        >>> add_up_dense([slices]).numpy().tolist()
        [[3.0], [0.0]]
    """
    total = add_up(gradients)
    return total if total is None else tf.convert_to_tensor(total)


def add_up(gradients: Sequence) -> Any:
    """Return the sum of tensors or `tf.IndexedSlices`; sparse if all are, and `None` if there are none.

    Args:
        gradients: Gradients of one variable; `None` counts for nothing.

    Example:
        >>> float(add_up([tf.constant(1.0), None, tf.constant(2.0)]))
        3.0
    """
    present = [gradient for gradient in gradients if gradient is not None]
    if len(present) < 2:
        return present[0] if present else None
    if all(isinstance(gradient, tf.IndexedSlices) for gradient in present):
        values, indices = (tf.concat([getattr(g, part) for g in present], 0) for part in ("values", "indices"))
        return tf.IndexedSlices(values, indices, present[0].dense_shape)
    return tf.add_n([tf.convert_to_tensor(gradient) for gradient in present])
