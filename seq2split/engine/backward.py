"""How a backward is made of the tape's gradients: what it is given, what it computes again, and what XLA compiles.

The gradients are traced as a function nested in the forward's graph. What that function captures from the forward is
what the backward reads; a save policy decides which of it the backward is given, and which it computes again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from seq2split.engine.custom_gradients import release
from seq2split.engine.graph_function import GraphFunction
from seq2split.engine.policies import Policy
from seq2split.engine.recomputation import Recipe, Region, recompute
from seq2split.engine.signature import tensor_spec
from seq2split.engine.tensor_lists import Crossing, TensorLists

_MEASURING = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
"""Operations that read the shape of a tensor, and no numbers."""


class NestedBackward:
    """A backward as a function nested in the graph of its forward, which is being traced.

    Args:
        gradients: Takes a cotangent for each differentiable output, and returns the gradients' tensors.
        outputs: The differentiable outputs of the forward.
        at_hand: Forward tensors that cost nothing to keep: inputs and outputs.
        owner: Who errors speak of.

    Raises:
        ValueError: TensorFlow can't take the gradients in a function of their own.
    """

    def __init__(
        self,
        gradients: Callable[..., list[tf.Tensor]],
        outputs: Sequence[tf.Tensor],
        at_hand: list[tf.Tensor],
        owner: str,
    ):
        self._cotangents = [tensor_spec(tensor) for tensor in outputs]
        self._at_hand, self._owner = at_hand, owner
        try:
            self._nested = tf.function(gradients, autograph=False).get_concrete_function(*self._cotangents)
        except AssertionError as error:
            if error.args:
                raise
            # TensorFlow's cond_v2 wants what a branch's gradient reads in the branch, or in the graph of the gradients.
            raise ValueError(
                f"{owner}: TensorFlow can't take its gradients in a function of their own. Where a branch of tf.cond "
                "or tf.switch_case has a custom gradient (tf.recompute_grad, tf.custom_gradient, tf.nn.silu), what "
                "that reads must be made in the branch: give it tf.identity(x) for an x from outside; or run both "
                "passes in one graph, with value_and_gradients."
            ) from error
        release(self._nested.graph.as_graph_def())

    def assemble(self, policy: Policy) -> tuple[GraphFunction, list[tf.Tensor]]:
        """Return the backward that follows a save policy, and the forward tensors that it takes after the cotangents.

        Of those forward tensors whose numbers nobody reads it takes the shapes, all in one tensor.
        """
        read, measured = self._read_or_measured()
        recipe = policy.recipe(Region(read, self._at_hand))
        if not recipe.recomputed and not measured:
            return GraphFunction(self._nested, [], self._owner), self._nested.captured_inputs
        # int64, since TensorFlow keeps int32 results of a function where shapes aren't expected, and then refuses them.
        shapes = [tf.concat([tf.shape(tensor, tf.int64) for tensor in measured], 0)] if measured else []
        taken = [*recipe.given, *shapes]

        def run(cotangents, given):
            unfilled = _unfilled(measured, given[-1]) if measured else {}
            return self._recompute_and_run(recipe, cotangents, given[: len(recipe.given)], unfilled)

        return self._traced(run, taken), taken

    def assemble_for_xla(self, policy: Policy) -> tuple[GraphFunction, list[tf.Tensor]]:
        """Return the same as a program of XLA's: what it takes crosses from the program of the forward."""
        dense_spec = TensorLists(tf.compat.v1.get_default_graph()).dense_spec
        recipe = policy.recipe(Region(self._captured, self._at_hand, dense_spec))
        crossing = Crossing(recipe.given, self._owner)

        def run(cotangents, given):
            return self._recompute_and_run(recipe, cotangents, crossing.rebuild(given), {})

        return self._traced(run, crossing.given, jit_compile=True), crossing.given

    @property
    def _captured(self) -> list[tf.Tensor]:
        """The forward tensors that it captured."""
        return [each for each in self._nested.captured_inputs if tf.is_symbolic_tensor(each)]

    def _read_or_measured(self) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return the captured tensors whose numbers are read, and those that are only asked for their shape.

        The gradient of a sum asks for shapes, where they are not static. What is free to keep is never among the
        latter.
        """
        region = Region(self._captured, self._at_hand)
        captured = self._nested.captured_inputs
        inside = self._nested.inputs[len(self._nested.inputs) - len(captured) :]
        returned = {tensor.ref() for tensor in self._nested.outputs}
        read, measured = [], []
        for tensor, placeholder in zip(captured, inside, strict=True):
            if tf.is_symbolic_tensor(tensor):
                by_shape = all(operation.type in _MEASURING for operation in placeholder.consumers())
                by_shape &= placeholder.ref() not in returned
                by_shape &= tensor.dtype.is_floating and tensor.shape.rank is not None
                (measured if by_shape and not region.is_free(tensor) else read).append(tensor)
        return read, measured

    def _traced(self, run: Callable, taken: list[tf.Tensor], jit_compile: bool | None = None) -> GraphFunction:
        """Return a function of the cotangents and of what is taken beside them."""
        count = len(self._cotangents)
        flat_run = tf.function(lambda *flat: run(flat[:count], flat[count:]), autograph=False, jit_compile=jit_compile)
        concrete = flat_run.get_concrete_function(*self._cotangents, *map(tensor_spec, taken))
        return GraphFunction.closed(concrete, self._owner)

    def _recompute_and_run(
        self,
        recipe: Recipe,
        cotangents: Sequence[tf.Tensor],
        given: Sequence[tf.Tensor],
        known: Mapping[Any, tf.Tensor],
    ) -> list[tf.Tensor]:
        """Compute what the nested function reads and is not known by reference, and run it."""
        wanted = [tensor for tensor in self._captured if tensor.ref() not in known]
        found = dict(zip((tensor.ref() for tensor in wanted), recompute(recipe, list(given), wanted), strict=True))
        found |= known
        captured = self._nested.captured_inputs
        read = [found[each.ref()] if tf.is_symbolic_tensor(each) else each for each in captured]
        dtypes = [each.dtype for each in self._nested.outputs]
        called = tf.raw_ops.StatefulPartitionedCall(args=[*cotangents, *read], Tout=dtypes, f=self._nested)
        return called if dtypes else []  # without outputs an operation comes back


def _unfilled(measured: list[tf.Tensor], shapes: tf.Tensor) -> dict[Any, tf.Tensor]:
    """Return, by reference, a tensor of the same shape for each, whose memory nobody writes or reads."""
    each = tf.split(tf.cast(shapes, tf.int32), [tensor.shape.rank for tensor in measured])
    pairs = zip(measured, each, strict=True)
    return {tensor.ref(): tf.raw_ops.Empty(shape=shape, dtype=tensor.dtype) for tensor, shape in pairs}
