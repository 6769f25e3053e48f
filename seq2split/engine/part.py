"""A piece of a model: a callable over tensors and its variables, built for each signature of inputs that it meets.

`Part` knows nothing of sequences, buckets or text: it is useful alone to anyone who must split a model. How a forward
and its backward come apart is told in `part_graph`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from seq2split.engine import policies
from seq2split.engine.export import Exported
from seq2split.engine.part_function import PartFunction
from seq2split.engine.part_graph import PartGraph
from seq2split.engine.variables import unwrapped

Nest = Any


class Part:
    """A piece of a model: a callable over tensors and its variables.

    Args:
        fn: A Keras layer or model (built or not), a `tf.Module` with `__call__`, a bound method of either, or any
            function over nests of tensors. It is traced as by `tf.function`, AutoGraph included. Where it takes an
            argument `training`, that is true in `forward` and `value_and_gradients` and false in `infer`.
        variables: The variables that get gradients. By default the trainable variables of `fn`; a plain function owns
            none, so it must name those that it reads. A variable left out is frozen: it gets no gradient and costs no
            residual.
        name: What errors and summaries call the part; by default the name of `fn`.
        save: What `forward` keeps for `backward`, and what the backward computes again: a policy of `policies`, or the
            name of one that takes no arguments.
        losses: True if the losses that its layers add (`add_loss`, regularizers) join: the part then returns
            `WithLosses(outputs, losses)`, and takes cotangents of that nest. It is for Keras layers and models, and
            their methods. Without it a part whose layers add losses warns that they are left out.
        device: Where its graphs run and its residuals stay, such as `/CPU:1`; by default where the caller is. Inputs
            and cotangents are copied there.

    Raises:
        TypeError: `fn` is not callable; or with `losses` it belongs to no Keras layer.
        ValueError: There is no save policy of that name.

    Example:
        >>> import keras, tensorflow as tf
        >>> part = Part(keras.layers.Dense(3), name="encoder")
        >>> graph = part.build(tf.TensorSpec([2, 4], tf.float32))
        >>> outputs, residuals = graph.forward(tf.ones([2, 4]))
        >>> (inputs_ct,), gradients = graph.backward(residuals, tf.ones([2, 3]))
        >>> [v.name for v in part.trainable_variables], [g.shape.as_list() for g in gradients]
        (['kernel', 'bias'], [[4, 3], [3]])
    """

    def __init__(
        self,
        fn: Callable,
        *,
        variables: Iterable | None = None,
        name: str | None = None,
        save: str | policies.Policy = "needed",
        losses: bool = False,
        device: str | None = None,
    ):
        self._function = PartFunction(fn, variables, name, losses)
        self._graphs: list[weakref.ref[PartGraph]] = []
        self.save = policies.find(save)
        self.device = device

    @property
    def fn(self) -> Callable:
        """The callable."""
        return self._function.fn

    @property
    def name(self) -> str:
        """What errors and summaries call the part."""
        return self._function.name

    @property
    def losses(self) -> bool:
        """True if the losses that its layers add join."""
        return self._function.adds_losses

    @property
    def traces(self) -> int:
        """How many times the Python code of the part has been traced."""
        return self._function.traces

    @property
    def trainable_variables(self) -> list:
        """The variables that get gradients; those of an unbuilt Keras layer exist once a graph has been built."""
        return self._function.trainable_variables

    @property
    def variables(self) -> list:
        """All variables that are known: those of `fn`, those that were named, and those that its graphs read."""
        found = {id(unwrapped(variable)): variable for variable in self._function.variables}
        for graph in self._held():
            for traced in graph.passes.values():
                for variable in traced.run.read:
                    found.setdefault(id(variable), variable)
        return list(found.values())

    def build(self, *specs: Nest, trace: Sequence[str] = ("forward",), jit_compile: bool = False) -> PartGraph:
        """Build the part for one signature of inputs.

        Args:
            *specs: One nest of `tf.TensorSpec` for each positional argument of the part; dimensions may be unknown.
            trace: Which passes to trace now: `forward` (with its backward), `value_and_gradients`, `infer`. The others
                are traced when they are first called.
            jit_compile: True if XLA compiles each pass, in `PartGraph.compile` or when it is first called. It does so
                anew for each shape that an unknown dimension takes, and for each value of an input that a shape depends
                on. Loops need a static bound on their steps; what they leave for the backward is stacked.

        Returns:
            The part graph.

        Raises:
            TypeError: A leaf of `specs` is not a `tf.TensorSpec`.
            ValueError: The part creates variables after its first trace, reads trainable variables that nobody named,
                or returns an output that carries an implicit Keras mask; or with `jit_compile` it has a loop without a
                bound.

        Example:
            >>> import keras, tensorflow as tf
            >>> part = Part(keras.layers.Dense(3))
            >>> graph = part.build(tf.TensorSpec([2, 4], tf.float32), jit_compile=True)
            >>> for _ in range(2):
            ...     outputs, residuals = graph.forward(tf.ones([2, 4]))
            ...     (inputs_ct,), gradients = graph.backward(residuals, outputs)
            >>> part.compilations  # the forward and the backward
            2
        """
        graph = PartGraph(self._function, specs, save=self.save, device=self.device, jit_compile=jit_compile)
        graph.trace(*trace)
        self._graphs.append(weakref.ref(graph))
        return graph

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write all part graphs that have been built, and are still held, as one SavedModel.

        A process without this package loads it with `tf.saved_model.load(path)`, and calls its `forward`, `backward`,
        `infer` and, where it was traced, `value_and_gradients` with the nests that the part takes; see
        `export.Exported` for what each returns. A nest's named tuples are any of the same name and fields.

        Args:
            path: A directory, which is created.

        Raises:
            ValueError: No part graph has been built; or a lookup table is read that the callable isn't known to hold.

        Example:
            >>> import keras, tempfile, tensorflow as tf
            >>> part = Part(keras.layers.Dense(3))
            >>> graph = part.build(tf.TensorSpec([2, 4], tf.float32))
            >>> path = tempfile.mkdtemp()
            >>> part.export(path)
            >>> loaded = tf.saved_model.load(path)
            >>> results = loaded.forward(tf.ones([2, 4]))
            >>> found = loaded.backward(results["residuals"], tf.ones([2, 3]))
            >>> [gradient.shape.as_list() for gradient in found["gradients"]]
            [[4, 3], [3]]
        """
        graphs = self._held()
        if not graphs:
            raise ValueError(f"part {self.name!r} has no part graphs to export; build one for each bucket first.")
        tf.saved_model.save(Exported(self.fn, graphs), os.fspath(path))

    @property
    def compilations(self) -> int:
        """How many programs XLA has compiled for the part graphs that are still held, each pass one.

        A forward and its backward are two, `value_and_gradients` is one.
        """
        return sum(graph.compilations for graph in self._held())

    def _held(self) -> list[PartGraph]:
        return [graph for graph in (reference() for reference in self._graphs) if graph is not None]

    def __repr__(self) -> str:
        return f"Part({self.name!r})"
