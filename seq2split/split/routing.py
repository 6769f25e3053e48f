"""Carry the outputs of one part's groups of rows to the groups of another, and the cotangents back.

A batch of mixed lengths is grouped twice: by source bucket for the encoder and by target bucket for the decoder, other
groups of the same rows at other padded lengths. A `Route` says which rows of which groups make up one group; it is
planned with numpy from row numbers alone, and applied to tensors in a few operations. The way back is a route in the
other direction: each row stands in exactly one group on either side, so both ways only move rows.

Moves are slices where the rows that travel together stand together in their groups; `BatchStep` sorts them so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.split.sequences import Sequences

Nest = Any


@dataclass(frozen=True)
class Route:
    """Where the rows of one group come from.

    Attributes:
        pieces: Pairs of a group and the positions `[n]` of the rows to take from it.
        order: For each row of the new group its place among the pieces; `None` where they are in order already.
        size: The number of rows of the new group, filler included; filler rows are zeros at its end.
    """

    pieces: tuple[tuple[int, np.ndarray], ...]
    order: np.ndarray | None
    size: int

    @property
    def groups(self) -> list[int]:
        """The groups that it takes from."""
        return [group for group, _ in self.pieces]


def plan_routes(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], sizes: Sequence[int]) -> list[Route]:
    """Return a route for each target group.

    Args:
        sources: The row numbers of each source group, int64 `[n]`; together they hold every row once.
        targets: The row numbers of each target group, int64 `[n]`; every one stands in a source group.
        sizes: The number of rows of each target group, filler included.

    Returns:
        The routes, in the order of `targets`.

    Example:
        >>> routes = plan_routes([np.array([0, 2]), np.array([1])], [np.array([2, 1, 0])], sizes=[4])
        >>> [(group, rows.tolist()) for group, rows in routes[0].pieces], routes[0].order.tolist(), routes[0].size
        ([(0, [1, 0]), (1, [0])], [0, 2, 1], 4)
    """
    count = sum(len(rows) for rows in sources)
    group_of, place_in = np.empty(count, np.int64), np.empty(count, np.int64)
    for group, rows in enumerate(sources):
        group_of[rows], place_in[rows] = group, np.arange(len(rows))
    return [_plan_route(group_of[rows], place_in[rows], size) for rows, size in zip(targets, sizes, strict=True)]


def _plan_route(groups: np.ndarray, places: np.ndarray, size: int) -> Route:
    by_group = np.argsort(groups, kind="stable")
    pieces = tuple((int(group), places[groups == group]) for group in np.unique(groups))
    in_order = bool(np.all(by_group[1:] > by_group[:-1]))
    return Route(pieces, None if in_order else np.argsort(by_group), size)


def carry(route: Route, groups: Sequence[Nest] | Mapping[int, Nest], like: Nest = None) -> Nest:
    """Return the group that a route describes.

    Args:
        route: The route.
        groups: For each source group that it takes from a nest of tensors whose first axis is rows. A leaf that is
            `None` in all groups stays `None`, and counts as zeros where other groups have a tensor.
        like: A nest of tensors or specs that gives the times to which `Sequences.values` are padded or cut; by default
            the longest of the groups that the route takes from.

    Returns:
        A nest of the same structure, for the route's rows.

    Example:
        >>> (route,) = plan_routes([np.array([0, 2]), np.array([1])], [np.array([2, 1, 0])], sizes=[4])
        >>> carry(route, [tf.constant([10, 12]), tf.constant([11])]).numpy().tolist()
        [12, 11, 10, 0]
    """
    structure = groups[route.groups[0]] if like is None else like
    flat = {group: tf.nest.flatten(groups[group]) for group in route.groups}
    models = flat.values() if like is None else [tf.nest.flatten(like)]
    leaves = []
    for index, timed in enumerate(time_leaves(structure)):
        length = max(model[index].shape[1] for model in models) if timed else None
        leaves.append(_assemble(route, {group: tensors[index] for group, tensors in flat.items()}, length))
    return tf.nest.pack_sequence_as(structure, leaves)


def time_leaves(structure: Nest) -> list[bool]:
    """Return for each leaf of a nest, in the order of `tf.nest.flatten`, whether it is the values of `Sequences`."""
    marked = _mark(structure)
    return tf.nest.flatten(marked)


def _mark(structure: Nest) -> Nest:
    if isinstance(structure, Sequences):
        return Sequences(tf.nest.map_structure(lambda _: True, structure.values), False)
    if isinstance(structure, dict):
        return {key: _mark(value) for key, value in structure.items()}
    if isinstance(structure, tuple | list):
        return [_mark(value) for value in structure]
    return False


def _assemble(route: Route, tensors: dict[int, tf.Tensor | None], length: int | None) -> tf.Tensor | None:
    """Return one leaf of the group; `length` is its time, or `None` where it has no time axis."""
    given = next((tensor for tensor in tensors.values() if tensor is not None), None)
    if given is None:
        return None
    pieces = [
        tf.zeros([len(places), *given.shape[1:]], given.dtype)  # no path to the loss in this bucket alone
        if tensors[group] is None
        else _take(tensors[group], places)
        for group, places in route.pieces
    ]
    if length is not None:
        pieces = [_fit(piece, 1, length) for piece in pieces]
    rows = pieces[0] if len(pieces) == 1 else tf.concat(pieces, 0)
    return _fit(rows if route.order is None else tf.gather(rows, route.order), 0, route.size)


def _take(tensor: tf.Tensor, places: np.ndarray) -> tf.Tensor:
    """Return the rows at `places`, as a slice where they stand together."""
    start, stop = int(places[0]), int(places[-1]) + 1
    if stop - start != len(places) or np.any(np.diff(places) != 1):
        return tf.gather(tensor, places)
    return tensor if len(places) == tensor.shape[0] else _cut(tensor, 0, start, stop - start)


def _cut(tensor: tf.Tensor, axis: int, start: int, size: int) -> tf.Tensor:
    """Return a slice along one axis; a quarter of the time of indexing, which takes its bounds one by one."""
    begins, sizes = np.zeros(tensor.shape.rank, int), np.full(tensor.shape.rank, -1)
    begins[axis], sizes[axis] = start, size
    return tf.slice(tensor, begins, sizes)


def _fit(tensor: tf.Tensor, axis: int, size: int) -> tf.Tensor:
    """Return a tensor with one axis padded with zeros, or cut, to a size."""
    missing = size - tensor.shape[axis]
    if missing == 0:
        return tensor
    if missing < 0:
        return _cut(tensor, axis, 0, size)
    return tf.pad(tensor, [[0, missing if at == axis else 0] for at in range(tensor.shape.rank)])
