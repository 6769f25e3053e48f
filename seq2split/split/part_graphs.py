"""The part graphs of a model, each built when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import RLock
from typing import Any

import tensorflow as tf
from tqdm.auto import tqdm

from seq2split.engine import PartGraph
from seq2split.engine.signature import describe
from seq2split.split.context_lengths import ContextLengths
from seq2split.split.grouping import Group
from seq2split.split.routing import time_leaves
from seq2split.split.sequences import Sequences
from seq2split.split.wiring import Wiring

Nest = Any
Key = tuple  # a part's name, its bucket, and the padded lengths of the contexts where there is a choice


class PartGraphs:
    """A cache of part graphs.

    Args:
        wiring: The parts.
        positions: For each batch field the dtype and shape of one position; int32 scalars by default.
        contexts: The padded lengths at which part graphs that XLA compiles read other parts; `None` without XLA.
        rows: With `contexts`, how many rows each part graph takes.

    Attributes:
        built: The part graphs built so far.
    """

    def __init__(
        self,
        wiring: Wiring,
        positions: Mapping[str, tf.TensorSpec],
        contexts: ContextLengths | None,
        rows: int | None,
    ):
        self.built: dict[Key, PartGraph] = {}
        self._wiring, self._positions, self._contexts, self._rows = wiring, dict(positions), contexts, rows
        self._building = RLock()
        self._output_specs: dict[str, Nest] = {}
        self._states: dict[str, bool] = {}

    @property
    def is_compiled(self) -> bool:
        """True if XLA compiles the part graphs."""
        return self._contexts is not None

    def keys(self) -> list[Key]:
        """Return the keys of all part graphs that training may need."""
        return [
            (name, length, *context)
            for name in self._wiring.parts
            for length in self._wiring.lengths(name)
            for context in self._context_choices(name)
        ]

    def build(self, progress: bool, inference: bool) -> None:
        """Trace the part graphs of all keys, and have XLA compile them if it ever does.

        Args:
            progress: True to show a bar.
            inference: True for what inference runs as well as training.
        """
        task = "compiling" if self.is_compiled else "building"
        with tqdm(self.keys(), desc=f"{task} part graphs", unit="graph", disable=not progress) as bar:
            for name, *lengths in bar:
                bar.set_postfix_str(f"{name} {lengths[0]}")
                graph = self.get(name, lengths[0], tuple(lengths[1:]))
                graph.compile(self._training_pass(name), *(["infer"] if inference else []))

    def get(self, name: str, length: int, context: tuple[int, ...] = ()) -> PartGraph:
        """Return the part graph of one bucket.

        Args:
            name: The part.
            length: The bucket, as its padded length.
            context: The padded lengths at which it reads other parts, where there is a choice; the longest by default.

        Returns:
            The part graph, which has been built but not necessarily traced.
        """
        context = context or self._context_choices(name)[-1]
        key = (name, length, *context)
        with self._building:
            if key not in self.built:
                specs = self._input_specs(name, length, context)
                self.built[key] = self._wiring.parts[name].part.build(*specs, trace=(), jit_compile=self.is_compiled)
            return self.built[key]

    def of_groups(self, name: str, groups: Sequence[Group], wanted: str) -> list[PartGraph]:
        """Return the part graphs of groups, traced; whoever asks for graphs meanwhile waits for these.

        Args:
            name: The part.
            groups: The groups of rows.
            wanted: The pass to run, a word of `PartGraph.trace`.

        Returns:
            A part graph for each group.
        """
        with self._building:
            graphs = [self.get(name, group.length, group.context) for group in groups]
            for graph in graphs:
                graph.trace(wanted)
        return graphs

    def has_state(self, name: str) -> bool:
        """Return whether a part has variables that are not trained, which its forward may assign: seeds, statistics."""
        if name not in self._states:
            variables = self._wiring.parts[name].part.variables
            self._states[name] = any(not getattr(variable, "trainable", True) for variable in variables)
        return self._states[name]

    def trace_any(self, name: str) -> None:
        """Trace one part graph of a part, if none is: so that variables made in the first call exist."""
        if not self._wiring.parts[name].part.traces:
            self.get(name, self._wiring.lengths(name)[0]).trace(self._training_pass(name))

    def position(self, field: str) -> tf.TensorSpec:
        """Return the dtype and shape of one position of a batch field."""
        return self._positions.get(field, tf.TensorSpec([], tf.int32))

    def context_specs(self, name: str, read: str, length: int, context: tuple[int, ...]) -> Nest:
        """Return what a part graph reads of another part: a nest of specs.

        Args:
            name: The part that reads.
            read: The part that is read.
            length: The bucket of the one that reads.
            context: The padded lengths at which it reads.

        Returns:
            A nest of `tf.TensorSpec`.
        """
        if not self.is_compiled:
            return self.output_specs(read)
        specs = self._handed_over(read, self.get(read, *self._contexts.source(name, read, length, context)))
        self.output_specs(read)  # checks that it can cross
        return specs

    def output_specs(self, name: str) -> Nest:
        """Return what a part hands over, whatever its bucket: a nest of specs whose rows and times are unknown."""
        with self._building:
            if name not in self._output_specs:
                built = [graph for (part, *_), graph in self.built.items() if part == name]
                graph = built[0] if built else self.get(name, self._wiring.lengths(name)[0])
                self._check_times(name, graph)
                specs = self._handed_over(name, graph)
                timed = iter(time_leaves(specs))
                self._output_specs[name] = tf.nest.map_structure(lambda spec: _relax(spec, next(timed), name), specs)
            return self._output_specs[name]

    def _check_times(self, name: str, graph: PartGraph) -> None:
        """Check that no output has a time axis outside `Sequences`, whose length another bucket would change."""
        specs = self._handed_over(name, graph)
        lengths, flat = self._wiring.lengths(name), tf.nest.flatten(specs)
        suspects = [
            spec is not None and not timed and (spec.shape.rank or 0) > 1 and spec.shape[1] in lengths
            for spec, timed in zip(flat, time_leaves(specs), strict=True)
        ]
        if self.is_compiled or len(lengths) < 2 or not any(suspects):
            return
        built = [self.get(name, length) for length in (lengths[0], lengths[-1])]
        ends = [tf.nest.flatten(self._handed_over(name, each)) for each in built]
        for suspected, short, long in zip(suspects, *ends, strict=True):
            if suspected and short.shape[1] != long.shape[1]:
                raise ValueError(
                    f"part {name!r} hands over {describe(short)} for bucket {lengths[0]} and {describe(long)} for "
                    f"bucket {lengths[-1]}: what has a time axis crosses as Sequences. Return "
                    "seq2split.Sequences(output, lengths), with the lengths of the field that the part read."
                )

    def _handed_over(self, name: str, graph: PartGraph) -> Nest:
        """Return the specs of what a part graph returns, without the losses that its layers add."""
        return graph.output_specs.outputs if self._wiring.parts[name].part.losses else graph.output_specs

    def _input_specs(self, name: str, length: int, context: tuple[int, ...]) -> list[Nest]:
        return [
            self.context_specs(name, read, length, context)
            if read in self._wiring.parts
            else self._field_spec(read, length)
            for read in self._wiring.parts[name].reads
        ]

    def _field_spec(self, field: str, length: int) -> Sequences:
        position, rows = self.position(field), self._rows
        return Sequences(
            tf.TensorSpec([rows, length, *position.shape], position.dtype), tf.TensorSpec([rows], tf.int32)
        )

    def _training_pass(self, name: str) -> str:
        return "value_and_gradients" if name in self._wiring.losses else "forward"

    def _context_choices(self, name: str) -> list[tuple[int, ...]]:
        return self._contexts.choices(name) if self._contexts else [()]


def _relax(spec: tf.TensorSpec | None, timed: bool, name: str) -> tf.TensorSpec:
    rank = None if spec is None else spec.shape.rank
    if not rank or (timed and rank < 2):
        raise ValueError(
            f"part {name!r} hands over {describe(spec)}; what crosses to another part has rows as its first axis, and "
            "the values of Sequences have time as their second."
        )
    unknown = [None, None] if timed else [None]
    return tf.TensorSpec([*unknown, *spec.shape[len(unknown) :]], spec.dtype)
