"""One part of a model at one signature: its forward, its backward, and the residuals between them.

This module is useful alone to anyone who must split a model: it knows nothing of sequences, buckets or text. A `Part`
is a callable and its variables; `Part.build` makes a `PartGraph` for one signature of inputs.

The method: the forward is traced into a graph that holds a `tf.GradientTape`. The backward is a function nested in
that graph, so that what it captures from the forward *is* the set of residuals; the forward returns them, and the
backward is called later with the cotangents and the residuals. It is what `jax.vjp` does by partial evaluation (Frostig
et al., 2021, "Decomposing reverse-mode automatic differentiation", https://arxiv.org/abs/2105.09469). Rejected:
`tf.gradients` with `prune`, which loses the order of side effects; and a persistent tape over two `tf.function`s, whose
residuals cannot be seen and live as long as the tape.

What it does not do well: `tf.recompute_grad`, and custom gradients that read variables, run their forward (or the read)
at backward time by design. The tensor lists that a `tf.while_loop` leaves for its backward are carried as they are, and
their bytes are not known, unless XLA compiles the part: then they are stacked (`lists`).
"""

from __future__ import annotations

import inspect
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from seq2split.engine import policies
from seq2split.engine.export import Exported
from seq2split.engine.passes import Gradient, trace_forward, trace_fused, trace_inference
from seq2split.engine.residuals import HELD, ResidualSpec
from seq2split.engine.signature import Signature, describe

Nest = Any
PASSES = ("forward", "value_and_gradients", "infer")


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
        device: Where its graphs run and its residuals stay, such as `/CPU:1`; by default where the caller is. Inputs
            and cotangents are copied there.

    Raises:
        TypeError: `fn` is not callable.

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
        device: str | None = None,
    ):
        if not callable(fn):
            raise TypeError(f"Part takes a callable (a Keras layer, a tf.Module or a function); it was given {fn!r}.")
        self.fn = fn
        self.name = str(name or getattr(fn, "name", None) or getattr(fn, "__name__", None) or type(fn).__name__)
        self.save = policies.find(save)
        self.device = device
        self._graphs: list[weakref.ref[PartGraph]] = []
        self.traces = 0
        """How many times the Python code of the part has been traced."""
        self._named = None if variables is None else list(variables)
        self._owner = fn if hasattr(fn, "trainable_variables") else getattr(fn, "__self__", None)
        self._takes_training = isinstance(fn, keras.Layer) or _has_argument(fn, "training")
        self._settled = False

    @property
    def trainable_variables(self) -> list:
        """The variables that get gradients; those of an unbuilt Keras layer exist once a graph has been built."""
        named = getattr(self._owner, "trainable_variables", []) if self._named is None else self._named
        return [variable for variable in named if variable.trainable]

    @property
    def variables(self) -> list:
        """All variables that are known: those of `fn`, those that were named, and those that its graphs read."""
        known = [*getattr(self._owner, "variables", []), *(self._named or [])]
        found = {id(variable.value if isinstance(variable, keras.Variable) else variable): variable for variable in known}
        for graph in self._alive():
            for traced in graph._passes.values():
                for variable in traced.run.read:
                    found.setdefault(id(variable), variable)
        return list(found.values())

    def build(self, *specs: Nest, trace: Sequence[str] = ("forward",), jit_compile: bool = False) -> PartGraph:
        """Builds the part for one signature of inputs.

        Args:
            *specs: One nest of `tf.TensorSpec` for each positional argument of the part; dimensions may be unknown.
            trace: Which passes to trace now: `forward` (with its backward), `value_and_gradients`, `infer`. The others
                are traced when they are first called.
            jit_compile: Whether XLA compiles each pass, when it is first called. It does so anew for each shape that an
                unknown dimension takes, and for each value of an input that a shape depends on. Loops need a static
                bound on their steps; what they leave for the backward is stacked.

        Returns:
            The part graph.

        Raises:
            TypeError: A leaf of `specs` is not a `tf.TensorSpec`.
            ValueError: The part creates variables after its first trace, or reads trainable variables that nobody
                named; or with `jit_compile` has a loop without a bound.

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
        graph = PartGraph(self, specs, jit_compile)
        graph.trace(*trace)
        self._graphs.append(weakref.ref(graph))
        return graph

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes all part graphs that have been built, and are still held, as one SavedModel.

        A process without this package loads it with `tf.saved_model.load(path)`, and calls its `forward`, `backward`,
        `infer` and, where it was traced, `value_and_gradients` with the nests that the part takes; see
        `exporting.Exported` for what each returns. A nest's named tuples are any of the same name and fields.

        Args:
            path: A directory, which is created.

        Raises:
            ValueError: No part graph has been built.

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
        graphs = self._alive()
        if not graphs:
            raise ValueError(f"part {self.name!r} has no part graphs to export; build one for each bucket first.")
        passes = [(graph.input_specs, graph._exported()) for graph in graphs]
        tf.saved_model.save(Exported(passes, graphs[0].variables), os.fspath(path))

    @property
    def compilations(self) -> int:
        """How many programs XLA has compiled for the part graphs that are still held, each pass one.

        A forward and its backward are two, `value_and_gradients` is one.
        """
        return sum(graph.compilations for graph in self._alive())

    def _alive(self) -> list[PartGraph]:
        return [graph for graph in (reference() for reference in self._graphs) if graph is not None]

    def _placed(self) -> Any:
        return tf.device(self.device) if self.device else nullcontext()

    def _call(self, args: tuple[Nest, ...], training: bool) -> Nest:
        self.traces += 1
        with tf.variable_creator_scope(self._create):
            if self._takes_training:
                return self.fn(*args, training=training)
            return self.fn(*args)

    def _create(self, next_creator: Callable, **kwargs: Any) -> tf.Variable:
        if self.traces > 1:
            raise self._creation_error([kwargs.get("name") or "a variable"])
        return next_creator(**kwargs)

    def _creation_error(self, names: list[str]) -> ValueError:
        return ValueError(
            f"part {self.name!r} created variables when it was called again: {', '.join(names)}. A part may create "
            "variables in its first call only, because every graph of the part shares them. Create them in __init__ "
            "or build(), or once in the first call."
        )

    def _check_named(self, read: Iterable[tf.Variable]) -> None:
        unnamed = [variable.name for variable in read]
        if self._named is None and not hasattr(self._owner, "trainable_variables") and unnamed:
            raise ValueError(
                f"part {self.name!r} reads trainable variables that nobody named: {', '.join(unnamed)}. Name those "
                "that get gradients with Part(fn, variables=[...]); the empty list freezes them all."
            )

    def _states(self) -> dict[int, str]:
        return {id(variable): variable.name for variable in getattr(self._owner, "variables", [])}

    def __repr__(self) -> str:
        return f"Part({self.name!r})"


class PartGraph:
    """A part built for one signature: its forward and its backward. Made by `Part.build`.

    The methods are called eagerly: a part graph is already a graph, and one `tf.function` around several of them would
    only optimize them again for every combination. An outer `tf.GradientTape` doesn't see the calls.

    Attributes:
        part: The part.
        variables: The part's trainable variables when the graph was first traced; gradients are aligned with them.
        jit_compile: Whether XLA compiles its passes.
    """

    def __init__(self, part: Part, specs: tuple[Nest, ...], jit_compile: bool = False):
        self.part = part
        self.jit_compile = jit_compile
        self.variables: list = part.trainable_variables
        self._inputs = Signature(specs, f"part {part.name!r}", "argument")
        self._passes: dict[str, Any] = {}
        self._live: weakref.WeakSet[Residuals] = weakref.WeakSet()

    @property
    def input_specs(self) -> tuple[Nest, ...]:
        """The nest of `tf.TensorSpec` of each argument."""
        return self._inputs.structure

    @property
    def output_specs(self) -> Nest:
        """The outputs as a nest of `tf.TensorSpec`."""
        traced = next(iter(self._passes.values()), None) or self._traced("forward")
        return traced.outputs.structure

    @property
    def residual_specs(self) -> tuple[ResidualSpec, ...]:
        """The forward tensors that the backward reads, each once."""
        return self._traced("forward").residual_specs

    @property
    def residual_bytes(self) -> int | None:
        """What one set of residuals adds to memory, in bytes; `None` where a dimension is unknown."""
        sizes = [spec.nbytes for spec in self.residual_specs if spec.kind in HELD]
        return None if None in sizes else sum(sizes)

    @property
    def compilations(self) -> int:
        """How many programs XLA has compiled for it: each pass once for each shape that its inputs have had."""
        passes = [each for traced in self._passes.values() for each in traced.programs]
        return sum(each.compilations for each in passes)

    @property
    def live_residuals(self) -> int:
        """How many residual sets are held that no backward has consumed; more than you expect is a leak."""
        return sum(not residuals.consumed for residuals in self._live)

    def forward(self, *inputs: Nest) -> tuple[Nest, Residuals]:
        """Runs the part once, and keeps what its backward will read.

        Args:
            *inputs: Tensors (or arrays) in the nests, shapes and dtypes that the graph was built for.

        Returns:
            The outputs, in the nest that the part returns, and the residuals, to be used by one `backward`.

        Raises:
            ValueError: The inputs differ from what the graph was built for in nest, shape or dtype.
        """
        traced = self._traced("forward")
        with self.part._placed():
            flat = self._inputs.flatten(inputs)
            results = traced.run(flat)
        count = len(traced.outputs.specs)
        outputs, kept = results[:count], results[count:]
        residuals = Residuals(self, traced.bind(flat, outputs, kept), [t.shape for t in outputs], traced.held(kept))
        self._live.add(residuals)
        return traced.outputs.pack(outputs), residuals

    def backward(self, residuals: Residuals, outputs_ct: Nest) -> tuple[tuple[Nest, ...], list[Gradient]]:
        """Takes the cotangents of the outputs to the inputs and variables. No forward operation runs again.

        Args:
            residuals: What a `forward` of this graph kept. They are consumed: released, and of no further use.
            outputs_ct: The gradient of the loss with respect to each output, in the nest of the outputs. `None` stands
                for zeros, and for outputs that are not differentiable, such as integers.

        Returns:
            The input cotangents, a tuple with one nest for each argument (as of `jax.vjp`), `None` where an input is
            not differentiable or the outputs don't depend on it; and the gradients, aligned with `variables`:
            `tf.IndexedSlices` stay sparse, and `None` stands where there is no path.

        Raises:
            TypeError: `residuals` is not what a `forward` returns.
            ValueError: The residuals were used before or belong to another graph; or the cotangents differ from the
                outputs in nest, shape or dtype, and then the residuals are still good.
        """
        traced = self._traced("forward")
        self._check_residuals(residuals)
        with self.part._placed():
            cotangents = traced.outputs.cotangents(outputs_ct, residuals._output_shapes)
            flat = traced.backward(cotangents + residuals._tensors)
        residuals._release()
        return traced.gradients.pack(flat)

    def value_and_gradients(
        self, *inputs: Nest, loss_ct: float | tf.Tensor = 1.0
    ) -> tuple[Nest, tuple[Nest, ...], list[Gradient]]:
        """Runs both passes in one graph: for the last part, which returns the loss.

        Args:
            *inputs: As of `forward`.
            loss_ct: The cotangent of the loss, a scalar.

        Returns:
            What the part returns: the scalar loss, alone or as the first of several outputs, of which the others are
            only reported; and the input cotangents and gradients as of `backward`.

        Raises:
            ValueError: The inputs differ from what the graph was built for in nest, shape or dtype; or the part's
                first output is not a scalar.
        """
        traced = self._traced("value_and_gradients")
        with self.part._placed():
            flat = self._inputs.flatten(inputs)
            results = traced.run([*flat, self._scalar(loss_ct)])
        count = len(traced.outputs.specs)
        return (traced.outputs.pack(results[:count]), *traced.gradients.pack(results[count:]))

    def infer(self, *inputs: Nest) -> Nest:
        """Runs the part with `training=False` and saves nothing.

        Args:
            *inputs: As of `forward`.

        Returns:
            The outputs, in the nest that the part returns.

        Raises:
            ValueError: The inputs differ from what the graph was built for in nest, shape or dtype.
        """
        traced = self._traced("infer")
        with self.part._placed():
            return traced.outputs.pack(traced.run(self._inputs.flatten(inputs)))

    def trace(self, *passes: str) -> None:
        """Traces passes now that would otherwise be traced when they are first called.

        Args:
            *passes: Of `forward` (with its backward), `value_and_gradients` and `infer`.

        Raises:
            ValueError: There is no such pass, or as of `Part.build`.
        """
        for name in passes:
            self._traced(name)

    def _scalar(self, loss_ct: float | tf.Tensor) -> tf.Tensor:
        scalar = tf.cast(loss_ct if tf.is_tensor(loss_ct) else tf.constant(loss_ct, tf.float64), tf.float64)
        if scalar.shape.rank != 0:
            raise ValueError(
                f"{self}: value_and_gradients was given a loss_ct of shape {scalar.shape.as_list()}; expected a "
                "scalar, the cotangent of the loss. Reduce it, or use forward and backward."
            )
        return scalar

    def _check_residuals(self, residuals: Residuals) -> None:
        if not isinstance(residuals, Residuals):
            raise TypeError(
                f"{self}: backward was given {type(residuals).__name__} as residuals; expected what forward returned "
                "beside the outputs: call backward(residuals, outputs_ct)."
            )
        if residuals._graph is not self:
            raise ValueError(
                f"{self}: backward was given the residuals of {residuals._graph}; expected its own. Residuals go back "
                "to the graph whose forward made them."
            )
        if residuals.consumed:
            raise ValueError(
                f"{self}: backward was given residuals that an earlier backward has used and released. Run forward "
                "again before each backward."
            )

    def _traced(self, name: str) -> Any:
        if name not in PASSES:
            raise ValueError(f"{self}: there is no pass {name!r}; a part graph has {', '.join(PASSES)}.")
        if name not in self._passes:
            with self.part._placed():
                self._passes[name] = self._trace(name)
        return self._passes[name]

    def _exported(self) -> dict[str, Any]:
        """Its traced passes, with those that every export has."""
        if "value_and_gradients" not in self._passes:
            self._traced("forward")
        self._traced("infer")
        return dict(self._passes)

    def _trace(self, name: str) -> Any:
        part, before = self.part, self.part._states()
        try:
            traced = self._trace_once(name)
            if not part._settled and _ids(self.variables) != _ids(part.trainable_variables):
                traced = self._trace_once(name)  # the first trace created variables that its tape did not watch
            created = [name for key, name in part._states().items() if key not in before]
            if part._settled and created:
                raise part._creation_error(created)
            part._check_named(traced.run.variables)
        except Exception as error:
            part.traces *= part._settled
            error.add_note(f"while tracing {name} of {self}")
            raise
        part._settled = True
        return traced

    def _trace_once(self, name: str) -> Any:
        call = partial(self.part._call, training=name != "infer")
        self._watched()
        if name == "infer":
            return trace_inference(call, self._inputs, self.jit_compile)
        if name == "forward":
            return trace_forward(call, self._inputs, self._watched, self.part.save, self.jit_compile)
        return trace_fused(call, self._inputs, self._watched, self.jit_compile)

    def _watched(self) -> list:
        if not self._passes:  # later passes keep to those of the first
            self.variables = self.part.trainable_variables
        return self.variables

    def __repr__(self) -> str:
        return f"PartGraph({self.part.name!r}, {describe(self.input_specs)})"


class Residuals:
    """The forward tensors that one backward will read: from `PartGraph.forward` to `PartGraph.backward`.

    A set is consumed by its backward; `PartGraph.live_residuals` counts those that were not, so that a leak is visible.
    """

    def __init__(
        self,
        graph: PartGraph,
        tensors: list[tf.Tensor],
        output_shapes: list[tf.TensorShape],
        held: list[tf.Tensor],
    ):
        self._graph = graph
        self._tensors: list[tf.Tensor] | None = tensors
        self._output_shapes = output_shapes
        self._held = held

    @property
    def consumed(self) -> bool:
        """Whether a backward has used them."""
        return self._tensors is None

    @property
    def nbytes(self) -> int:
        """What they add to memory, in bytes: what the forward computed, without the lists that a loop wrote."""
        sized = [tensor for tensor in self._held if tensor.dtype not in (tf.variant, tf.resource, tf.string)]
        return sum(math.prod(tensor.shape) * tensor.dtype.size for tensor in sized)

    def _release(self) -> None:
        self._tensors, self._held = None, []

    def __repr__(self) -> str:
        return f"Residuals({self._graph}, {'consumed' if self.consumed else f'{self.nbytes} bytes'})"


def _has_argument(fn: Callable, name: str) -> bool:
    try:
        return name in inspect.signature(fn).parameters
    except (TypeError, ValueError):  # built-in functions have no signature
        return False


def _ids(variables: list) -> list[int]:
    return [id(variable) for variable in variables]
