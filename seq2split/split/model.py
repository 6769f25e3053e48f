"""A model as parts wired by name: one part graph for each part and bucket, and one step over a batch of any lengths.

A batch is grouped once for each part by the bucket of the field that the part reads. Outputs are carried to the groups
that read them (`carry`), every group's part graph runs once forward and once backward, and the cotangents travel back
the same ways. A batch of one bucket pair takes the same path with one group each, where carrying does nothing.

The orchestration is eager: one `tf.function` around the calls would be optimized anew for every combination of buckets
(2 s each).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import RLock
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from seq2split.engine import PartGraph
from seq2split.engine.signature import describe
from seq2split.split.context_lengths import ContextLengths
from seq2split.split.fields import Batch
from seq2split.split.grouping import FixedGrouping, FlexibleGrouping, Group
from seq2split.split.routing import time_leaves
from seq2split.split.sequences import Sequences
from seq2split.split.step import Step
from seq2split.split.threads import Workers
from seq2split.split.wiring import Node, Wiring

Nest = Any


class SplitModel:
    """Parts wired by name.

    A part that no other reads holds a loss: it returns a scalar summed over the real positions of its field, alone or
    as the first of several such sums that are only reported. The model divides by the number of those positions in the
    whole batch, so that the result doesn't depend on the grouping. Where several parts hold losses, such as two
    decoders of one encoder, the gradients are those of the sum of these means.

    Args:
        nodes: The parts, each after those that it reads.
        fields: For each batch field the dtype and shape of one position; integers of no further dimension by default.
        row_multiple: Rows of a group are rounded up to a multiple with empty filler, so that kernels, which are
            compiled for each shape, meet few of them. Parts whose rows affect one another (batch normalization) need 1.
        threads: How many groups run at once. Groups are divided so that there is work for each, so parts whose rows
            affect one another need 1 here too. On a processor, one thread for each core pays, if TensorFlow spreads no
            single operation over them: `tf.config.threading.set_intra_op_parallelism_threads(1)`. Operations on
            unrolled steps are too short to be shared, and a core that works on its own rows shares nothing. The
            threads don't see a `tf.device` scope of the caller.
        jit_compile: Whether XLA compiles the part graphs, when each is first called. Their shapes are static then.
        rows: With `jit_compile`, how many rows every part graph takes: groups are cut into pieces of so many, and the
            last is filled with empty rows. About what a bucket holds of a batch wastes least.
        context_buckets: With `jit_compile`, to how many lengths what a part reads of another is padded. With 1, that
            of the other's longest bucket, there is one part graph for each part and bucket. With more, evenly chosen
            among the other's buckets, there is less padding, and a part graph for each of them and each of its own
            buckets: E + D × `context_buckets` at most.

    Raises:
        ValueError: The parts can't be wired as the nodes say; or `rows` and `context_buckets` are out of range, or
            given without `jit_compile`.

    Example:
        >>> import seq2split as s2s
        >>> from seq2split.models import RecurrentDecoder, RecurrentEncoder
        >>> model = s2s.SplitModel([
        ...     s2s.Node(s2s.Part(RecurrentEncoder(50, 4, 8, name="encoder")), ["source"], s2s.Buckets([4, 8])),
        ...     s2s.Node(s2s.Part(RecurrentDecoder(50, 8, 2, 4, 8, name="decoder")), ["encoder", "target"], s2s.Buckets([3, 6])),
        ... ])
        >>> batch = {"source": [[7, 8, 9], [5, 6, 7, 8, 9]], "target": [[7, 8, 3, 4, 3], [5, 3]]}
        >>> (loss, nll), gradients = model.loss_and_gradients(batch)
        >>> sorted(model.graphs)
        [('decoder', 3), ('decoder', 6), ('encoder', 4), ('encoder', 8)]
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        *,
        fields: Mapping[str, tf.TensorSpec] | None = None,
        row_multiple: int = 1,
        threads: int = 1,
        jit_compile: bool = False,
        rows: int | None = None,
        context_buckets: int = 1,
    ):
        self.wiring = Wiring(nodes)
        """Which part reads which."""
        _check_compilation(jit_compile, rows, context_buckets, row_multiple)
        self._memory = ContextLengths(self.wiring, context_buckets) if jit_compile else None
        self._rows = rows
        self.grouping = FixedGrouping(rows, self._memory) if jit_compile else FlexibleGrouping(threads, row_multiple)
        """How rows are grouped."""
        self.workers = Workers(threads)
        self.graphs: dict[tuple, PartGraph] = {}
        """The part graphs built so far, by part and bucket; with `context_buckets` above 1 also by the memory's."""
        self._fields = dict(fields or {})
        self._building = RLock()
        self._boundaries: dict[str, Nest] = {}

    @property
    def nodes(self) -> dict[str, Node]:
        """The parts with what they read, by name."""
        return self.wiring.nodes

    @property
    def ends(self) -> list[str]:
        """The parts that no other reads, which hold losses."""
        return self.wiring.ends

    @property
    def compilations(self) -> int:
        """How many programs XLA has compiled, each pass of a part graph one; steps over seen buckets add none.

        In training the graphs of a part that holds a loss have one program, and all others two: a forward and its
        backward.
        """
        return sum(graph.compilations for graph in self.graphs.values())

    @property
    def traces(self) -> int:
        """How many times the Python code of any part has been traced; steps over seen buckets add none."""
        return sum(node.part.traces for node in self.nodes.values())

    def loss_and_gradients(self, batch: Batch, frozen: Collection[str] = ()) -> tuple[Nest, dict[str, list]]:
        """Runs every part forward and backward over a batch.

        Args:
            batch: For each field `Sequences` of arrays, or a list of rows of any lengths; row by row they belong
                together.
            frozen: The parts whose gradients nobody wants: they are `None`, and the backward of a part that stands
                behind frozen parts alone is not run.

        Returns:
            What the part that holds the loss returns, each divided by the number of real positions of its field; of
            several such parts, a dictionary of that by part. And for each part its gradients, aligned with its
            trainable variables. Of a variable that stands in several parts, such as tied embeddings, the first of them
            has the sum, and the others `None`.

        Raises:
            ValueError: A field is missing, the fields differ in their rows, or there is no such part to freeze.
            OverlongError: A row is longer than the last bucket.
        """
        self._check_frozen(frozen)
        step = Step(self, batch, self.nodes)
        for name in self.wiring.inner:
            step.forward(name)
        for name in self.ends:
            step.losses_and_gradients(name)
        for name in reversed(self.wiring.inner):
            if not set(self.wiring.upstream(name)) <= set(frozen):
                step.backward(name)
        return step.means(), step.gradients(frozen)

    def losses(self, batch: Batch) -> Nest:
        """What `loss_and_gradients` returns first, with every part in inference.

        Args:
            batch: As of `loss_and_gradients`.

        Returns:
            As of `loss_and_gradients`.
        """
        step = Step(self, batch, self.nodes)
        for name in self.nodes:
            step.infer(name)
        return step.means()

    def infer(self, batch: Batch, name: str) -> Nest:
        """The outputs of one part in inference, in the order of the batch.

        Args:
            batch: As of `loss_and_gradients`; only the fields that the part depends on are needed.
            name: The part.

        Returns:
            The nest that the part returns; each `Sequences` in it is padded to the longest bucket that occurs.

        Raises:
            ValueError: There is no such part, or it holds a loss and returns no rows; or as of `loss_and_gradients`.
        """
        if name not in self.wiring.inner:
            raise ValueError(
                f"infer was asked for the rows of part {name!r}; expected one of {self.wiring.inner}. For what "
                f"{' and '.join(self.ends)} returns call losses(batch)."
            )
        needed = self.wiring.upstream(name)
        step = Step(self, batch, needed)
        for part in needed:
            step.infer(part)
        return step.in_order(name)

    def build(self, progress: bool = True) -> None:
        """Builds the part graphs of all buckets for training, at most one for each part and bucket.

        Args:
            progress: Whether to show a bar.
        """
        todo = [
            (name, length, memory)
            for name in self.nodes
            for length in self.wiring.lengths(name)
            for memory in self._memories(name)
        ]
        with tqdm(todo, desc="building part graphs", unit="graph", disable=not progress) as bar:
            for name, *lengths in bar:
                bar.set_postfix_str(f"{name} {lengths[0]}")
                self.graph(name, *lengths).trace("value_and_gradients" if name in self.ends else "forward")

    def graph(self, name: str, length: int, memory: tuple[int, ...] = ()) -> PartGraph:
        """The part graph of one bucket, built when it is first asked for.

        Args:
            name: The part.
            length: The bucket, as its padded length.
            memory: With `context_buckets` above 1, the length at which it reads each other part that has a field; by
                default the longest.

        Returns:
            The part graph.
        """
        memory = memory or self._memories(name)[-1]
        key = (name, length, *memory)
        if key not in self.graphs:
            specs = self.specs(name, length, memory)
            self.graphs[key] = self.nodes[name].part.build(*specs, trace=(), jit_compile=self.is_compiled)
        return self.graphs[key]

    def graphs_of(self, name: str, groups: Sequence[Group], wanted: str) -> list[PartGraph]:
        """The part graphs of groups, ready to run; whoever else asks for graphs meanwhile waits for these.

        Args:
            name: The part.
            groups: Of rows.
            wanted: The pass that will be run, as of `PartGraph.trace`.

        Returns:
            One for each group.
        """
        with self._building:
            graphs = [self.graph(name, group.length, group.memory) for group in groups]
            for graph in graphs:
                graph.trace(wanted)
        return graphs

    def specs(self, name: str, length: int, memory: tuple[int, ...] = ()) -> list[Nest]:
        """The inputs of one part graph, as of `graph`: for each argument a nest of `tf.TensorSpec`."""
        memory = memory or self._memories(name)[-1]
        return [
            self.handed_over(name, read, length, memory) if read in self.nodes else self._field_spec(read, length)
            for read in self.nodes[name].reads
        ]

    def handed_over(self, name: str, read: str, length: int, memory: tuple[int, ...]) -> Nest:
        """What a part graph, as of `graph`, reads of another part: a nest of specs."""
        if not self.is_compiled:
            return self.boundary(read)
        specs = self.graph(read, *self._memory.source(name, read, length, memory)).output_specs
        self.boundary(read)  # checks that it can cross
        return specs

    def boundary(self, name: str) -> Nest:
        """What a part hands over, whatever its bucket: a nest of specs whose rows and times are unknown."""
        with self._building:
            if name not in self._boundaries:
                built = [graph for (part, *_), graph in self.graphs.items() if part == name]
                graph = built[0] if built else self.graph(name, self.wiring.lengths(name)[0])
                timed = iter(time_leaves(graph.output_specs))
                self._boundaries[name] = tf.nest.map_structure(
                    lambda spec: _relax(spec, next(timed), name), graph.output_specs
                )
            return self._boundaries[name]

    def position(self, field: str) -> tf.TensorSpec:
        """The dtype and shape of one position of a batch field."""
        return self._fields.get(field, tf.TensorSpec([], tf.int32))

    @property
    def is_compiled(self) -> bool:
        """Whether XLA compiles the part graphs."""
        return self._memory is not None

    def _check_frozen(self, frozen: Collection[str]) -> None:
        unknown = [name for name in frozen if name not in self.nodes]
        if unknown:
            raise ValueError(f"there are no parts {unknown} to freeze; the parts are {list(self.nodes)}.")

    def _memories(self, name: str) -> list[tuple[int, ...]]:
        """The lengths at which a part may read others."""
        return self._memory.choices(name) if self._memory else [()]

    def _field_spec(self, field: str, length: int) -> Nest:
        position, rows = self.position(field), self._rows
        return Sequences(
            tf.TensorSpec([rows, length, *position.shape], position.dtype), tf.TensorSpec([rows], tf.int32)
        )


def _check_compilation(jit_compile: bool, rows: int | None, context_buckets: int, row_multiple: int) -> None:
    if not jit_compile and (rows is not None or context_buckets != 1):
        raise ValueError(
            f"SplitModel was given rows = {rows} and context_buckets = {context_buckets}, which fix the shapes of part "
            "graphs that XLA compiles; give jit_compile=True as well, or leave them out."
        )
    if jit_compile and (rows is None or rows < 1 or row_multiple != 1):
        raise ValueError(
            f"SplitModel(jit_compile=True) was given rows = {rows} and row_multiple = {row_multiple}; XLA compiles a "
            "part graph for a fixed number of rows: give it as rows=32, about what a bucket holds of a batch, and "
            "leave row_multiple out."
        )
    if context_buckets < 1:
        raise ValueError(
            f"context_buckets = {context_buckets}; expected 1 or more: what a part reads is padded to them."
        )


def _relax(spec: tf.TensorSpec | None, timed: bool, name: str) -> tf.TensorSpec:
    rank = None if spec is None else spec.shape.rank
    if not rank or (timed and rank < 2):
        raise ValueError(
            f"part {name!r} hands over {describe(spec)}; what crosses to another part has rows as its first axis, and "
            "the values of Sequences have time as their second."
        )
    unknown = [None, None] if timed else [None]
    return tf.TensorSpec([*unknown, *spec.shape[len(unknown) :]], spec.dtype)
