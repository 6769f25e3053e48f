"""One batch on its way through the parts of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.engine import LossResult, PartGraph, Residuals, WithLosses
from seq2split.split.fields import Fields, read_fields, rows_of
from seq2split.split.gradients import add_up, sums_by_part
from seq2split.split.grouping import Group, Grouping
from seq2split.split.part_graphs import PartGraphs
from seq2split.split.results import BatchLosses, collect_losses
from seq2split.split.routing import Route, carry, plan_routes
from seq2split.split.sequences import Sequences
from seq2split.split.threads import Workers
from seq2split.split.wiring import Wiring

Nest = Any


class BatchStep:
    """One batch on its way through some of a model's parts.

    Args:
        batch: The batch; the fields that these parts read are needed.
        names: The parts, in order, with all that they depend on.
        wiring: Who reads whom.
        graphs: The part graphs.
        grouping: How rows are grouped.
        workers: The threads that run the groups.

    Attributes:
        groups: For each part the groups of rows that its part graphs take.
        fraction: The batch's share of those whose gradients are added up, by which added losses are weighted.

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
        workers: Workers,
    ):
        self._wiring, self._graphs, self._grouping, self._workers = wiring, graphs, grouping, workers
        self.fraction = 1.0
        names = list(names)
        read = {wiring.fields[name] for name in names if name in wiring.fields}
        self._fields = read_fields(batch, {field: graphs.position(field) for field in sorted(read)}, wiring.parts)
        self._rows = len(next(iter(self._fields.values())).lengths)
        self.groups = self._plan_groups(names)
        self._routes: dict[tuple[str, str], list[Route]] = {}
        self._residuals: dict[str, list[Residuals]] = {}
        # For each part those of each of its groups:
        self._outputs: dict[str, list[Nest]] = {}
        self._added: dict[str, list[tf.Tensor]] = {}
        self._inputs_ct: dict[str, list[tuple[Nest, ...]]] = {}
        self._gradients: dict[str, list[list]] = {}
        self._variables: dict[str, list] = {}

    def forward(self, name: str) -> None:
        """Run the forward of a part."""
        runs = self._run(name, "forward", lambda graph, index: graph.forward(*self._inputs(name, index)))
        self._keep(name, [outputs for outputs, _ in runs])
        self._residuals[name] = [residuals for _, residuals in runs]

    def value_and_gradients(self, name: str, weight: float) -> None:
        """Run both passes of a part with a loss, whose sum is divided by a weight."""

        def task(graph: PartGraph, index: int) -> LossResult:
            share = self._share(name, index)
            return graph.value_and_gradients(*self._inputs(name, index), loss_ct=1.0 / weight, losses_ct=share)

        runs = self._run(name, "value_and_gradients", task)
        self._keep(name, [outputs for outputs, _, _ in runs])
        self._inputs_ct[name] = [inputs_ct for _, inputs_ct, _ in runs]
        self._gradients[name] = [gradients for _, _, gradients in runs]

    def backward(self, name: str) -> None:
        """Run the backward of a part whose consumers have run theirs."""
        residuals = self._residuals.pop(name)
        runs = self._run(
            name, "forward", lambda graph, index: graph.backward(residuals[index], self._outputs_ct(name, index))
        )
        self._inputs_ct[name] = [inputs_ct for inputs_ct, _ in runs]
        self._gradients[name] = [gradients for _, gradients in runs]

    def infer(self, name: str) -> None:
        """Run a part in inference."""
        self._keep(name, self._run(name, "infer", lambda graph, index: graph.infer(*self._inputs(name, index))))

    def weights(self) -> dict[str, float]:
        """Return the number that each part with a loss is divided by; see `Node`."""
        return {name: self._weight(name) for name in self._wiring.losses}

    def losses(self, weights: Mapping[str, float]) -> BatchLosses:
        """Return what the parts with losses returned, summed over the groups and divided by their weights."""
        means = {name: self._mean(name, weights[name]) for name in self._wiring.losses}
        shares = [(added, self._share(name, at)) for name in self._added for at, added in enumerate(self._added[name])]
        return collect_losses(
            means, weights, [added * tf.constant(np.array(share), added.dtype) for added, share in shares]
        )

    def gradients(self, frozen: Collection[str]) -> dict[str, list]:
        """Return the gradients of each part; those of frozen ones are `None`."""
        wanted = {name: self._gradients[name] for name in self._variables if name not in frozen}
        return sums_by_part(self._variables, wanted, self._workers.each)

    def repeated_row(self, times: int) -> dict[str, Sequences]:
        """Return a batch of one row so many times: the first in which no field is empty, or the first of all."""
        filled = np.all([field.lengths > 0 for field in self._fields.values()], axis=0)
        rows = np.repeat(np.argmax(filled), times)
        return {name: Sequences(field.values[rows], field.lengths[rows]) for name, field in self._fields.items()}

    def in_order(self, name: str) -> Nest:
        """Return the outputs of a part in the order of the batch."""
        rows = [group.rows for group in self.groups[name]]
        (route,) = plan_routes(rows, [np.arange(self._rows)], [self._rows])
        return carry(route, self._outputs[name])

    def _keep(self, name: str, results: list[Nest]) -> None:
        """Keep what the groups of a part returned: outputs, and the losses that its layers added."""
        if self._wiring.parts[name].part.losses:
            self._added[name] = [result.losses for result in results]
            results = [result.outputs for result in results]
        self._outputs[name] = results

    def _share(self, name: str, index: int) -> float:
        """Return a group's share of the rows, by which the losses that its layers added are weighted."""
        return len(self.groups[name][index].rows) / self._rows * self.fraction

    def _run(self, name: str, wanted: str, task: Callable[[PartGraph, int], Any]) -> list:
        """Return the results of a task for the part graph and the index of each group of a part."""
        groups = self.groups[name]
        graphs = self._graphs.of_groups(name, groups, wanted)
        self._variables[name] = graphs[0].variables

        def run(index: int) -> Any:
            try:
                return task(graphs[index], index)
            except tf.errors.OpError as error:  # which names operations, and no part
                error.add_note(f"while running {wanted} of part {name!r} in bucket {groups[index].length}")
                raise

        if self._workers.count > 1 and wanted != "infer" and self._graphs.has_state(name):
            return [run(index) for index in range(len(groups))]  # in threads, state would depend on who comes first
        return self._workers.each(
            run,
            range(len(groups)),
            cost=lambda index: groups[index].size * groups[index].length,
        )

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
        return carry(self._route(read, name)[index], self._outputs[read], like=like)

    def _outputs_ct(self, name: str, index: int) -> Nest:
        """Return the cotangents of one group's outputs, from all groups of all parts that read them."""
        outputs = self._outputs[name][index]
        delivered = [
            carry(self._route(consumer, name)[index], [ct[position] for ct in self._inputs_ct[consumer]], like=outputs)
            for consumer, position in self._wiring.consumers(name)
        ]
        flat = zip(*map(tf.nest.flatten, delivered), strict=True)
        outputs_ct = tf.nest.pack_sequence_as(outputs, [add_up(cotangents) for cotangents in flat])
        if name not in self._added:
            return outputs_ct
        return WithLosses(outputs_ct, tf.constant(np.array(self._share(name, index)), self._added[name][index].dtype))

    def _route(self, source: str, target: str) -> list[Route]:
        """Return the routes from one part's groups to another's, either way."""
        if (source, target) not in self._routes:
            rows = {name: [group.rows for group in self.groups[name]] for name in (source, target)}
            sizes = [group.size for group in self.groups[target]]
            self._routes[source, target] = plan_routes(rows[source], rows[target], sizes)
        return self._routes[source, target]

    def _mean(self, name: str, weight: float) -> Nest:
        """Return a part's outputs, summed over the groups and divided by its weight."""
        wrong = [leaf for leaf in tf.nest.flatten(self._outputs[name][0]) if leaf is not None and leaf.shape.rank != 0]
        if wrong:
            raise ValueError(
                f"part {name!r} returns a value of shape {wrong[0].shape.as_list()} beside its loss; what is reported "
                "of a batch are scalars, summed alike. Reduce it, or let the part return it in a model of its own."
            )
        return tf.nest.map_structure(lambda *sums: _divided(sums, weight), *self._outputs[name])

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


def _divided(sums: Sequence[tf.Tensor], weight: float) -> tf.Tensor:
    total = tf.add_n([each if each.dtype.is_floating else tf.cast(each, tf.float32) for each in sums])
    return total / tf.constant(np.array(weight), total.dtype)  # as an array, since each batch may have its own
