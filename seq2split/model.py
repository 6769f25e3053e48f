"""A model as parts wired by name: one part graph for each part and bucket, and one step over a batch of any lengths.

A batch is grouped once for each part by the bucket of the field that the part reads. Outputs are carried to the groups
that read them (`carry`), every group's part graph runs once forward and once backward, and the cotangents travel back
the same ways. A batch of one bucket pair takes the same path with one group each, where carrying does nothing.

The orchestration is eager: one `tf.function` around the calls would be optimized anew for every combination of buckets
(2 s each).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import RLock
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from seq2split.buckets import Buckets, pad_rows
from seq2split.carry import Route, Sequences, follow, plan_routes, time_leaves
from seq2split.memory import Memory
from seq2split.partition import Part, PartGraph, Residuals
from seq2split.signature import describe

Nest = Any
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """A part and its place in the model.

    Attributes:
        part: The part; its name is the node's.
        reads: Its arguments in order: the batch field that it takes (at most one), and parts that stand before it. A
            field arrives as `Sequences` padded to the bucket, a part's outputs as the nest that it returned, rows
            aligned, with each `Sequences` in it padded to the longest that is read, or with `jit_compile` to a length
            that the part graph is compiled for.
        buckets: Of the field. A part that reads no field has none, and runs in the groups of the first part it reads.
    """

    part: Part
    reads: Sequence[str]
    buckets: Buckets | None = None

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part.name


@dataclass(frozen=True)
class Group:
    """The rows of a batch that one part graph takes together.

    Attributes:
        length: The bucket, as its padded length.
        rows: Their numbers in the batch, `[n]`.
        size: How many rows the part graph gets, filler of length zero included.
        memory: The lengths at which it reads other parts, where compiled part graphs have a choice.
    """

    length: int
    rows: np.ndarray
    size: int
    memory: tuple[int, ...] = ()


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
        memory_buckets: With `jit_compile`, to how many lengths what a part reads of another is padded. With 1, that
            of the other's longest bucket, there is one part graph for each part and bucket. With more, evenly chosen
            among the other's buckets, there is less padding, and a part graph for each of them and each of its own
            buckets: E + D × `memory_buckets` at most.

    Raises:
        ValueError: The parts can't be wired as the nodes say; or `rows` and `memory_buckets` are out of range, or
            given without `jit_compile`.

    Example:
        >>> import seq2split as s2s
        >>> from seq2split.models import Decoder, Encoder
        >>> model = s2s.SplitModel([
        ...     s2s.Node(s2s.Part(Encoder(50, 4, 8, name="encoder")), ["source"], s2s.Buckets([4, 8])),
        ...     s2s.Node(s2s.Part(Decoder(50, 8, 2, 4, 8, name="decoder")), ["encoder", "target"], s2s.Buckets([3, 6])),
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
        memory_buckets: int = 1,
    ):
        nodes = list(nodes)
        self.nodes = {node.name: node for node in nodes}
        if not nodes or len(self.nodes) < len(nodes):
            raise ValueError(
                f"SplitModel was given parts of the names {[node.name for node in nodes]}; it takes at least one, and "
                "wires them by name: give each a name of its own with Part(..., name=...)."
            )
        self.graphs: dict[tuple, PartGraph] = {}
        """The part graphs built so far, by part and bucket; with `memory_buckets` above 1 also by the memory's."""
        self._fields = dict(fields or {})
        self._row_multiple = row_multiple
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._building = RLock()
        self._boundaries: dict[str, Nest] = {}
        self._own_field = {name: self._find_field(node) for name, node in self.nodes.items()}
        self.ends = [name for name in self.nodes if not self._consumers(name)]
        """The parts that no other reads, which hold losses."""
        self._inner = [name for name in self.nodes if name not in self.ends]
        self._check_wiring()
        _check_compilation(jit_compile, rows, memory_buckets, row_multiple)
        self._rows = rows
        self._memory = Memory(self.nodes, memory_buckets) if jit_compile else None

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
        step = _Step(self, batch, self.nodes)
        for name in self._inner:
            step.forward(name)
        for name in self.ends:
            step.losses_and_gradients(name)
        for name in reversed(self._inner):
            if not set(self._upstream(name)) <= set(frozen):
                step.backward(name)
        return self._means(step), self._sums(step, frozen)

    def losses(self, batch: Batch) -> Nest:
        """What `loss_and_gradients` returns first, with every part in inference.

        Args:
            batch: As of `loss_and_gradients`.

        Returns:
            As of `loss_and_gradients`.
        """
        step = _Step(self, batch, self.nodes)
        for name in self.nodes:
            step.infer(name)
        return self._means(step)

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
        if name not in self._inner:
            raise ValueError(
                f"infer was asked for the rows of part {name!r}; expected one of {self._inner}. For what "
                f"{' and '.join(self.ends)} returns call losses(batch)."
            )
        needed = self._upstream(name)
        step = _Step(self, batch, needed)
        for part in needed:
            step.infer(part)
        return step.in_order(name)

    def build(self, progress: bool = True) -> None:
        """Builds the part graphs of all buckets for training, at most one for each part and bucket.

        Args:
            progress: Whether to show a bar.
        """
        todo = [
            (node, length, memory)
            for node in self.nodes.values()
            for length in self._lengths(node)
            for memory in self._memories(node.name)
        ]
        with tqdm(todo, desc="building part graphs", unit="graph", disable=not progress) as bar:
            for node, *lengths in bar:
                bar.set_postfix_str(f"{node.name} {lengths[0]}")
                self.graph(node.name, *lengths).trace(self._training_pass(node.name))

    def graph(self, name: str, length: int, memory: tuple[int, ...] = ()) -> PartGraph:
        """The part graph of one bucket, built when it is first asked for.

        Args:
            name: The part.
            length: The bucket, as its padded length.
            memory: With `memory_buckets` above 1, the length at which it reads each other part that has a field; by
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
        if name not in self._boundaries:
            built = [graph for (part, *_), graph in self.graphs.items() if part == name]
            graph = built[0] if built else self.graph(name, self._lengths(self.nodes[name])[0])
            timed = iter(time_leaves(graph.output_specs))
            self._boundaries[name] = tf.nest.map_structure(
                lambda spec: _relax(spec, next(timed), name), graph.output_specs
            )
        return self._boundaries[name]

    @property
    def is_compiled(self) -> bool:
        """Whether XLA compiles the part graphs."""
        return self._memory is not None

    def fixed_groups(self, name: str, padded: Mapping[str, np.ndarray], order: np.ndarray) -> list[Group]:
        """Groups of a fixed number of rows, for a part with a field in a model that XLA compiles.

        Args:
            name: The part.
            padded: For each part with a field the bucket of each row as its padded length, `[rows]`.
            order: The rows in the order in which they should stand in groups.

        Returns:
            The groups, by bucket and memory.
        """
        keys = np.column_stack([padded[name], self._memory.of_rows(name, padded)])[order]
        groups = []
        for length, *memory in np.unique(keys, axis=0).tolist():
            rows = order[(keys == [length, *memory]).all(1)]
            for start in range(0, len(rows), self._rows):
                groups.append(Group(length, rows[start : start + self._rows], self._rows, tuple(memory)))
        return groups

    def _each(self, task: Callable, items: Iterable, cost: Callable | None = None) -> list:
        """The results of a task for each item, in order; the dearest begin first."""
        items = list(items)
        if self._pool is None or len(items) < 2:
            return [task(item) for item in items]
        order = sorted(range(len(items)), key=lambda index: -cost(items[index])) if cost else range(len(items))
        futures = {index: self._pool.submit(task, items[index]) for index in order}
        return [futures[index].result() for index in range(len(items))]

    def _training_pass(self, name: str) -> str:
        return "value_and_gradients" if name in self.ends else "forward"

    def _means(self, step: _Step) -> Nest:
        means = {name: step.mean(name) for name in self.ends}
        return means if len(means) > 1 else means[self.ends[0]]

    def _sums(self, step: _Step, frozen: Collection[str]) -> dict[str, list]:
        """For each part its gradients, summed over its groups and over the parts that share a variable."""
        addends: dict[str, list[list]] = {}
        owners: dict[int, list] = {}
        for name, variables in step.variables.items():
            own = [[] for _ in variables]
            if name not in frozen:
                own = [list(each) for each in zip(*step.gradients[name], strict=True)]
                for place, variable in enumerate(variables):
                    owner = owners.setdefault(id(variable), own[place])
                    if owner is not own[place]:
                        owner += own[place]
                        own[place] = []
            addends[name] = own
        sums = iter(self._each(add_up, (each for addend in addends.values() for each in addend)))
        return {name: list(islice(sums, len(each))) for name, each in addends.items()}

    def _check_frozen(self, frozen: Collection[str]) -> None:
        unknown = [name for name in frozen if name not in self.nodes]
        if unknown:
            raise ValueError(f"there are no parts {unknown} to freeze; the parts are {list(self.nodes)}.")

    def _lengths(self, node: Node) -> tuple[int, ...]:
        return node.buckets.boundaries if node.buckets else self._lengths(self.nodes[self._leader(node)])

    def _leader(self, node: Node) -> str:
        """The part whose groups a part without a field runs in."""
        return next(read for read in node.reads if read in self.nodes)

    def _memories(self, name: str) -> list[tuple[int, ...]]:
        """The lengths at which a part may read others."""
        return self._memory.choices(name) if self._memory else [()]

    def _consumers(self, name: str) -> list[tuple[str, int]]:
        """The parts that read a part, each with the argument that it reads it as."""
        return [
            (node.name, position)
            for node in self.nodes.values()
            for position, read in enumerate(node.reads)
            if read == name
        ]

    def _upstream(self, name: str) -> list[str]:
        """A part and those that it depends on, in order."""
        needed = {name}
        for node in reversed(list(self.nodes.values())):
            if node.name in needed:
                needed |= set(node.reads) & set(self.nodes)
        return [other for other in self.nodes if other in needed]

    def _field_spec(self, field: str, length: int) -> Nest:
        position, rows = self._position(field), self._rows
        return Sequences(
            tf.TensorSpec([rows, length, *position.shape], position.dtype), tf.TensorSpec([rows], tf.int32)
        )

    def _position(self, field: str) -> tf.TensorSpec:
        return self._fields.get(field, tf.TensorSpec([], tf.int32))

    def _find_field(self, node: Node) -> str | None:
        fields = [read for read in node.reads if read not in self.nodes]
        if len(fields) > 1 or bool(fields) != bool(node.buckets):
            raise ValueError(
                f"part {node.name!r} reads {list(node.reads)}, of which {fields} are batch fields, and its buckets are "
                f"{node.buckets}. A part reads at most one field, and has buckets if it reads one; the parts so far "
                f"are {list(self.nodes)}."
            )
        return fields[0] if fields else None

    def _check_wiring(self) -> None:
        seen: set[str] = set()
        for node in self.nodes.values():
            late = [read for read in node.reads if read in self.nodes and read not in seen]
            if late or not node.reads:
                raise ValueError(
                    f"part {node.name!r} reads {late or 'nothing'}; a part reads a batch field, or parts that stand "
                    f"before it: {sorted(seen)}. Order the nodes so."
                )
            seen.add(node.name)
        for name in self.ends:
            if not self._own_field[name]:
                raise ValueError(
                    f"no part reads the outputs of {name!r}, so that it holds a loss, but it reads no batch field: let "
                    "another part read it, or let it read the field whose positions it predicts."
                )


class _Step:
    """One batch on its way through some of a model's parts.

    Attributes:
        outputs: For each part what its part graphs returned, group by group.
        variables: For each part those that its gradients are of.
        gradients: For each part the gradients of its groups.
    """

    def __init__(self, model: SplitModel, batch: Batch, names: Iterable[str]):
        self._model, self._names = model, list(names)
        self._fields = _read_fields(model, batch, self._names)
        self._rows = _count_rows(self._fields)
        self._groups = self._plan_groups()
        self._routes: dict[tuple[str, str], list[Route]] = {}
        self._residuals: dict[str, list[Residuals]] = {}
        self._inputs_ct: dict[str, list[tuple[Nest, ...]]] = {}
        self.outputs: dict[str, list[Nest]] = {}
        self.variables: dict[str, list] = {}
        self.gradients: dict[str, list[list]] = {}

    def forward(self, name: str) -> None:
        """Runs the forward of a part."""
        runs = self._run(name, "forward", lambda graph, index: graph.forward(*self._inputs(name, index)))
        self.outputs[name] = [outputs for outputs, _ in runs]
        self._residuals[name] = [residuals for _, residuals in runs]

    def losses_and_gradients(self, name: str) -> None:
        """Runs both passes of a part that holds a loss."""
        share = 1.0 / self._positions(name)
        try:
            runs = self._run(
                name,
                "value_and_gradients",
                lambda graph, index: graph.value_and_gradients(*self._inputs(name, index), loss_ct=share),
            )
        except ValueError as error:
            error.add_note(f"no part reads the outputs of {name!r}, so that it is taken to hold a loss")
            raise
        self.outputs[name] = [outputs for outputs, _, _ in runs]
        self._inputs_ct[name] = [inputs_ct for _, inputs_ct, _ in runs]
        self.gradients[name] = [gradients for _, _, gradients in runs]

    def backward(self, name: str) -> None:
        """Runs the backward of a part whose consumers have run theirs."""
        residuals = self._residuals.pop(name)
        runs = self._run(
            name, "forward", lambda graph, index: graph.backward(residuals[index], self._outputs_ct(name, index))
        )
        self._inputs_ct[name] = [inputs_ct for inputs_ct, _ in runs]
        self.gradients[name] = [gradients for _, gradients in runs]

    def infer(self, name: str) -> None:
        """Runs a part in inference."""
        self.outputs[name] = self._run(name, "infer", lambda graph, index: graph.infer(*self._inputs(name, index)))

    def mean(self, name: str) -> Nest:
        """A part's outputs, summed over the groups and divided by the number of real positions."""
        positions = self._positions(name)
        return tf.nest.map_structure(lambda *sums: _floating(tf.add_n(sums)) / positions, *self.outputs[name])

    def in_order(self, name: str) -> Nest:
        """The outputs of a part in the order of the batch."""
        rows = [group.rows for group in self._groups[name]]
        (route,) = plan_routes(rows, [np.arange(self._rows)], [self._rows])
        return follow(route, self.outputs[name])

    def _run(self, name: str, traced: str, task: Callable[[PartGraph, int], Any]) -> list:
        """The results of a task for the part graph and the index of each group of a part."""
        groups = self._groups[name]
        with self._model._building:  # whoever else asks for a graph meanwhile waits for this one
            graphs = [self._model.graph(name, group.length, group.memory) for group in groups]
            for graph in graphs:
                graph.trace(traced)
        self.variables[name] = graphs[0].variables
        return self._model._each(
            lambda index: task(graphs[index], index),
            range(len(groups)),
            cost=lambda index: groups[index].size * groups[index].length,
        )

    def _inputs(self, name: str, index: int) -> list[Nest]:
        """The inputs of one group of a part."""
        group = self._groups[name][index]
        return [
            self._field_rows(read, group) if read in self._fields else self._carried(read, name, index)
            for read in self._model.nodes[name].reads
        ]

    def _carried(self, read: str, name: str, index: int) -> Nest:
        """What one group of a part reads of another part."""
        group, like = self._groups[name][index], None
        if self._model.is_compiled:
            like = self._model.handed_over(name, read, group.length, group.memory)
        return follow(self._route(read, name)[index], self.outputs[read], like=like)

    def _field_rows(self, field: str, group: Group) -> Sequences:
        values, lengths = self._fields[field]
        rows, width = len(group.rows), min(values.shape[1], group.length)
        padded = np.zeros([group.size, group.length, *values.shape[2:]], values.dtype)
        padded[:rows, :width] = values[group.rows, :width]
        padded_lengths = np.zeros([group.size], np.int32)
        padded_lengths[:rows] = lengths[group.rows]
        padded[np.arange(group.length) >= padded_lengths[:, None]] = 0  # what stood there may be no valid piece
        return Sequences(padded, padded_lengths)

    def _outputs_ct(self, name: str, index: int) -> Nest:
        """The cotangents of one group's outputs, from all groups of all parts that read them."""
        outputs = self.outputs[name][index]
        delivered = [
            follow(self._route(consumer, name)[index], [ct[position] for ct in self._inputs_ct[consumer]], like=outputs)
            for consumer, position in self._model._consumers(name)
        ]
        flat = zip(*map(tf.nest.flatten, delivered), strict=True)
        return tf.nest.pack_sequence_as(outputs, [add_up(cotangents) for cotangents in flat])

    def _route(self, source: str, target: str) -> list[Route]:
        """The routes from one part's groups to another's, either way."""
        if (source, target) not in self._routes:
            rows = {name: [group.rows for group in self._groups[name]] for name in (source, target)}
            sizes = [group.size for group in self._groups[target]]
            self._routes[source, target] = plan_routes(rows[source], rows[target], sizes)
        return self._routes[source, target]

    def _positions(self, name: str) -> float:
        return float(max(1, self._fields[self._model._own_field[name]].lengths.sum()))

    def _plan_groups(self) -> dict[str, list[Group]]:
        nodes = [self._model.nodes[name] for name in self._names]
        buckets = {node.name: self._assign(node) for node in nodes if node.buckets}
        groups: dict[str, list[Group]] = {}
        for node in nodes:
            groups[node.name] = self._group(node, buckets) if node.buckets else groups[self._model._leader(node)]
        return groups

    def _assign(self, node: Node) -> np.ndarray:
        field = self._model._own_field[node.name]
        try:
            return node.buckets.assign(self._fields[field].lengths)
        except ValueError as error:
            error.add_note(f"in batch field {field!r}, which part {node.name!r} reads")
            raise

    def _group(self, node: Node, buckets: dict[str, np.ndarray]) -> list[Group]:
        """The rows of each bucket, those that share the other parts' buckets side by side: they travel together."""
        others = [assigned for name, assigned in buckets.items() if name != node.name]
        order = np.lexsort(others) if others else np.arange(self._rows)
        if self._model.is_compiled:
            return self._model.fixed_groups(node.name, self._padded(buckets), order)
        own = buckets[node.name][order]
        members = {node.buckets.boundaries[bucket]: order[own == bucket] for bucket in np.unique(own)}
        return _divide(members, self._model._threads, self._model._row_multiple)

    def _padded(self, buckets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each part that reads a field the bucket of each row as its padded length."""
        return {
            name: np.array(self._model.nodes[name].buckets.boundaries)[assigned] for name, assigned in buckets.items()
        }


def _check_compilation(jit_compile: bool, rows: int | None, memory_buckets: int, row_multiple: int) -> None:
    if not jit_compile and (rows is not None or memory_buckets != 1):
        raise ValueError(
            f"SplitModel was given rows = {rows} and memory_buckets = {memory_buckets}, which fix the shapes of part "
            "graphs that XLA compiles; give jit_compile=True as well, or leave them out."
        )
    if jit_compile and (rows is None or rows < 1 or row_multiple != 1):
        raise ValueError(
            f"SplitModel(jit_compile=True) was given rows = {rows} and row_multiple = {row_multiple}; XLA compiles a "
            "part graph for a fixed number of rows: give it as rows=32, about what a bucket holds of a batch, and "
            "leave row_multiple out."
        )
    if memory_buckets < 1:
        raise ValueError(f"memory_buckets = {memory_buckets}; expected 1 or more: what a part reads is padded to them.")


def _divide(members: Mapping[int, np.ndarray], threads: int, multiple: int) -> list[Group]:
    """Groups of the rows of each bucket, none with more than one thread's share of the padded positions."""
    total = sum(length * len(rows) for length, rows in members.items())
    groups = []
    for length, rows in members.items():
        pieces = math.ceil(threads * length * len(rows) / total - 1e-6)
        size = _rounded(math.ceil(len(rows) / pieces), multiple)
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            groups.append(Group(length, piece, _rounded(len(piece), multiple)))
    return groups


def _rounded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _read_fields(model: SplitModel, batch: Batch, names: list[str]) -> dict[str, Sequences]:
    fields = [model._own_field[name] for name in names if model._own_field[name]]
    missing = [field for field in fields if field not in batch]
    if missing:
        raise ValueError(f"the batch has the fields {sorted(batch)}; the model reads {missing} as well.")
    return {field: _sequences(batch[field], field, model._position(field)) for field in fields}


def _sequences(given: Any, field: str, position: tf.TensorSpec) -> Sequences:
    dtype = position.dtype.as_numpy_dtype
    try:
        if isinstance(given, Sequences):
            values, lengths = np.asarray(given.values).astype(dtype, casting="same_kind"), np.asarray(given.lengths)
        else:
            lengths = np.array([len(row) for row in given], np.int32)
            values = pad_rows(given, int(lengths.max(initial=0)), dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"batch field {field!r} can't be read as {position.dtype.name} positions of shape "
            f"{position.shape.as_list()}: {error}. Convert it, or name its positions with SplitModel(..., fields=...)."
        ) from error
    if values.shape[:1] != lengths.shape or lengths.max(initial=0) > values.shape[1]:
        raise ValueError(
            f"batch field {field!r} has values {list(values.shape)} and lengths {list(lengths.shape)} up to "
            f"{lengths.max(initial=0)}; expected [rows, time, ...] and [rows], no length above the time."
        )
    return Sequences(values, lengths)


def _count_rows(fields: dict[str, Sequences]) -> int:
    rows = {field: len(sequences.lengths) for field, sequences in fields.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise ValueError(f"the fields of the batch have {rows} rows; expected one or more, as many in each.")
    return next(iter(rows.values()))


def _floating(total: tf.Tensor) -> tf.Tensor:
    return total if total.dtype.is_floating else tf.cast(total, tf.float32)


def _relax(spec: tf.TensorSpec | None, timed: bool, name: str) -> tf.TensorSpec:
    rank = None if spec is None else spec.shape.rank
    if not rank or (timed and rank < 2):
        raise ValueError(
            f"part {name!r} hands over {describe(spec)}; what crosses to another part has rows as its first axis, and "
            "the values of Sequences have time as their second."
        )
    unknown = [None, None] if timed else [None]
    return tf.TensorSpec([*unknown, *spec.shape[len(unknown) :]], spec.dtype)


def add_up(gradients: Sequence) -> Any:
    """A sum in which `None` counts for nothing, and which stays sparse if every term is."""
    present = [gradient for gradient in gradients if gradient is not None]
    if len(present) < 2:
        return present[0] if present else None
    if all(isinstance(gradient, tf.IndexedSlices) for gradient in present):
        values, indices = (tf.concat([getattr(g, part) for g in present], 0) for part in ("values", "indices"))
        return tf.IndexedSlices(values, indices, present[0].dense_shape)
    return tf.add_n([tf.convert_to_tensor(gradient) for gradient in present])
