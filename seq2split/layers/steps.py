"""Steps over a static length: unrolled, or in a loop.

Unrolled, each step has operations of its own, and what it returns stays where it is. But a graph takes 0.1 seconds a
step to build, and 300 steps a gigabyte. A loop is built in half a second at any length, and is about as fast if what
its steps return is written where it stays: into a buffer of all steps, in place. (TensorFlow's lists, which
`tf.TensorArray` makes, are copied as a whole after the loop; `tf.tensor_scatter_nd_update` in a loop copies the buffer
at each step.) Nobody can differentiate such a loop, so it is for who brings a gradient of his own.

XLA is given a loop of lists always. It fuses what is elementwise into the kernel of whoever reads it, and the cotangent
of an LSTM's cell is elementwise from the last step to the first. So on a processor the kernel of each unrolled step
computes all those again that came before it: 32 steps make four times as many instructions to compile, and to run, as
16, and 64 take minutes. And it knows no writing in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import tensorflow as tf

from seq2split.common.compilation import is_for_xla

Nest = Any
Series = tf.Tensor | list[tf.Tensor]
"""A tensor for each step: one tensor `[time, ...]`, or a list."""
Step = Callable[..., tuple[Nest, tuple[tf.Tensor, ...]]]
"""Takes the state and what each series has for the step; returns the state after it, and what it has found."""
Unroll = bool | Literal["auto"]
"""Whether steps are unrolled."""
_FEW = 32  # steps, which unrolled are built in seconds, and run 3 to 6 % faster than in a loop


def check_unroll(owner: str, unroll: Unroll) -> Unroll:
    """Return what says whether steps are unrolled.

    Args:
        owner: Who the error speaks of.
        unroll: What was given.

    Raises:
        ValueError: It is none of those.

    Example:
        >>> check_unroll("LSTM", "never")
        Traceback (most recent call last):
        ...
        ValueError: LSTM: unroll is 'never'; expected True, False or "auto".
    """
    if unroll != "auto" and not isinstance(unroll, bool):
        raise ValueError(f'{owner}: unroll is {unroll!r}; expected True, False or "auto".')
    return unroll


def take_steps(
    step: Step,
    state: Nest,
    given: Sequence[Series],
    order: range,
    unroll: Unroll = "auto",
    *,
    has_gradient: bool = True,
) -> tuple[Nest, list[Series]]:
    """Take all steps.

    Args:
        step: The function of one step. It reads no variables: a loop's backward would keep them at every step.
        state: The state before the first step.
        given: The series that the steps take.
        order: The numbers of the steps, in the order in which they are taken.
        unroll: Whether they are unrolled; "auto" for few of them, where XLA doesn't compile them. Outside a graph they
            always are.
        has_gradient: Whether TensorFlow is to differentiate them. Where not, the state must be of matrices
            `[rows, columns]` and what is found as well.

    Returns:
        The state after the last step, and a series of each tensor that the steps have found; all in the order of time.

    Example:
        >>> import tensorflow as tf
        >>> total, (sums,) = take_steps(lambda s, x: (s + x, (s + x,)), 0.0, [tf.constant([1.0, 2.0, 4.0])], range(3))
        >>> float(total), stacked(sums).numpy().tolist()
        (7.0, [1.0, 3.0, 7.0])
    """
    if unroll == "auto":
        unroll = len(order) <= (1 if is_for_xla() else _FEW)
    if unroll or tf.executing_eagerly():
        return _take_unrolled(step, state, given, order)
    in_place = not has_gradient and not is_for_xla()
    return (_take_in_place if in_place else _take_in_a_loop)(step, state, [stacked(each) for each in given], order)


def stacked(series: Series) -> tf.Tensor:
    """Return a series as one tensor `[time, ...]`."""
    return tf.stack(series) if isinstance(series, list) else series


def joined(series: Series) -> tf.Tensor:
    """Return a series of matrices `[rows, columns]` as one, `[time * rows, columns]`."""
    return tf.concat(series, 0) if isinstance(series, list) else tf.reshape(series, [-1, series.shape[-1]])


def _take_unrolled(step: Step, state: Nest, given: Sequence[Series], order: range) -> tuple[Nest, list[Series]]:
    given = [each if isinstance(each, list) else tf.unstack(each, len(order)) for each in given]
    found: list[Any] = [None] * len(order)
    for at in order:
        state, found[at] = step(state, *(each[at] for each in given))
    return state, [list(each) for each in zip(*found, strict=True)]


def _take_in_a_loop(step: Step, state: Nest, given: list[tf.Tensor], order: range) -> tuple[Nest, list[Series]]:
    time = len(order)
    read = [tf.TensorArray(each.dtype, time, element_shape=each.shape[1:]).unstack(each) for each in given]
    specs = _traced_specs(step, state, given)[1]

    def body(taken: tf.Tensor, state: Nest, found: list[tf.TensorArray]) -> tuple:
        at = order.start + order.step * taken
        state, values = step(state, *(each.read(at) for each in read))
        return taken + 1, state, [array.write(at, value) for array, value in zip(found, values, strict=True)]

    found = [tf.TensorArray(spec.dtype, time, element_shape=spec.shape) for spec in specs]
    _, state, found = tf.while_loop(lambda taken, *_: taken < time, body, (0, state, found), maximum_iterations=time)
    return state, [array.stack() for array in found]


def _take_in_place(step: Step, state: Nest, given: list[tf.Tensor], order: range) -> tuple[Nest, list[Series]]:
    """Take steps in a loop that writes what they find where it stays.

    The states, where they are found, are in a buffer of one place more than there are steps: those before and those
    after each step are two views of it.
    """
    time, forwards = len(order), int(order.step > 0)
    places, specs = _places(step, state, given)

    def body(taken: tf.Tensor, state: tuple[tf.Tensor, ...], buffers: list[tf.Tensor]) -> tuple:
        at = order.start + order.step * taken[None]
        one = tf.constant([1])
        after = at + one  # once for all, since operations are what building takes its time for
        state, found = step(state, *(_read(each, at, after, one) for each in given))
        place = after if forwards else at
        written = [(place, state[number]) if is_state else (at, found[number]) for is_state, number in specs]
        return taken + 1, state, [_write(each, *values) for each, values in zip(buffers, written, strict=True)]

    rows = tf.shape(state[0])[0]
    buffers = [_buffer([time + is_state, rows, *spec.shape[1:]], spec.dtype) for (is_state, _), spec in specs.items()]
    for at, (is_state, number) in enumerate(specs):
        if is_state:
            buffers[at] = _write(buffers[at], tf.constant([0 if forwards else time]), state[number])
    _, state, buffers = tf.while_loop(lambda taken, *_: taken < time, body, (0, state, buffers))
    by_key = dict(zip(specs, buffers, strict=True))
    views = {"before": slice(1 - forwards, time + 1 - forwards), "after": slice(forwards, time + forwards)}
    return state, [by_key[key][views[view]] if view else by_key[key] for key, view in places]


def _places(step: Step, state: tuple[tf.Tensor, ...], given: Sequence[tf.Tensor]) -> tuple[list, dict]:
    """Return where each tensor that a step has found is written, by tracing one apart, and what is written.

    Returns:
        For each tensor the key of its buffer, and "before" or "after" where it is a state, else "". And by these keys
        (whether it is a state, and which state or tensor) the specs of what is written at a step.
    """
    places: list[tuple[tuple[bool, int], str]] = []

    def note(state, *given):
        after, found = step(state, *given)
        for tensor in found:
            known = [((True, at), "before") for at, each in enumerate(state) if each is tensor]
            known += [((True, at), "after") for at, each in enumerate(after) if each is tensor]
            known += [((False, at), "") for at, each in enumerate(found) if each is tensor]
            places.append(known[0])
        return [after[at] if is_state else found[at] for is_state, at in dict.fromkeys(key for key, _ in places)]

    specs = _traced_specs(note, state, given)
    return places, dict(zip(dict.fromkeys(key for key, _ in places), specs, strict=True))


def _buffer(shape: Sequence[int | tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    """Return memory that holds nothing yet. TensorFlow makes each by itself; equal zeros it would make but once."""
    return tf.raw_ops.Empty(shape=tf.stack(shape), dtype=dtype)


def _read(series: tf.Tensor, at: tf.Tensor, after: tf.Tensor, one: tf.Tensor) -> tf.Tensor:
    """Return the matrix at a place, `[1]`, of a series: a view of it."""
    return tf.raw_ops.StridedSlice(input=series, begin=at, end=after, strides=one, shrink_axis_mask=1)


def _write(buffer: tf.Tensor, at: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Write a matrix `[rows, columns]` into a buffer `[places, rows, columns]` at a place, `[1]`."""
    return tf.raw_ops.InplaceUpdate(x=buffer, i=at, v=tf.expand_dims(matrix, 0))


def _traced_specs(function: Callable, state: Nest, given: Sequence[tf.Tensor]) -> Any:
    """Return the specs of what a function of one step returns, by tracing it apart: a loop must know them first."""
    specs = [tf.TensorSpec(each.shape[1:], each.dtype) for each in given]
    state_specs = tf.nest.map_structure(lambda each: tf.TensorSpec(each.shape, each.dtype), state)
    traced = tf.function(function, autograph=False).get_concrete_function(state_specs, *specs)
    return traced.structured_outputs
