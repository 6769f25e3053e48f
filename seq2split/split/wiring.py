"""How parts are wired by name: what each reads, which others read it, and in whose groups of rows it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seq2split.buckets import Buckets
from seq2split.engine import Part


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


class Wiring:
    """The parts of a model and what they read.

    Args:
        nodes: The parts, each after those that it reads.

    Attributes:
        nodes: They, by name.
        fields: The batch field of each part that reads one.
        roots: For each part the one in whose groups it runs: itself if it reads a field, or else the root of the first
            part that it reads.
        ends: The parts that no other reads, which hold losses.
        inner: All others.

    Raises:
        ValueError: The parts can't be wired so.
    """

    def __init__(self, nodes: Iterable[Node]):
        nodes = list(nodes)
        self.nodes = {node.name: node for node in nodes}
        if not nodes or len(self.nodes) < len(nodes):
            raise ValueError(
                f"SplitModel was given parts of the names {[node.name for node in nodes]}; it takes at least one, and "
                "wires them by name: give each a name of its own with Part(..., name=...)."
            )
        found = {name: self._field_of(node) for name, node in self.nodes.items()}
        self.fields = {name: field for name, field in found.items() if field}
        self.ends = [name for name in self.nodes if not self.consumers(name)]
        self.inner = [name for name in self.nodes if name not in self.ends]
        self._check()
        self.roots: dict[str, str] = {}
        for name, node in self.nodes.items():
            self.roots[name] = name if node.buckets else self.roots[self.parts_read(name)[0]]

    def parts_read(self, name: str) -> list[str]:
        """The parts that a part reads, in the order of its arguments."""
        return [read for read in self.nodes[name].reads if read in self.nodes]

    def consumers(self, name: str) -> list[tuple[str, int]]:
        """The parts that read a part, each with the argument that it reads it as."""
        return [
            (node.name, position)
            for node in self.nodes.values()
            for position, read in enumerate(node.reads)
            if read == name
        ]

    def upstream(self, name: str) -> list[str]:
        """A part and those that it depends on, in order."""
        needed = {name}
        for other in reversed(list(self.nodes)):
            if other in needed:
                needed |= set(self.parts_read(other))
        return [other for other in self.nodes if other in needed]

    def lengths(self, name: str) -> tuple[int, ...]:
        """The buckets that a part runs in, as padded lengths."""
        return self.nodes[self.roots[name]].buckets.boundaries

    def _field_of(self, node: Node) -> str | None:
        fields = [read for read in node.reads if read not in self.nodes]
        if len(fields) > 1 or bool(fields) != bool(node.buckets):
            raise ValueError(
                f"part {node.name!r} reads {list(node.reads)}, of which {fields} are batch fields, and its buckets are "
                f"{node.buckets}. A part reads at most one field, and has buckets if it reads one; the parts so far "
                f"are {list(self.nodes)}."
            )
        return fields[0] if fields else None

    def _check(self) -> None:
        seen: set[str] = set()
        for name, node in self.nodes.items():
            late = [read for read in self.parts_read(name) if read not in seen]
            if late or not node.reads:
                raise ValueError(
                    f"part {name!r} reads {late or 'nothing'}; a part reads a batch field, or parts that stand before "
                    f"it: {sorted(seen)}. Order the nodes so."
                )
            seen.add(name)
        for name in self.ends:
            if name not in self.fields:
                raise ValueError(
                    f"no part reads the outputs of {name!r}, so that it holds a loss, but it reads no batch field: let "
                    "another part read it, or let it read the field whose positions it predicts."
                )
