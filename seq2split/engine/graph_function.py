"""Functions that have been traced, called at the floor of what a call costs; XLA's programs among them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from seq2split.engine.call_options import calls_apart
from seq2split.engine.custom_gradients import release
from seq2split.engine.python_functions import runs_python
from seq2split.engine.signature import tensor_spec


class GraphFunction:
    """A concrete function over a flat list of tensors.

    With 150 tensors `ConcreteFunction.__call__` takes 1.1 ms, its `inference_fn` 0.20 ms, and the raw operation
    `StatefulPartitionedCall` 0.17 ms. But the raw operation's kernel stays when the function is dropped, with all that
    it holds (12 kB an operation); so it's taken only where a Python function must not be paused. And it passes by XLA:
    it looks at the attributes of the nodes that it finds in a function, not at those of the function; so an XLA program
    is called from within another function.

    Args:
        concrete: The function; made with `jit_compile=True`, XLA compiles it when it is first called.
        captured: The last tensors that it takes, which are the same in each call.
        owner: Who errors speak of, such as `part 'encoder'`.

    Attributes:
        concrete: The function, which lives as long as this object.
        variables: The trainable variables that it reads.
        read: All variables that it reads or assigns.
        by_xla: True if XLA compiles it.
    """

    def __init__(self, concrete: Any, captured: list[tf.Tensor], owner: str = "a part"):
        self.concrete = concrete
        self._dtypes = [tensor.dtype for tensor in concrete.outputs]
        self._owner = owner
        self.variables = concrete.trainable_variables
        self.read = concrete.variables
        self.by_xla = concrete.function_def.attr["_XlaMustCompile"].b
        self._called, self._captured = _within_another(concrete) if self.by_xla else (concrete, captured)
        specs = concrete.inputs if self.by_xla else []
        definition = concrete.graph.as_graph_def()
        release(definition)
        # An outer gradient tape is paused; but the pause would hold for a tape in a Python function too.
        self._pauses = not runs_python(definition)
        self._is_static = all(each.shape.is_fully_defined() for each in specs)
        self._shapes: set[tuple] = set()

    @classmethod
    def closed(cls, concrete: Any, owner: str) -> GraphFunction:
        """Return a concrete function closed over what it captured."""
        return cls(concrete, concrete.captured_inputs, owner)

    @property
    def compilations(self) -> int:
        """The number of shapes of its inputs that XLA has compiled it for."""
        return len(self._shapes)

    def compile(self) -> None:
        """Have XLA compile it now, and not when it is first called: run it on zeros.

        The variables that it assigns have their values again afterwards. Nothing happens where XLA has compiled it or
        never does, nor where a shape is unknown.
        """
        if not self.by_xla or self._shapes or not self._is_static:
            return
        given = self.concrete.inputs[: len(self.concrete.inputs) - len(self.concrete.captured_inputs)]
        before = [(variable, variable.read_value()) for variable in self.read]
        try:
            self([tf.zeros(each.shape, each.dtype) for each in given])
        finally:
            for variable, value in before:
                variable.assign(value)

    def __call__(self, flat: list[tf.Tensor]) -> list[tf.Tensor]:
        if not tf.executing_eagerly():
            raise RuntimeError(
                "a part graph was called while another graph is being traced; part graphs are called eagerly: take the "
                "call out of the surrounding tf.function"
            )
        return self._counted(flat) if self.by_xla else self._run(flat)

    def within(self, flat: list[tf.Tensor]) -> list[tf.Tensor]:
        """Call it from whatever is being traced."""
        return self._raw(flat, b"")

    def _raw(self, flat: list[tf.Tensor], config: bytes) -> list[tf.Tensor]:
        args = flat + self._captured
        results = tf.raw_ops.StatefulPartitionedCall(args=args, Tout=self._dtypes, f=self._called, config_proto=config)
        return results if self._dtypes else []  # without outputs an operation comes back

    def _run(self, flat: list[tf.Tensor]) -> list[tf.Tensor]:
        with calls_apart() as config:
            if not self._pauses:
                return self._raw(flat, config)
            return self._called.inference_fn.call_flat(*flat, *self._captured) or []

    def _counted(self, flat: list[tf.Tensor]) -> list[tf.Tensor]:
        try:
            results = self._run(flat)
        except tf.errors.OpError as error:
            error.add_note(
                f"in a program that XLA compiles for {self._owner}. If XLA can't compile it: loops need static shapes "
                "and a static bound on their steps, tf.while_loop(..., maximum_iterations=n); or build the part "
                "without jit_compile."
            )
            raise
        self._shapes.add(() if self._is_static else tuple(tuple(tensor.shape) for tensor in flat))
        return results


def _within_another(concrete: Any) -> tuple[Any, list[tf.Tensor]]:
    """Return a function that calls a concrete function, and what it takes beside the inputs of that."""
    count = len(concrete.inputs) - len(concrete.captured_inputs)
    specs = [tensor_spec(each) for each in concrete.inputs[:count]]
    with tf.init_scope():
        outer = tf.function(lambda *flat: concrete(*flat), autograph=False).get_concrete_function(*specs)
    return outer, outer.captured_inputs
