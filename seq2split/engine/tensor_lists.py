"""The tensor lists that a loop leaves for its backward, made dense: so they cross from one XLA program to another.

A `tf.while_loop` pushes what its backward reads to lists, one element for each step, and the
backward pops them. XLA holds a list as a buffer of `maximum_iterations` elements and the number of those in use, and
lets neither out. So the forward stacks the buffer, and the backward makes a list of it and pops what the loop left
unused. In a loop within a loop the elements are lists: those are popped one by one, and stacked as one tensor.

What it does not do well: a stack has a copy of each element. A weight that a loop reads in its body is on a list, as
many times as there are steps (Keras's recurrent layers do so): read it before the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import tensorflow as tf

from seq2split.engine.dataflow import LOOPS, Dataflow, Place
from seq2split.engine.provenance import Provenance
from seq2split.engine.recomputation import Recipe, recompute
from seq2split.engine.signature import tensor_spec

_MADE = {"EmptyTensorList": (0, 1), "TensorListReserve": (0, 1), "TensorListFromTensor": (1, None)}
"""Types of operations that make a list, and which of their inputs are an element's shape and the number of elements."""
_CHANGED = {"TensorListPushBack": 1, "TensorListSetItem": 2}
"""Types of operations that change a list, their first input, and which input is the new element."""


@dataclass(frozen=True)
class ListSpec:
    """What a list holds.

    Attributes:
        dtype: The dtype of an element, or of the elements of the lists that it holds.
        shape: The shape of an element.
        length: The number of elements it has room for; `None` where that is not known, -1 where there is no bound.
        inner: What the lists that it holds hold; `None` if it holds tensors.
    """

    dtype: tf.DType
    shape: tf.TensorShape
    length: int | None
    inner: ListSpec | None = None

    @property
    def dense_shape(self) -> tf.TensorShape:
        """The shape of all elements in one tensor."""
        return tf.TensorShape([self.length]).concatenate(self.inner.dense_shape if self.inner else self.shape)

    @property
    def lengths(self) -> list[int | None]:
        """Its own length, and those of the lists that it holds."""
        return [self.length, *(self.inner.lengths if self.inner else [])]


class Crossing:
    """How forward tensors that a backward reads cross from one XLA program to another.

    Args:
        wanted: The tensors, symbolic ones of the graph that is being traced. Stacks are added to that graph.
        owner: Who errors speak of.

    Raises:
        ValueError: A loop has no static bound on its steps.
    """

    def __init__(self, wanted: list[tf.Tensor], owner: str):
        self._owner = owner
        self._provenance = Provenance()
        self._lists = TensorLists(tf.compat.v1.get_default_graph())
        self._given: dict[Any, tf.Tensor] = {}
        self._ways = [self._plan(tensor) for tensor in wanted]

    @property
    def given(self) -> list[tf.Tensor]:
        """The tensors that cross, each once."""
        return list(self._given.values())

    def rebuild(self, given: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """Return the wanted tensors in another graph, from those that crossed."""
        crossed = dict(zip(self._given, given, strict=True))
        return [make(*(crossed[reference] for reference in references)) for references, make in self._ways]

    def _plan(self, tensor: tf.Tensor) -> tuple[list, Callable]:
        """Return the tensors to carry across, and a function that rebuilds the wanted one."""
        if tensor.dtype == tf.resource:  # XLA takes a variable's handle once, and returns none
            handle = self._handle(tensor)
            return [], lambda: handle
        if tensor.dtype == tf.variant:
            return self._plan_list(tensor)
        value = tf.get_static_value(self._provenance.origin(tensor))
        if value is not None:  # as a constant of the other program, XLA can fold it
            return [], lambda: tf.constant(value, tensor.dtype)
        return self._cross([tensor]), lambda crossed: crossed

    def _cross(self, tensors: list[tf.Tensor]) -> list:
        references = [tensor.ref() for tensor in tensors]
        self._given |= dict(zip(references, tensors, strict=True))
        return references

    def _handle(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the handle that the forward captured."""
        name = self._lists.flow.source(self._lists.flow.place(tensor)).name
        return next(captured for captured, inside in tensor.graph.captures if inside.op.name == name)

    def _plan_list(self, tensor: tf.Tensor) -> tuple[list, Callable]:
        spec = self._checked(tensor)
        with tf.name_scope(f"{tensor.op.name}_{tensor.value_index}_dense"):
            crossing = _to_dense(tensor, spec)
        return self._cross(crossing), lambda dense, used=None: _from_dense(dense, used, spec)

    def _checked(self, tensor: tf.Tensor) -> ListSpec:
        spec = self._lists.spec(tensor)
        if spec is None or -1 in spec.lengths:
            raise ValueError(
                f"{self._owner}: with jit_compile=True its backward reads a list of {tensor.name}, of which "
                f"{'nothing is known' if spec is None else 'the length has no bound'}. XLA needs loops whose number of "
                "steps has a static bound: give tf.while_loop(..., maximum_iterations=n), and static shapes to layers "
                "that loop over time; or build the part without jit_compile."
            )
        if spec.inner is not None and tensor.op.type not in LOOPS:  # XLA crashes on what would make it dense
            raise ValueError(
                f"{self._owner}: with jit_compile=True its backward reads lists of lists of {tensor.name}, which a "
                "tf.function returns that has a loop within a loop. Take the tf.function off, or build the part "
                "without jit_compile."
            )
        return spec


def _to_dense(tensor: tf.Tensor, spec: ListSpec) -> list[tf.Tensor]:
    """Return a list as a dense tensor, and the number of elements in use if they stand in front."""
    maker = _maker(tensor)
    if maker.type not in _MADE or spec.inner is not None:
        return [_pop_all(tensor, spec)]
    dense = tf.raw_ops.TensorListStack(
        input_handle=tensor, element_shape=_shape(spec.shape), element_dtype=spec.dtype, num_elements=-1
    )
    # What is not pushed to, but written by index, is in use as a whole.
    used = [tensor.op.outputs[0]] if maker.type == "EmptyTensorList" else []
    return [tf.ensure_shape(dense, spec.dense_shape), *used]


def _pop_all(handle: tf.Tensor, spec: ListSpec) -> tf.Tensor:
    """Return all elements, those in use at the end: popping XLA's lists further than they are filled is harmless.

    Slower than a stack, by a copy for each element; but it needs to know nothing of how many there are.
    """
    count = spec.length if spec.length is not None else tf.raw_ops.TensorListLength(input_handle=handle)
    array = tf.TensorArray(spec.dtype, size=count, element_shape=spec.dense_shape[1:])

    def body(step, handle, array):
        handle, element = tf.raw_ops.TensorListPopBack(
            input_handle=handle, element_shape=_shape(spec.shape), element_dtype=_element_dtype(spec)
        )
        return step + 1, handle, array.write(count - 1 - step, _pop_all(element, spec.inner) if spec.inner else element)

    _, _, array = tf.while_loop(lambda step, *_: step < count, body, (0, handle, array))
    return tf.ensure_shape(array.stack(), spec.dense_shape)


def _from_dense(dense: tf.Tensor, used: tf.Tensor | None, spec: ListSpec) -> tf.Tensor:
    """Return the list that `_to_dense` made dense."""
    if spec.inner is not None:
        return _push_all(dense, spec)
    handle = tf.raw_ops.TensorListFromTensor(tensor=dense, element_shape=_shape(spec.shape))
    if used is None:
        return handle

    def body(left, handle):
        popped = tf.raw_ops.TensorListPopBack(
            input_handle=handle, element_shape=_shape(spec.shape), element_dtype=spec.dtype
        )
        return left - 1, popped.output_handle

    # No step at all for a loop that ran as often as it may, and no copy.
    return tf.while_loop(lambda left, _: left > 0, body, (tf.shape(dense)[0] - used, handle))[1]


def _push_all(dense: tf.Tensor, spec: ListSpec) -> tf.Tensor:
    """Return a list of the lists whose elements are the rows."""
    count = tf.shape(dense)[0]
    handle = tf.raw_ops.EmptyTensorList(
        element_shape=_shape(spec.shape), max_num_elements=count, element_dtype=_element_dtype(spec)
    )

    def body(step, handle):
        inner = _from_dense(dense[step], None, spec.inner)
        return step + 1, tf.raw_ops.TensorListPushBack(input_handle=handle, tensor=inner)

    return tf.while_loop(lambda step, _: step < count, body, (0, handle))[1]


def _element_dtype(spec: ListSpec) -> tf.DType:
    return tf.variant if spec.inner else spec.dtype


def _shape(shape: tf.TensorShape) -> tf.Tensor:
    dimensions = -1 if shape.rank is None else [-1 if each is None else each for each in shape]
    return tf.constant(dimensions, tf.int32)


def _maker(tensor: tf.Tensor) -> tf.Operation:
    """Return the operation that made a list, before a loop changed it."""
    return tensor.op.inputs[tensor.value_index].op if tensor.op.type in LOOPS else tensor.op


def _room(maker: tf.Operation) -> int | None:
    """Return the number of elements that a list has room for by the operation that made it."""
    if maker.type == "TensorListFromTensor":
        return maker.inputs[0].shape[0]
    operations = Provenance().constants(maker.inputs[1]) if maker.type in _MADE else None  # Keras computes the number
    if operations is None:
        return None
    with tf.init_scope():
        return int(tf.function(lambda: recompute(Recipe([], operations), [], [maker.inputs[1]]), autograph=False)()[0])


class TensorLists:
    """Finds out what the lists of a graph hold; a tensor of a list doesn't say."""

    def __init__(self, graph: tf.Graph):
        self._graph = graph

    @cached_property
    def flow(self) -> Dataflow:
        """The values of the graph, as it was when this was first asked for."""
        return Dataflow(self._graph)

    def dense_spec(self, tensor: tf.Tensor) -> tf.TensorSpec:
        """Return the spec of a forward tensor where it crosses; its own spec if that can't be found out."""
        found = self.spec(tensor) if tensor.dtype == tf.variant else None
        return tf.TensorSpec(found.dense_shape, found.dtype) if found else tensor_spec(tensor)

    def spec(self, tensor: tf.Tensor) -> ListSpec | None:
        """Return what a list holds; `None` if that can't be found out."""
        found = self._spec(self.flow.place(tensor))
        return replace(found, length=_room(_maker(tensor))) if found and found.length is None else found

    def _spec(self, place: Place) -> ListSpec | None:
        made = self.flow.source(place, through=_CHANGED)
        if made.op not in _MADE:
            return None
        at_shape, at_length = _MADE[made.op]
        dtype, shape = tf.as_dtype(made.node.attr["element_dtype"].type), self.flow.constant(made.input(at_shape))
        shape = tf.TensorShape(None if shape is None or shape.ndim == 0 else [None if n < 0 else n for n in shape])
        length = None if at_length is None else self.flow.constant(made.input(at_length))
        length = None if length is None else int(length)
        if dtype != tf.variant:
            return ListSpec(dtype, shape, length)
        pushed = self.flow.source(place, into_bodies=True)
        inner = self._spec(pushed.input(_CHANGED[pushed.op])) if pushed.op in _CHANGED else None
        return inner and ListSpec(inner.dtype, shape, length, inner)
