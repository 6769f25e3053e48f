"""A part at one signature of inputs: its passes, called eagerly.

The method: the forward is traced into a graph that holds a `tf.GradientTape`. The backward is a function nested in
that graph, so that what it captures from the forward *is* the set of residuals; the forward returns them, and the
backward is called later with the cotangents and the residuals. It is what `jax.vjp` does by partial evaluation (Frostig
et al., 2021, "Decomposing reverse-mode automatic differentiation", https://arxiv.org/abs/2105.09469). Rejected:
`tf.gradients` with `prune`, which loses the order of side effects; and a persistent tape over two `tf.function`s, whose
residuals cannot be seen and live as long as the tape.

What it does not do well: `tf.recompute_grad`, and custom gradients that read variables, run their forward (or the read)
at backward time by design. The tensor lists that a `tf.while_loop` leaves for its backward are carried as they are, and
their bytes are not known, unless XLA compiles the part: then they are stacked (`tensor_lists`).
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.engine.outer_tapes import sealed
from seq2split.engine.part_function import PartFunction
from seq2split.engine.passes import PASSES, ForwardPass, InferencePass, LossPass, Pass, TracingContext
from seq2split.engine.policies import Policy
from seq2split.engine.residuals import HELD, Residuals, ResidualSpec
from seq2split.engine.results import BackwardResult, ForwardResult, LossResult
from seq2split.engine.signature import Signature, describe

Nest = Any
P = TypeVar("P", bound=Pass)


class PartGraph:
    """A part built for one signature: its forward and its backward. Made by `Part.build`.

    The methods are called eagerly: a part graph is already a graph, and one `tf.function` around several of them would
    only optimize them again for every combination. An outer `tf.GradientTape` can't see into the calls: to
    differentiate through them by it is an error.

    Args:
        function: The part's callable with its variables.
        specs: One nest of `tf.TensorSpec` for each argument.
        save: The save policy.
        device: Where it runs; `None` for where the caller is.
        jit_compile: True if XLA compiles its passes.

    Attributes:
        jit_compile: True if XLA compiles its passes.
        variables: The part's trainable variables when the graph was first traced; gradients are aligned with them.
        passes: The passes that have been traced, by their class.
        traces: How many times the Python code of the part has been traced for this graph.
    """

    def __init__(
        self,
        function: PartFunction,
        specs: tuple[Nest, ...],
        *,
        save: Policy,
        device: str | None = None,
        jit_compile: bool = False,
    ):
        self._function, self._device = function, device
        self._inputs = Signature(specs, f"part {function.name!r}", "argument")
        self._save = save
        self._live: weakref.WeakSet[Residuals] = weakref.WeakSet()
        self.jit_compile = jit_compile
        self.variables: list = function.trainable_variables
        self._frozen: list = []
        self.passes: dict[type[Pass], Any] = {}
        self.traces = 0

    @property
    def name(self) -> str:
        """The part's name."""
        return self._function.name

    @property
    def input_specs(self) -> tuple[Nest, ...]:
        """The nest of `tf.TensorSpec` of each argument."""
        return self._inputs.structure

    @property
    def output_specs(self) -> Nest:
        """The outputs as a nest of `tf.TensorSpec`."""
        traced = next(iter(self.passes.values()), None) or self._traced(ForwardPass)
        return traced.outputs.structure

    @property
    def residual_specs(self) -> tuple[ResidualSpec, ...]:
        """The forward tensors that the backward reads, each once."""
        return self._traced(ForwardPass).residual_specs

    @property
    def residual_bytes(self) -> int | None:
        """What one set of residuals adds to memory, in bytes; `None` where a dimension is unknown."""
        sizes = [spec.nbytes for spec in self.residual_specs if spec.kind in HELD]
        return None if None in sizes else sum(sizes)

    @property
    def compilations(self) -> int:
        """How many programs XLA has compiled for it: each pass once for each shape that its inputs have had."""
        functions = [each for traced in self.passes.values() for each in traced.functions]
        return sum(each.compilations for each in functions)

    @property
    def live_residuals(self) -> int:
        """How many residual sets are held that no backward has consumed; more than you expect is a leak."""
        return sum(not residuals.consumed for residuals in self._live)

    def forward(self, *inputs: Nest) -> ForwardResult:
        """Run the part once, and keep what its backward will read.

        Args:
            *inputs: Tensors (or arrays) in the nests, shapes and dtypes that the graph was built for.

        Returns:
            The outputs, in the nest that the part returns, and the residuals, to be used by one `backward`.

        Raises:
            ValueError: The inputs differ from what the graph was built for in nest, shape or dtype; or variables were
                frozen or made trainable since it was traced.
        """
        traced = self._traced(ForwardPass)
        self._check_trainable()
        with self._placed():
            flat = self._inputs.flatten(inputs)
            outputs, kept = traced.split(traced.run(flat))
        shapes = [tensor.shape for tensor in outputs]
        residuals = Residuals(self, traced.bind(flat, outputs, kept), traced.held(kept), shapes)
        self._live.add(residuals)
        return ForwardResult(traced.outputs.pack(self._sealed(outputs, flat, traced)), residuals)

    def backward(self, residuals: Residuals, outputs_ct: Nest) -> BackwardResult:
        """Take the cotangents of the outputs to the inputs and variables. No forward operation runs again.

        Args:
            residuals: What a `forward` of this graph kept. They are consumed: released, and of no further use.
            outputs_ct: The gradient of the loss with respect to each output, in the nest of the outputs. `None` stands
                for zeros, and for outputs that are not differentiable, such as integers.

        Returns:
            The input cotangents and the gradients.

        Raises:
            TypeError: `residuals` is not what a `forward` returns.
            ValueError: The residuals were used before or belong to another graph; or the cotangents differ from the
                outputs in nest, shape or dtype, and then the residuals are still good.
        """
        traced = self._traced(ForwardPass)
        self._check_residuals(residuals)
        with self._placed():
            cotangents = traced.outputs.cotangents(outputs_ct, residuals.output_shapes)
            flat = traced.backward(cotangents + residuals.tensors)
            flat = self._sealed(flat, cotangents, traced)
        residuals.release()
        return BackwardResult(*traced.gradients.pack(flat))

    def value_and_gradients(
        self, *inputs: Nest, loss_ct: float | tf.Tensor = 1.0, losses_ct: float | tf.Tensor = 1.0
    ) -> LossResult:
        """Run both passes in one graph: for the last part, which returns the loss.

        Args:
            *inputs: Tensors, as in `forward`.
            loss_ct: The cotangent of the loss, a scalar.
            losses_ct: The cotangent of the losses that layers add, a scalar, where they join (`Part(losses=True)`).

        Returns:
            What the part returns: the scalar loss, alone or as the first of several outputs, whose others are only
            reported; and the input cotangents and gradients.

        Raises:
            ValueError: The inputs differ from what the graph was built for in nest, shape or dtype; variables were
                frozen or made trainable since it was traced; or the part's first output is not a scalar.
        """
        traced = self._traced(LossPass)
        self._check_trainable()
        with self._placed():
            flat = self._inputs.flatten(inputs)
            results = traced.run([*flat, self._scalar(loss_ct), self._scalar(losses_ct)])
            outputs, gradients = traced.split(self._sealed(results, flat, traced))
        return LossResult(traced.outputs.pack(outputs), *traced.gradients.pack(gradients))

    def infer(self, *inputs: Nest) -> Nest:
        """Run the part with `training=False` and save nothing.

        Args:
            *inputs: Tensors, as in `forward`.

        Returns:
            The outputs, in the nest that the part returns.

        Raises:
            ValueError: The inputs differ from what the graph was built for in nest, shape or dtype.
        """
        traced = self._traced(InferencePass)
        with self._placed():
            flat = self._inputs.flatten(inputs)
            return traced.outputs.pack(self._sealed(traced.run(flat), flat, traced))

    def trace(self, *passes: str) -> None:
        """Trace passes now that would otherwise be traced when they are first called.

        Args:
            *passes: Any of `forward` (with its backward), `value_and_gradients` and `infer`.

        Raises:
            ValueError: There is no such pass, or the part can't be traced; see `Part.build`.
        """
        for name in passes:
            if name not in PASSES:  # not described otherwise, which takes as long as all else in a small call
                check_choice(f"{self}: the pass to trace", name, PASSES)
            self._traced(PASSES[name])

    def compile(self, *passes: str) -> None:
        """Have XLA compile passes now that it would otherwise compile when they are first called.

        Each is run on zeros, and the variables that it assigns have their values again afterwards. Without
        `jit_compile`, and where a dimension is unknown, passes are traced and no more.

        Args:
            *passes: Any of `forward` (with its backward), `value_and_gradients` and `infer`.

        Raises:
            ValueError: There is no such pass, or the part can't be traced; see `Part.build`.
            tf.errors.OpError: XLA can't compile it.

        Example:
            >>> import keras
            >>> from seq2split.engine import Part
            >>> graph = Part(keras.layers.Dense(3)).build(tf.TensorSpec([2, 4], tf.float32), jit_compile=True)
            >>> graph.compile("forward")
            >>> graph.compilations  # the forward and the backward
            2
        """
        self.trace(*passes)
        for name in passes:
            with self._placed():
                for function in self.passes[PASSES[name]].functions:
                    function.compile()

    def _scalar(self, loss_ct: float | tf.Tensor) -> tf.Tensor:
        scalar = tf.cast(loss_ct if tf.is_tensor(loss_ct) else tf.constant(np.array(loss_ct), tf.float64), tf.float64)
        if scalar.shape.rank != 0:
            raise ValueError(
                f"{self}: value_and_gradients was given a cotangent of shape {scalar.shape.as_list()}; expected a "
                "scalar, that of the loss. Reduce it, or use forward and backward."
            )
        return scalar

    def _check_residuals(self, residuals: Residuals) -> None:
        if not isinstance(residuals, Residuals):
            raise TypeError(
                f"{self}: backward was given {type(residuals).__name__} as residuals; expected what forward returned "
                "beside the outputs: call backward(residuals, outputs_ct)."
            )
        if residuals.owner is not self:
            raise ValueError(
                f"{self}: backward was given the residuals of {residuals.owner}; expected its own. Residuals go back "
                "to the graph whose forward made them."
            )
        if residuals.consumed:
            raise ValueError(
                f"{self}: backward was given residuals that an earlier backward has used and released. Run forward "
                "again before each backward."
            )

    def _traced(self, kind: type[P]) -> P:
        if kind not in self.passes:
            with self._placed():
                self.passes[kind] = self._trace(kind)
        return self.passes[kind]

    def _trace(self, kind: type[P]) -> P:
        try:
            with self._function.tracing():
                traced = self._trace_once(kind)
                if not self._function.is_settled and self._has_new_variables():
                    traced = self._trace_once(kind)  # the first trace created variables that its tape did not watch
                self._function.check_read(traced.run.variables)
                return traced
        except Exception as error:
            error.add_note(f"while tracing {kind.name} of {self}")
            raise

    def _trace_once(self, kind: type[P]) -> P:
        self._watched()
        context = TracingContext(self._call, self._inputs, self._watched, self._save, self.jit_compile)
        try:
            return kind(context)
        except TypeError as error:
            if not self._function.is_to_call_again(error):
                raise
        return kind(context)

    def _call(self, args: tuple[Nest, ...], training: bool) -> Nest:
        outputs = self._function(args, training)
        self.traces += 1
        return outputs

    def _watched(self) -> list:
        if not self.passes:  # later passes keep to the variables of the first
            self.variables, self._frozen = self._function.trainable_variables, self._function.frozen_variables
        return self.variables

    def _check_trainable(self) -> None:
        frozen = [variable.name for variable in self.variables if not variable.trainable]
        thawed = [variable.name for variable in self._frozen if variable.trainable]
        if frozen or thawed:
            changes = {"frozen": frozen, "made trainable": thawed}
            told = " and ".join(f"{', '.join(names)} {how}" for how, names in changes.items() if names)
            raise ValueError(
                f"{self}: its gradients are those of the variables that were trainable when it was traced, but since "
                f"then {told}. Set trainable before the first call, or make the part (and the model) anew; to freeze "
                "for a while, leave the gradients out, or give the trainer an UpdateRule."
            )

    def _has_new_variables(self) -> bool:
        return [id(each) for each in self.variables] != [id(each) for each in self._function.trainable_variables]

    def _sealed(self, results: list[tf.Tensor], inputs: list[tf.Tensor], traced: Pass) -> list[tf.Tensor]:
        return sealed(results, chain(inputs, traced.run.variables), self)

    def _placed(self) -> Any:
        return tf.device(self._device) if self._device else nullcontext()

    def __repr__(self) -> str:
        return f"PartGraph({self.name!r}, {describe(self.input_specs)})"
