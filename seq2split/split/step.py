"""One batch on its way through the parts of a model. Internal to `model`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from seq2split.engine import PartGraph, Residuals
from seq2split.split.fields import Batch, read_fields, rows_of
from seq2split.split.gradients import add_up, sums_by_part
from seq2split.split.grouping import Group
from seq2split.split.routing import Route, carry, plan_routes

if TYPE_CHECKING:
    from seq2split.split.model import SplitModel

Nest = Any


class Step:
    """One batch on its way through some of a model's parts.

    Args:
        model: The model.
        batch: The batch; the fields that these parts read are needed.
        names: The parts, in order, with all that they depend on.

    Attributes:
        groups: For each part the groups of rows that its part graphs take.

    Raises:
        ValueError: A field is missing or can't be read, or the fields differ in their rows.
        OverlongError: A row is longer than the last bucket.
    """

    def __init__(self, model: SplitModel, batch: Batch, names: Iterable[str]):
        self._model, self._wiring = model, model.wiring
        names = list(names)
        own_fields = {name: self._wiring.fields[name] for name in names if name in self._wiring.fields}
        self._fields = read_fields(batch, {field: model.position(field) for field in own_fields.values()})
        self._rows = len(next(iter(self._fields.values())).lengths)
        self.groups = self._plan_groups(names)
        self._routes: dict[tuple[str, str], list[Route]] = {}
        self._residuals: dict[str, list[Residuals]] = {}
        self._outputs: dict[str, list[Nest]] = {}  # for each part of each of its groups, as all that follow
        self._inputs_ct: dict[str, list[tuple[Nest, ...]]] = {}
        self._gradients: dict[str, list[list]] = {}
        self._variables: dict[str, list] = {}

    def forward(self, name: str) -> None:
        """Runs the forward of a part."""
        runs = self._run(name, "forward", lambda graph, index: graph.forward(*self._inputs(name, index)))
        self._outputs[name] = [outputs for outputs, _ in runs]
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
        self._outputs[name] = [outputs for outputs, _, _ in runs]
        self._inputs_ct[name] = [inputs_ct for _, inputs_ct, _ in runs]
        self._gradients[name] = [gradients for _, _, gradients in runs]

    def backward(self, name: str) -> None:
        """Runs the backward of a part whose consumers have run theirs."""
        residuals = self._residuals.pop(name)
        runs = self._run(
            name, "forward", lambda graph, index: graph.backward(residuals[index], self._outputs_ct(name, index))
        )
        self._inputs_ct[name] = [inputs_ct for inputs_ct, _ in runs]
        self._gradients[name] = [gradients for _, gradients in runs]

    def infer(self, name: str) -> None:
        """Runs a part in inference."""
        self._outputs[name] = self._run(name, "infer", lambda graph, index: graph.infer(*self._inputs(name, index)))

    def means(self) -> Nest:
        """What the part with a loss returns, as of `SplitModel.loss_and_gradients`; of several by part."""
        means = {name: self._mean(name) for name in self._wiring.ends}
        return means if len(means) > 1 else means[self._wiring.ends[0]]

    def gradients(self, frozen: Collection[str]) -> dict[str, list]:
        """The gradients of each part that isn't frozen, as of `SplitModel.loss_and_gradients`."""
        wanted = {name: self._gradients[name] for name in self._variables if name not in frozen}
        return sums_by_part(self._variables, wanted, self._model.workers.each)

    def in_order(self, name: str) -> Nest:
        """The outputs of a part in the order of the batch."""
        rows = [group.rows for group in self.groups[name]]
        (route,) = plan_routes(rows, [np.arange(self._rows)], [self._rows])
        return carry(route, self._outputs[name])

    def _run(self, name: str, wanted: str, task: Callable[[PartGraph, int], Any]) -> list:
        """The results of a task for the part graph and the index of each group of a part."""
        groups = self.groups[name]
        graphs = self._model.graphs_of(name, groups, wanted)
        self._variables[name] = graphs[0].variables
        return self._model.workers.each(
            lambda index: task(graphs[index], index),
            range(len(groups)),
            cost=lambda index: groups[index].size * groups[index].length,
        )

    def _inputs(self, name: str, index: int) -> list[Nest]:
        """The inputs of one group of a part."""
        group = self.groups[name][index]
        return [
            rows_of(self._fields[read], group) if read in self._fields else self._carried(read, name, index)
            for read in self._wiring.nodes[name].reads
        ]

    def _carried(self, read: str, name: str, index: int) -> Nest:
        """What one group of a part reads of another part."""
        group, like = self.groups[name][index], None
        if self._model.is_compiled:
            like = self._model.handed_over(name, read, group.length, group.memory)
        return carry(self._route(read, name)[index], self._outputs[read], like=like)

    def _outputs_ct(self, name: str, index: int) -> Nest:
        """The cotangents of one group's outputs, from all groups of all parts that read them."""
        outputs = self._outputs[name][index]
        delivered = [
            carry(self._route(consumer, name)[index], [ct[position] for ct in self._inputs_ct[consumer]], like=outputs)
            for consumer, position in self._wiring.consumers(name)
        ]
        flat = zip(*map(tf.nest.flatten, delivered), strict=True)
        return tf.nest.pack_sequence_as(outputs, [add_up(cotangents) for cotangents in flat])

    def _route(self, source: str, target: str) -> list[Route]:
        """The routes from one part's groups to another's, either way."""
        if (source, target) not in self._routes:
            rows = {name: [group.rows for group in self.groups[name]] for name in (source, target)}
            sizes = [group.size for group in self.groups[target]]
            self._routes[source, target] = plan_routes(rows[source], rows[target], sizes)
        return self._routes[source, target]

    def _mean(self, name: str) -> Nest:
        """A part's outputs, summed over the groups and divided by the number of real positions."""
        positions = self._positions(name)
        return tf.nest.map_structure(lambda *sums: _floating(tf.add_n(sums)) / positions, *self._outputs[name])

    def _positions(self, name: str) -> float:
        return float(max(1, self._fields[self._wiring.fields[name]].lengths.sum()))

    def _plan_groups(self, names: list[str]) -> dict[str, list[Group]]:
        padded = {name: self._padded(name) for name in names if name in self._wiring.fields}
        groups = {name: self._group(name, padded) for name in padded}
        return {name: groups[self._wiring.roots[name]] for name in names}

    def _padded(self, name: str) -> np.ndarray:
        """The bucket of each row as its padded length, `[rows]`."""
        field = self._wiring.fields[name]
        try:
            return self._wiring.nodes[name].buckets.padded(self._fields[field].lengths)
        except ValueError as error:
            error.add_note(f"in batch field {field!r}, which part {name!r} reads")
            raise

    def _group(self, name: str, padded: dict[str, np.ndarray]) -> list[Group]:
        """The rows of each bucket, those that share the other parts' buckets side by side: they travel together."""
        others = [lengths for other, lengths in padded.items() if other != name]
        order = np.lexsort(others) if others else np.arange(self._rows)
        return self._model.grouping.groups(name, padded, order)


def _floating(total: tf.Tensor) -> tf.Tensor:
    return total if total.dtype.is_floating else tf.cast(total, tf.float32)
