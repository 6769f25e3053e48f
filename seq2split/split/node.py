"""A part and its place in a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from seq2split.buckets import Buckets
from seq2split.engine import Part
from seq2split.split.sequences import Sequences

Weight = str | Callable[[Mapping[str, Sequences]], float]


class Node:
    """A part and its place in the model.

    Args:
        part: The part, or what it is made from: a Keras layer or model, a `tf.Module`, or a function that reads no
            variables. `Part(layer, save="inputs")` chooses how it is built.
        reads: The arguments of the part in order, each the name of a batch field (at most one), a node, or the name of
            another part; one of them alone, or a sequence. A field arrives as `Sequences` padded to the bucket; a
            part's outputs arrive as the nest that it returned, rows aligned, with each `Sequences` in it padded to the
            longest that is read, or with `jit_compile` to a length that the part graph is compiled for.
        buckets: The padded lengths of the field. A part that reads no field has none, and runs in the groups of the
            first part it reads.
        loss: True for a part that holds a loss. It returns a scalar, alone or as the first of several outputs that are
            only reported. The scalar is a *sum* over the positions of the field that the part reads; positions at and
            after a row's length are padding, and must add nothing to it.
        weight: The number by which the summed loss of a whole batch is divided. By default it is the number of real
            positions of the part's field. It may be `"rows"`, the number of rows, or a function of the batch, a
            mapping from the name of each field that the model reads to `Sequences` of numpy arrays. Weights must add
            up: that of two batches together is the sum of theirs.
        name: The name of the part in results, errors and checkpoints. By default it is the name that was given to the
            layer or to `Part`, or else that of the class or function in snake case, without the number that Keras
            appends to it: running a notebook cell again doesn't change it. Two parts of a model can't have the same.

    Raises:
        TypeError: `part` is not callable, or `reads` names neither fields nor nodes.
        ValueError: `weight` is given to a part that holds no loss, or is another word.

    Example:
        >>> import keras
        >>> import seq2split as s2s
        >>> encoder = s2s.Node(keras.layers.Dense(3, name="encoder"), "source", s2s.Buckets([4, 8]))
        >>> s2s.Node(keras.layers.Dense(3), [encoder, "target"], s2s.Buckets([6]), loss=True)
        Node('dense', reads=['encoder', 'target'], buckets=Buckets([6]), loss=True)
    """

    def __init__(
        self,
        part: Part | Callable,
        reads: str | Node | Sequence[str | Node],
        buckets: Buckets | None = None,
        *,
        loss: bool = False,
        weight: Weight | None = None,
        name: str | None = None,
    ):
        self.reads: tuple[str | Node, ...] = _listed(reads)
        self.name = name or _default_name(part)
        self.part = part if isinstance(part, Part) else Part(part, name=self.name)
        self.buckets, self.loss, self.weight = buckets, loss, weight
        if not (buckets is None or isinstance(buckets, Buckets)):
            raise TypeError(
                f"node {self.name!r}: buckets is {buckets!r}; expected seq2split.Buckets([8, 16]) or nothing."
            )
        if weight is not None and not loss:
            raise ValueError(
                f"node {self.name!r} was given a weight, {weight!r}, but holds no loss; give loss=True as well, or "
                "leave the weight out."
            )
        if not (weight is None or weight == "rows" or callable(weight)):
            raise ValueError(
                f"node {self.name!r}: weight is {weight!r}; expected 'rows', a function of the batch, or nothing for "
                "the number of real positions of its field."
            )

    def __repr__(self) -> str:
        reads = [read.name if isinstance(read, Node) else read for read in self.reads]
        loss = ", loss=True" if self.loss else ""
        return f"Node({self.name!r}, reads={reads}, buckets={self.buckets}{loss})"


def _listed(reads: Any) -> tuple[str | Node, ...]:
    listed = [reads] if isinstance(reads, str | Node) else reads
    wrong = [] if isinstance(listed, Iterable) else [listed]
    listed = () if wrong else tuple(listed)
    wrong += [read for read in listed if not isinstance(read, str | Node)]
    if wrong:
        raise TypeError(
            f"a node reads {wrong[0]!r}; expected the name of a batch field, a Node, or a sequence of both. Wrap a "
            "layer in a Node of its own first."
        )
    return listed


def _default_name(part: Part | Callable) -> str:
    """Return the name of a part without the number that Keras appends to the name of a layer's class."""
    fn = part.fn if isinstance(part, Part) else part
    of_function = str(getattr(fn, "name", None) or getattr(fn, "__name__", None) or type(fn).__name__)
    if isinstance(part, Part) and part.name != of_function:
        return part.name
    if not isinstance(fn, keras.Layer):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"\W", "", of_function)).lower()
    base = re.sub(r"_\d+$", "", of_function)
    return base if base.replace("_", "") == type(fn).__name__.replace("_", "").lower() else of_function
