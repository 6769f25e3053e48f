"""A model of several parts: one part graph for each part and bucket, and one step over a batch of any lengths.

A batch is grouped once for each part by the bucket of the field that the part reads. Outputs are carried to the groups
that read them (`routing`), every group's part graph runs once forward and once backward, and the cotangents travel back
the same ways. A batch of one bucket pair takes the same path with one group each, where carrying does nothing.

The orchestration is eager: one `tf.function` around the calls would be optimized anew for every combination of buckets
(2 s each).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import keras
import tensorflow as tf

from seq2split.buckets import Buckets
from seq2split.engine import PartGraph
from seq2split.engine.outer_tapes import sealed
from seq2split.engine.variables import unwrapped
from seq2split.split.batch_step import BatchStep
from seq2split.split.context_lengths import ContextLengths, check_compilation
from seq2split.split.fields import Fields
from seq2split.split.grouping import FixedGrouping, FlexibleGrouping
from seq2split.split.loss_checks import check_padding, check_sums
from seq2split.split.node import Node
from seq2split.split.part_graphs import PartGraphs
from seq2split.split.results import ADDED_LOSSES, BatchLosses, Gradient, LossAndGradients
from seq2split.split.threads import Workers
from seq2split.split.updates import apply_gradients
from seq2split.split.wiring import WiredPart, Wiring

Nest = Any


class SplitModel:
    """Parts that read one another.

    The parts with losses (`Node(..., loss=True)`) return sums, and the model divides them by their weights over the
    whole batch, so that the result doesn't depend on the grouping. Where several parts hold losses, such as two
    decoders of one encoder, the loss is the sum of theirs.

    Args:
        nodes: The nodes, each after those that it reads.
        fields: For each batch field the dtype and shape of one position; integers of no further dimension by default.
        row_multiple: Rows of a group are rounded up to a multiple of this with empty filler, so that kernels, which are
            compiled for each shape, meet few of them. Parts whose rows affect one another (batch normalization) need 1.
        group_overhead: The number of rows that one more group costs as much as. Rows of a batch go up to a longer
            bucket of it where their padding costs less than a group of their own; with 0 each row stays in its bucket.
        threads: The number of groups that run at once. Groups are divided so that there is work for each, so parts
            whose rows affect one another need 1 here too. On a processor, one thread for each core pays, if TensorFlow
            spreads no single operation over them: see `threads.use_cores`. Operations on unrolled steps are too short
            to be shared, and a core that works on its own rows shares nothing. The threads don't see a `tf.device`
            scope of the caller.
        jit_compile: True if XLA compiles the part graphs, in `build` or when each is first called. Their shapes are
            static then.
        rows: With `jit_compile`, the number of rows that every part graph takes: groups are cut into pieces of so many,
            and the last is filled with empty rows. About what a bucket holds of a batch wastes least.
        context_buckets: With `jit_compile`, the number of lengths to which what a part reads of another is padded. With
            1, that of the other's longest bucket, there is one part graph for each part and bucket. With more, evenly
            chosen among the other's buckets, there is less padding, and a part graph for each of them and each of its
            own buckets: E + D × `context_buckets` at most.

    Attributes:
        row_multiple: The number that rows of a group are rounded up to a multiple of.
        group_overhead: The number of rows that one more group costs as much as.
        threads: The number of groups that run at once.
        jit_compile: True if XLA compiles the part graphs.

    Raises:
        ValueError: The parts can't be wired as the nodes say; or `rows` and `context_buckets` are out of range, or
            given without `jit_compile`.

    Example:
        >>> import seq2split as s2s
        >>> encoder = s2s.Node(s2s.models.RecurrentEncoder(50, 4, 8, name="encoder"), "source", s2s.Buckets([4, 8]))
        >>> decoder = s2s.models.RecurrentDecoder(50, 8, 2, 4, 8, name="decoder")
        >>> model = s2s.SplitModel([encoder, s2s.Node(decoder, [encoder, "target"], s2s.Buckets([3, 6]), loss=True)])
        >>> batch = {"source": [[7, 8, 9], [5, 6, 7, 8, 9]], "target": [[7, 8, 3, 4, 3], [5, 3]]}
        >>> loss, gradients = model.loss_and_gradients(batch)
        >>> sorted(model.graphs)
        [('decoder', 3), ('decoder', 6), ('encoder', 4), ('encoder', 8)]
        >>> model.apply_gradients(keras.optimizers.SGD(0.1), gradients)
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        *,
        fields: Mapping[str, tf.TensorSpec] | None = None,
        row_multiple: int = 1,
        group_overhead: int = 0,
        threads: int = 1,
        jit_compile: bool = False,
        rows: int | None = None,
        context_buckets: int = 1,
    ):
        if threads < 1 or row_multiple < 1 or group_overhead < 0:
            raise ValueError(
                f"SplitModel was given {threads=}, {row_multiple=} and {group_overhead=}; expected 1 or more of the "
                "first two, and 0 or more of the last."
            )
        self.row_multiple, self.group_overhead = row_multiple, group_overhead
        self.threads, self.jit_compile = threads, jit_compile
        self._wiring = Wiring(nodes)
        check_compilation(jit_compile, rows, context_buckets, row_multiple)
        self._wiring.check_fields(fields or {})
        self._wiring.check_added_losses(filler=jit_compile or row_multiple > 1)
        contexts = ContextLengths(self._wiring, context_buckets) if jit_compile else None
        self._grouping = (
            FixedGrouping(group_overhead, rows, contexts)
            if contexts
            else FlexibleGrouping(group_overhead, threads, row_multiple)
        )
        self._graphs = PartGraphs(self._wiring, fields or {}, contexts, rows)
        self._workers = Workers(threads)

    @property
    def parts(self) -> dict[str, WiredPart]:
        """The parts by name, each with what it reads, its buckets, and whether it holds a loss."""
        return dict(self._wiring.parts)

    @property
    def fields(self) -> dict[str, tf.TensorSpec]:
        """The dtype and shape of one position of each batch field that the model reads."""
        return {field: self._graphs.position(field) for field in self._wiring.fields.values()}

    @property
    def graphs(self) -> dict[tuple, PartGraph]:
        """The part graphs built so far, by part and bucket; with `context_buckets` above 1 also by the context's."""
        return dict(self._graphs.built)

    @property
    def compilations(self) -> int:
        """The number of programs that XLA has compiled, each pass of a part graph one; seen buckets add none.

        In training the graphs of a part that holds a loss have one program, and all others two: a forward and its
        backward.
        """
        return sum(graph.compilations for graph in self._graphs.built.values())

    @property
    def traces(self) -> int:
        """The number of times that the Python code of any part has been traced; steps over seen buckets add none."""
        return sum(part.part.traces for part in self._wiring.parts.values())

    @property
    def trainable_variables(self) -> list:
        """The variables that get gradients, each once, part by part.

        Parts that make their variables in their first call are traced for their shortest bucket first.
        """
        self.create_variables()
        found = [variable for part in self._wiring.parts.values() for variable in part.part.trainable_variables]
        return list({id(variable): variable for variable in found}.values())

    def upstream(self, name: str) -> list[str]:
        """Return the names of a part and of those that it depends on, in order."""
        return self._wiring.upstream(name)

    def create_variables(self) -> None:
        """Trace each part that has not been traced yet for its shortest bucket, so that all variables exist."""
        for name in self._wiring.parts:
            self._graphs.trace_any(name)

    def loss_and_gradients(
        self, batch: Fields, frozen: Collection[str] = (), weights: Mapping[str, float] | None = None
    ) -> LossAndGradients:
        """Run every part forward and backward over a batch.

        Args:
            batch: For each field `Sequences` of arrays, or a list of rows of any lengths; row by row they belong
                together.
            frozen: The parts whose gradients nobody wants: they are `None`, and the backward of a part that stands
                behind frozen parts alone is not run.
            weights: For each part with a loss the number to divide its sum by; by default as its node says, over this
                batch. Batches whose gradients are to be added up share the weights of all of them together.

        Returns:
            The loss, the gradients of each part, the metrics and the weights; it unpacks as `loss, gradients`.

        Raises:
            ValueError: A field is missing, the fields differ in their rows, or there is no such part to freeze.
            OverlongError: A row is longer than the last bucket.
        """
        self._wiring.check_names(frozen, "to freeze")
        with self._step(batch, self._wiring.parts) as step:
            weights = step.weights(weights)
            for name in self._wiring.inner:
                step.forward(name)
            for name in self._wiring.losses:
                step.value_and_gradients(name, weights[name])
            for name in reversed(self._wiring.inner):
                if not set(self._wiring.upstream(name)) <= set(frozen):
                    step.backward(name)
            gradients = step.gradients(frozen)
            losses = step.losses(weights)
        self._wiring.check_added_losses(filler=False)  # variables that layers made in their first call exist now
        loss, metrics, gradients = self._sealed(batch, (losses.loss, losses.metrics, gradients))
        return LossAndGradients(loss, metrics, losses.weights, gradients)

    def losses(self, batch: Fields) -> BatchLosses:
        """Return the loss and the metrics of a batch, every part in inference.

        Args:
            batch: The batch; see `loss_and_gradients`.

        Returns:
            The loss, the metrics and the weights.
        """
        with self._step(batch, self._wiring.parts) as step:
            for name in self._wiring.parts:
                step.infer(name)
            losses = step.losses(step.weights())
        return BatchLosses(*self._sealed(batch, (losses.loss, losses.metrics)), losses.weights)

    def weights(self, batch: Fields) -> dict[str, float]:
        """Return the number by which the summed loss of each part with a loss is divided.

        Args:
            batch: The batch; see `loss_and_gradients`.

        Returns:
            The weights by part.
        """
        with self._step(batch, self._wiring.parts) as step:
            return step.weights()

    def check_losses(self, batch: Fields) -> None:
        """Warn of losses by which gradients would depend on how a batch is grouped or padded.

        The first row that is not empty is measured alone and several times in a batch: divided by its weight, a sum is
        the same. More rows than `row_multiple` make another shape of it, which a mean over the shape shows.

        Args:
            batch: The batch; see `loss_and_gradients`.
        """
        with self._step(batch, self._wiring.parts) as step:
            one, several = (step.repeated_row(times) for times in (1, self.row_multiple + 1))
        once = self.losses(one)
        check_sums(once, self.losses(several))
        if ADDED_LOSSES in once.metrics:
            check_padding(once, self._with_longest_buckets().losses(one))

    def infer(self, batch: Fields, name: str) -> Nest:
        """Return the outputs of one part in inference, in the order of the batch.

        Args:
            batch: The batch; see `loss_and_gradients`. Only the fields that the part depends on are needed.
            name: The part.

        Returns:
            The nest that the part returns; each `Sequences` in it is padded to the longest bucket that occurs.

        Raises:
            ValueError: There is no such part, or it holds a loss and returns no rows; or see `loss_and_gradients`.
        """
        if name not in self._wiring.inner:
            raise ValueError(
                f"infer was asked for the rows of part {name!r}; expected one of {self._wiring.inner}. For what "
                f"{' and '.join(self._wiring.losses)} returns call losses(batch)."
            )
        needed = self._wiring.upstream(name)
        with self._step(batch, needed) as step:
            for part in needed:
                step.infer(part)
            outputs = step.in_order(name)
        return self._sealed(batch, outputs)

    def apply_gradients(
        self,
        optimizer: keras.optimizers.Optimizer | Mapping[str, keras.optimizers.Optimizer],
        gradients: Mapping[str, list[Gradient]],
    ) -> None:
        """Move the trainable variables.

        Args:
            optimizer: A Keras optimizer for all parts, or one for each part by name; parts may share one. A part that
                is left out stays as it is.
            gradients: The gradients of each part, as `loss_and_gradients` returns them; `None` leaves a variable as it
                is.

        Raises:
            ValueError: There is no part of such a name, or its gradients are missing or not as many as its variables.
        """
        names = optimizer if isinstance(optimizer, Mapping) else gradients
        self._wiring.check_names([*names, *gradients], "to update")
        variables = {name: part.part.trainable_variables for name, part in self._wiring.parts.items()}
        apply_gradients(optimizer, variables, gradients)

    def output_specs(self, name: str) -> Nest:
        """Return what a part hands over, whatever its bucket.

        Args:
            name: The part.

        Returns:
            A nest of `tf.TensorSpec`, rows and times unknown.
        """
        return self._graphs.output_specs(name)

    def build(self, progress: bool = True, inference: bool = False) -> None:
        """Build the part graphs of all buckets, at most one for each part and bucket.

        With `jit_compile` XLA compiles them too, which takes seconds for each. Otherwise it would do so when a batch
        first meets a bucket.

        Args:
            progress: True to show a bar.
            inference: True to build what `losses` and `infer` run as well as what `loss_and_gradients` does.
        """
        self._graphs.build(progress, inference)

    def _with_longest_buckets(self) -> SplitModel:
        nodes = [
            Node(
                part.part,
                part.reads,
                part.buckets and Buckets([part.buckets.boundaries[-1]]),
                loss=part.loss,
                weight=part.weight,
                name=name,
            )
            for name, part in self._wiring.parts.items()
        ]
        return SplitModel(nodes, fields=self.fields)

    def _sealed(self, batch: Fields, results: Nest) -> Nest:
        """Hide results from a tape around the call, which the part graphs that ran in other threads don't know of."""
        parts = (variable for part in self._wiring.parts.values() for variable in part.part.trainable_variables)
        given = (leaf for field in batch.values() for leaf in tf.nest.flatten(field) if tf.is_tensor(leaf))
        return sealed(results, chain(map(unwrapped, parts), given), "a split model")

    @contextmanager
    def _step(self, batch: Fields, names: Iterable[str]) -> Iterator[BatchStep]:
        """Yield a batch on its way through some parts; when the context ends, nothing is running any more."""
        with self._workers.schedule() as schedule:
            yield BatchStep(
                batch, names, wiring=self._wiring, graphs=self._graphs, grouping=self._grouping, schedule=schedule
            )
