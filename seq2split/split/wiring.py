"""How parts are wired: what each reads, which others read it, and in whose groups of rows it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from seq2split.buckets import Buckets
from seq2split.engine import Part
from seq2split.split.node import Node, Weight


@dataclass(frozen=True)
class WiredPart:
    """A part of a model, everything that it reads resolved to names.

    Attributes:
        name: The name, which no other part of the model has.
        part: The part.
        reads: The fields and parts that it reads, by name, in the order of its arguments.
        field: The batch field that it reads; `None` if it reads parts alone.
        buckets: The buckets of its field; `None` if it reads none.
        loss: True if it holds a loss.
        weight: The number that its loss is divided by; see `Node`.
    """

    name: str
    part: Part
    reads: tuple[str, ...]
    field: str | None
    buckets: Buckets | None
    loss: bool
    weight: Weight | None


class Wiring:
    """The parts of a model and what they read.

    Args:
        nodes: The nodes, each after those that it reads.

    Attributes:
        parts: The parts by name.
        fields: The batch field of each part that reads one.
        roots: For each part the one in whose groups it runs: itself if it reads a field, or else the root of the first
            part that it reads.
        losses: The names of the parts that hold losses.
        inner: The names of all others.

    Raises:
        ValueError: The parts can't be wired as the nodes say.
    """

    def __init__(self, nodes: Iterable[Node]):
        nodes = list(nodes)
        _check_names(nodes)
        self.parts = {node.name: _resolve(node, nodes) for node in nodes}
        self.fields = {name: part.field for name, part in self.parts.items() if part.field}
        self.losses = [name for name, part in self.parts.items() if part.loss]
        self.inner = [name for name in self.parts if name not in self.losses]
        self._check()
        self.roots: dict[str, str] = {}
        for name, part in self.parts.items():
            self.roots[name] = name if part.buckets else self.roots[self.parts_read(name)[0]]

    def parts_read(self, name: str) -> list[str]:
        """Return the parts that a part reads, in the order of its arguments."""
        return [read for read in self.parts[name].reads if read in self.parts]

    def consumers(self, name: str) -> list[tuple[str, int]]:
        """Return the parts that read a part, each with the argument that it reads it as."""
        return [
            (part.name, position)
            for part in self.parts.values()
            for position, read in enumerate(part.reads)
            if read == name
        ]

    def upstream(self, name: str) -> list[str]:
        """Return a part and those that it depends on, in order."""
        needed = {name}
        for other in reversed(list(self.parts)):
            if other in needed:
                needed |= set(self.parts_read(other))
        return [other for other in self.parts if other in needed]

    def lengths(self, name: str) -> tuple[int, ...]:
        """Return the buckets that a part runs in, as padded lengths."""
        return self.parts[self.roots[name]].buckets.boundaries

    def check_names(self, names: Collection[str], purpose: str) -> None:
        """Check that there are parts of such names.

        Args:
            names: The names.
            purpose: What is asked of the parts, as errors call it, such as `to freeze`.

        Raises:
            ValueError: There is no part of one of the names.
        """
        unknown = [name for name in dict.fromkeys(names) if name not in self.parts]
        if unknown:
            raise ValueError(f"there are no parts {unknown} {purpose}; the parts are {list(self.parts)}.")

    def check_fields(self, fields: Collection[str]) -> None:
        """Check that batch fields that are described are read, and none has the name of a part.

        Args:
            fields: The names of the fields.

        Raises:
            ValueError: A field is a part, or no part reads it.
        """
        for field in fields:
            if field in self.parts or field not in self.fields.values():
                raise ValueError(
                    f"SplitModel(..., fields=...) describes {field!r}, which is "
                    f"{'the name of a part' if field in self.parts else 'a field that no part reads'}; the parts read "
                    f"the fields {sorted(set(self.fields.values()))}. Rename it, or leave it out."
                )

    @property
    def adding(self) -> list[str]:
        """The names of the parts to whose outputs the losses that their layers add join."""
        return [name for name, part in self.parts.items() if part.part.losses]

    def check_added_losses(self, *, filler: bool) -> None:
        """Check that the losses that layers add can join as the unsplit model would have them.

        Args:
            filler: True if groups may hold filler rows.

        Raises:
            ValueError: Filler rows would add losses, or the regularizer of a variable would count in two parts.
        """
        if self.adding and filler:
            raise ValueError(
                f"part {self.adding[0]!r} has losses=True, to which filler rows would add theirs; let groups have as "
                "many rows as they have: row_multiple=1, and no jit_compile."
            )
        seen: dict[int, str] = {}
        for name in self.adding if len(self.adding) > 1 else ():
            for variable in self.parts[name].part.trainable_variables:
                if getattr(variable, "regularizer", None) and seen.setdefault(id(variable), name) != name:
                    raise ValueError(
                        f"the regularizer of {variable.path} would count in the parts {seen[id(variable)]!r} and "
                        f"{name!r}, which both have losses=True and share it; leave losses=True out of one."
                    )

    def _check(self) -> None:
        seen: set[str] = set()
        for name in self.parts:
            self._check_order(name, seen)
            self._check_loss(name)
            seen.add(name)

    def _check_order(self, name: str, seen: set[str]) -> None:
        late = [read for read in self.parts_read(name) if read not in seen]
        if late or not self.parts[name].reads:
            raise ValueError(
                f"part {name!r} reads {late or 'nothing'}; a part reads a batch field, or parts that stand before it: "
                f"{sorted(seen)}. Order the nodes so."
            )

    def _check_loss(self, name: str) -> None:
        readers, part = self.consumers(name), self.parts[name]
        if not part.loss and not readers:
            raise ValueError(
                f"no part reads the outputs of {name!r}, and it holds no loss, so that nothing would train it: give "
                "Node(..., loss=True) if it returns the loss, or let another part read it, or leave it out."
            )
        if part.loss and readers:
            raise ValueError(
                f"part {name!r} holds a loss, but {readers[0][0]!r} reads it; a loss crosses to no other part. Let it "
                "return what is read, and make a part of the loss."
            )
        if part.loss and part.weight is None and name not in self.fields:
            raise ValueError(
                f"part {name!r} holds a loss but reads no batch field, so that nothing tells what to divide the sum "
                "by: let it read the field whose positions it predicts, or give Node(..., weight=...)."
            )


def _check_names(nodes: list[Node]) -> None:
    if not nodes or len({node.name for node in nodes}) < len(nodes):
        raise ValueError(
            f"SplitModel was given nodes of the names {[node.name for node in nodes]}; expected at least one, each "
            "with a name of its own: Node(..., name=...). The number that Keras appends to a layer's name is no part "
            "of it."
        )


def _resolve(node: Node, nodes: list[Node]) -> WiredPart:
    names = {each.name for each in nodes}
    reads = tuple(_resolve_read(node.name, nodes, read) for read in node.reads)
    fields = [read for read in reads if read not in names]
    if len(fields) > 1 or bool(fields) != bool(node.buckets):
        raise ValueError(
            f"part {node.name!r} reads {list(reads)}, of which {fields} are batch fields, and its buckets are "
            f"{node.buckets}. A part reads at most one field, and has buckets if it reads one; the parts are "
            f"{[each.name for each in nodes]}."
        )
    return WiredPart(node.name, node.part, reads, fields[0] if fields else None, node.buckets, node.loss, node.weight)


def _resolve_read(reader: str, nodes: list[Node], read: str | Node) -> str:
    if isinstance(read, str):
        if read == reader:
            raise ValueError(
                f"part {reader!r} reads {read!r}, which is its own name: a name is that of a field or of a part, not "
                "of both. Rename the field, or give Node(..., name=...)."
            )
        return read
    if not any(each is read for each in nodes):
        raise ValueError(
            f"part {reader!r} reads the node {read.name!r}, which is not among those given to SplitModel: "
            f"{[node.name for node in nodes]}. Give it too."
        )
    return read.name
