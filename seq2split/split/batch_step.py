"""One batch on its way through the parts of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.engine import BackwardResult, ForwardResult, LossResult, PartGraph, WithLosses
from seq2split.split.fields import Fields, read_fields, rows_of
from seq2split.split.gradients import add_up, addends_by_part
from seq2split.split.grouping import Group, Grouping
from seq2split.split.part_graphs import PartGraphs
from seq2split.split.results import BatchLosses, collect_losses
from seq2split.split.routing import Route, carry, plan_routes
from seq2split.split.sequences import Sequences
from seq2split.split.threads import Schedule
from seq2split.split.wiring import Wiring

Nest = Any


class BatchStep:
    """One batch on its way through some of a model's parts.

    Each pass of a part is scheduled for each of its groups, which runs once the groups that it reads from are done;
    so a thread takes its rows on to the next part while another is still busy with the last. What a method returns, it
    has waited for.

    Args:
        batch: The batch; the fields that these parts read are needed.
        names: The parts, in order, with all that they depend on.
        wiring: Who reads whom.
        graphs: The part graphs.
        grouping: How rows are grouped.
        schedule: The schedule of what runs.

    Attributes:
        groups: For each part the groups of rows that its part graphs take.

    Raises:
        ValueError: A field is missing or can't be read, or the fields differ in their rows.
        OverlongError: A row is longer than the last bucket.
    """

    def __init__(
        self,
        batch: Fields,
        names: Iterable[str],
        *,
        wiring: Wiring,
        graphs: PartGraphs,
        grouping: Grouping,
        schedule: Schedule,
    ):
        self._wiring, self._graphs, self._grouping, self._schedule = wiring, graphs, grouping, schedule
        self._fraction = 1.0  # of all batches whose gradients are added up, by which added losses are weighted
        names = list(names)
        read = {wiring.fields[name] for name in names if name in wiring.fields}
        self._fields = read_fields(batch, {field: graphs.position(field) for field in sorted(read)}, wiring.parts)
        self._rows = len(next(iter(self._fields.values())).lengths)
        self.groups = self._plan_groups(names)
        self._routes: dict[tuple[str, str], list[Route]] = {}
        self._variables: dict[str, list] = {}
        # For each part what its groups return, from the pass that makes outputs and from that which makes gradients:
        self._first: dict[str, list[Future[ForwardResult | LossResult]]] = {}
        self._last: dict[str, list[Future[BackwardResult | LossResult]]] = {}
        self._with_state: list[Future] = []  # the last pass of a part with state,
        self._since: list[Future] = []  # and all that were added after it

    def forward(self, name: str) -> None:
        """Schedule the forward of a part."""
        self._first[name] = self._add(
            name, "forward", lambda graph, index: graph.forward(*self._inputs(name, index)), self._read_by(name)
        )

    def value_and_gradients(self, name: str, weight: float) -> None:
        """Schedule both passes of a part with a loss, whose sum is divided by a weight."""

        def task(graph: PartGraph, index: int) -> LossResult:
            share = self._share(name, index)
            return graph.value_and_gradients(*self._inputs(name, index), loss_ct=1.0 / weight, losses_ct=share)

        self._first[name] = self._last[name] = self._add(name, "value_and_gradients", task, self._read_by(name))

    def backward(self, name: str) -> None:
        """Schedule the backward of a part; that of its consumers has been scheduled."""

        def task(graph: PartGraph, index: int) -> BackwardResult:
            return graph.backward(self._first[name][index].result().residuals, self._outputs_ct(name, index))

        consumers = {consumer: self._last[consumer] for consumer, _ in self._wiring.consumers(name)}
        self._last[name] = self._add(name, "forward", task, consumers)

    def infer(self, name: str) -> None:
        """Schedule a part in inference."""

        def task(graph: PartGraph, index: int) -> ForwardResult:
            return ForwardResult(graph.infer(*self._inputs(name, index)), None)

        self._first[name] = self._add(name, "infer", task, self._read_by(name))

    def weights(self, given: Mapping[str, float] | None = None) -> dict[str, float]:
        """Return the number that each part with a loss is divided by.

        Args:
            given: What is shared with other batches; by default as each node says.
        """
        if given is None:
            return {name: self._weight(name) for name in self._wiring.losses}
        if given.keys() != set(self._wiring.losses) or min(given.values()) <= 0:
            raise ValueError(
                f"loss_and_gradients was given the weights {given}; expected a positive number for each of the parts "
                f"with losses, {self._wiring.losses}."
            )
        if self._wiring.adding:
            first = self._wiring.losses[0]
            self._fraction = self._weight(first) / given[first]
        return dict(given)

    def losses(self, weights: Mapping[str, float]) -> BatchLosses:
        """Return what the parts with losses returned, summed over the groups and divided by their weights."""
        means = {name: self._mean(name, weights[name]) for name in self._wiring.losses}
        adding = [(name, at) for name in self._first if self._adds(name) for at in range(len(self.groups[name]))]
        return collect_losses(means, weights, [self._added(*each) * self._added_ct(*each) for each in adding])

    def gradients(self, frozen: Collection[str]) -> dict[str, list]:
        """Return the gradients of each part; those of frozen ones are `None`."""
        wanted = {name: variables for name, variables in self._variables.items() if name not in frozen}
        sums = {part: self._add_sums(addends) for part, addends in addends_by_part(wanted).items()}
        return {
            name: sums[name].result() if name in sums else [None] * len(variables)
            for name, variables in self._variables.items()
        }

    def repeated_row(self, times: int) -> dict[str, Sequences]:
        """Return a batch of one row so many times: the first in which no field is empty, or the first of all."""
        filled = np.all([field.lengths > 0 for field in self._fields.values()], axis=0)
        rows = np.repeat(np.argmax(filled), times)
        return {name: Sequences(field.values[rows], field.lengths[rows]) for name, field in self._fields.items()}

    def in_order(self, name: str) -> Nest:
        """Return the outputs of a part in the order of the batch."""
        rows = [group.rows for group in self.groups[name]]
        (route,) = plan_routes(rows, [np.arange(self._rows)], [self._rows])
        return carry(route, self._outputs(name))

    def _outputs(self, name: str, groups: Iterable[int] | None = None) -> dict[int, Nest]:
        """Return the outputs of some groups of a part, by default all of them, without the losses that layers added."""
        groups = range(len(self.groups[name])) if groups is None else groups
        found = {at: self._first[name][at].result().outputs for at in groups}
        return {at: each.outputs for at, each in found.items()} if self._adds(name) else found

    def _adds(self, name: str) -> bool:
        """Return whether losses that its layers add join what a part returns."""
        return self._wiring.parts[name].part.losses

    def _added(self, name: str, index: int) -> tf.Tensor:
        """Return the losses that the layers of a part added in a group."""
        return self._first[name][index].result().outputs.losses

    def _added_ct(self, name: str, index: int) -> tf.Tensor:
        """Return their cotangent."""
        return tf.constant(np.array(self._share(name, index)), self._added(name, index).dtype)

    def _share(self, name: str, index: int) -> float:
        """Return a group's share of the rows, by which the losses that its layers added are weighted."""
        return len(self.groups[name][index].rows) / self._rows * self._fraction

    def _read_by(self, name: str) -> dict[str, list[Future]]:
        """Return the first passes of the parts that a part reads."""
        return {read: self._first[read] for read in self._wiring.parts_read(name)}

    def _add(
        self,
        name: str,
        wanted: str,
        task: Callable[[PartGraph, int], Any],
        needed: Mapping[str, Sequence[Future]],
    ) -> list[Future]:
        """Schedule a pass of a part.

        Args:
            name: The part.
            wanted: The pass, a word of `PartGraph.trace`.
            task: Runs it, given the part graph and the index of a group.
            needed: The passes of other parts that it needs, for each of their groups.

        Returns:
            What each group will return.
        """
        groups = self.groups[name]
        graphs = self._graphs.of_groups(name, groups, wanted)
        self._variables[name] = graphs[0].variables
        has_state = wanted != "infer" and self._graphs.has_state(name)

        def run(index: int) -> Any:
            try:
                return task(graphs[index], index)
            except tf.errors.OpError as error:  # which names operations, and no part
                error.add_note(f"while running {wanted} of part {name!r} in bucket {groups[index].length}")
                raise

        added: dict[int, Future] = {}
        for index in range(len(groups)) if has_state else _dearest_first(groups):
            needs = [each[at] for other, each in needed.items() for at in self._route(other, name)[index].groups]
            needs += self._with_state + (self._since if has_state else [])  # else state depends on who comes first
            added[index] = self._schedule.add(partial(run, index), needs)
            if has_state:
                self._with_state, self._since = [added[index]], []
            else:
                self._since.append(added[index])
        return [added[index] for index in range(len(groups))]

    def _add_sums(self, addends: Sequence[Sequence[tuple[str, int]]]) -> Future:
        """Schedule the sums of gradients of variables; `addends` are parts and each one's place among their variables.

        They are one task: most take less time than a task of their own does.
        """
        parts = {part for one in addends for part, _ in one}

        def run() -> list:
            gradients = {part: [each.result().gradients for each in self._last[part]] for part in parts}
            return [add_up([each[place] for part, place in one for each in gradients[part]]) for one in addends]

        return self._schedule.add(run, [each for part in parts for each in self._last[part]])

    def _inputs(self, name: str, index: int) -> list[Nest]:
        """Return the inputs of one group of a part."""
        group = self.groups[name][index]
        return [
            rows_of(self._fields[read], group) if read in self._fields else self._carried(read, name, index)
            for read in self._wiring.parts[name].reads
        ]

    def _carried(self, read: str, name: str, index: int) -> Nest:
        """Return what one group of a part reads of another part."""
        group, like = self.groups[name][index], None
        if self._graphs.is_compiled:
            like = self._graphs.context_specs(name, read, group.length, group.context)
        route = self._route(read, name)[index]
        return carry(route, self._outputs(read, route.groups), like=like)

    def _outputs_ct(self, name: str, index: int) -> Nest:
        """Return the cotangents of one group's outputs, from all groups of all parts that read them."""
        outputs = self._outputs(name, [index])[index]
        delivered = []
        for consumer, position in self._wiring.consumers(name):
            route = self._route(consumer, name)[index]
            inputs_ct = {at: self._last[consumer][at].result().inputs_ct[position] for at in route.groups}
            delivered.append(carry(route, inputs_ct, like=outputs))
        flat = zip(*map(tf.nest.flatten, delivered), strict=True)
        outputs_ct = tf.nest.pack_sequence_as(outputs, [add_up(cotangents) for cotangents in flat])
        return WithLosses(outputs_ct, self._added_ct(name, index)) if self._adds(name) else outputs_ct

    def _route(self, source: str, target: str) -> list[Route]:
        """Return the routes from one part's groups to another's, either way."""
        if (source, target) not in self._routes:
            rows = {name: [group.rows for group in self.groups[name]] for name in (source, target)}
            sizes = [group.size for group in self.groups[target]]
            self._routes[source, target] = plan_routes(rows[source], rows[target], sizes)
        return self._routes[source, target]

    def _mean(self, name: str, weight: float) -> Nest:
        """Return a part's outputs, summed over the groups and divided by its weight."""
        outputs = list(self._outputs(name).values())
        wrong = [leaf for leaf in tf.nest.flatten(outputs[0]) if leaf is not None and leaf.shape.rank != 0]
        if wrong:
            raise ValueError(
                f"part {name!r} returns a value of shape {wrong[0].shape.as_list()} beside its loss; what is reported "
                "of a batch are scalars, summed alike. Reduce it, or let the part return it in a model of its own."
            )
        return tf.nest.map_structure(lambda *sums: _divided(sums, weight), *outputs)

    def _weight(self, name: str) -> float:
        weight = self._wiring.parts[name].weight
        if weight == "rows":
            return float(self._rows)
        if weight is None:
            return float(max(1, self._fields[self._wiring.fields[name]].lengths.sum()))
        given = float(weight(self._fields))
        if not 0 < given < np.inf:
            raise ValueError(
                f"part {name!r}: the function given as Node(..., weight=...) returned {given} for a batch of "
                f"{self._rows} rows; expected a positive number to divide the loss by."
            )
        return given

    def _plan_groups(self, names: list[str]) -> dict[str, list[Group]]:
        padded = {name: self._grouping.merged(self._padded(name)) for name in names if name in self._wiring.fields}
        groups = {name: self._group(name, padded) for name in padded}
        return {name: groups[self._wiring.roots[name]] for name in names}

    def _padded(self, name: str) -> np.ndarray:
        """Return the bucket of each row as its padded length, `[rows]`."""
        field = self._wiring.fields[name]
        try:
            return self._wiring.parts[name].buckets.padded(self._fields[field].lengths)
        except ValueError as error:
            error.add_note(f"in batch field {field!r}, which part {name!r} reads")
            raise

    def _group(self, name: str, padded: dict[str, np.ndarray]) -> list[Group]:
        """Return the groups of each bucket; rows that share the other parts' buckets stand side by side."""
        others = [lengths for other, lengths in padded.items() if other != name]
        order = np.lexsort(others) if others else np.arange(self._rows)
        return self._grouping.groups(name, padded, order)


def _dearest_first(groups: Sequence[Group]) -> list[int]:
    return sorted(range(len(groups)), key=lambda index: -groups[index].size * groups[index].length)


def _divided(sums: Sequence[tf.Tensor], weight: float) -> tf.Tensor:
    total = add_up([each if each.dtype.is_floating else tf.cast(each, tf.float32) for each in sums])
    weight = tf.constant(np.array(weight), total.dtype)  # as an array, since each batch may have its own
    return tf.raw_ops.RealDiv(x=total, y=weight)
