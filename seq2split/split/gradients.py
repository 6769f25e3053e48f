"""Sums of gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import tensorflow as tf


def sums_by_part(
    variables: Mapping[str, Sequence], gradients: Mapping[str, Sequence[Sequence]], each: Callable = map
) -> dict[str, list]:
    """Return the gradients of each part, summed over its groups and over the parts that share a variable.

    Args:
        variables: The variables of each part.
        gradients: For each part whose gradients are wanted one list for each of its groups, aligned with its variables.
        each: A function that calls another for each item, as `map` does.

    Returns:
        For each part its gradients, aligned with its variables; `None` for those that are not wanted. Where several
        parts share a variable, the first of them has the sum, and the others have `None`.
    """
    addends: dict[str, list[list]] = {}
    owners: dict[int, list] = {}
    for name, groups in gradients.items():
        addends[name] = [list(terms) for terms in zip(*groups, strict=True)]
        for terms, variable in zip(addends[name], variables[name], strict=True):
            owner = owners.setdefault(id(variable), terms)
            if owner is not terms:
                owner += terms
                terms.clear()
    sums = iter(each(add_up, chain.from_iterable(addends.values())))
    return {
        name: list(islice(sums, len(own))) if name in addends else [None] * len(own) for name, own in variables.items()
    }


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
