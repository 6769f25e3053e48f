"""What a model consists of, as tables: parts, parameters, buckets, part graphs, and the bytes that each carries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from seq2split.common.tables import table
from seq2split.split.model import SplitModel
from seq2split.split.node import Node

_KINDS = {"computed": ("computed",), "random": ("random",), "at hand": ("input", "output", "variable", "alias")}


def inspect_model(model: SplitModel, tokens: int, progress: bool = True) -> str:
    """Describes a model.

    Args:
        model: The model.
        tokens: Padded positions of both sides in a batch, from which the rows of each part graph follow.
        progress: Whether to show a bar while the part graphs are traced.

    Returns:
        Two tables: the parts, and the part graphs with the residuals of a batch whose other side is as long.
    """
    parts = [_describe_part(node) for node in model.nodes.values()]
    todo = [(name, length) for name, node in model.nodes.items() if node.buckets for length in node.buckets.boundaries]
    with tqdm(todo, desc="tracing part graphs", unit="graph", disable=not progress, leave=False) as bar:
        graphs = [_describe_graph(model, name, length, max(1, tokens // (2 * length))) for name, length in bar]
    carried = ("part", "bucket", "rows", "residuals", *(f"{kinds} MiB" for kinds in _KINDS))
    return "\n\n".join(
        (
            table(("part", "reads", "variables", "parameters", "buckets"), parts),
            table(carried, graphs),
            f"{len(graphs)} part graphs. Residuals are what a forward hands to its backward. What it computed, or drew "
            "at random, takes memory; inputs, outputs, variables and other views of these are at hand and take none. "
            "The last part runs both passes in one graph and carries none.",
        )
    )


def _describe_part(node: Node) -> tuple:
    variables = node.part.trainable_variables
    parameters = sum(math.prod(variable.shape) for variable in variables)
    buckets = ", ".join(map(str, node.buckets.boundaries)) if node.buckets else "-"
    return node.name, ", ".join(node.reads), len(variables), f"{parameters:,}", buckets


def _describe_graph(model: SplitModel, name: str, length: int, rows: int) -> tuple:
    if name in model.ends:
        return name, length, rows, "-", *("-" for _ in _KINDS)
    specs = tf.nest.map_structure(lambda spec: _with_rows(spec, rows), model.specs(name, length))
    residuals = model.nodes[name].part.build(*specs).residual_specs
    sizes = [[spec.nbytes for spec in residuals if spec.kind in kinds] for kinds in _KINDS.values()]
    return name, length, rows, len(residuals), *map(_mebibytes, sizes)


def _with_rows(spec: tf.TensorSpec, rows: int) -> tf.TensorSpec:
    return tf.TensorSpec([rows, *spec.shape[1:]], spec.dtype)


def _mebibytes(sizes: Sequence[int | None]) -> str:
    return "unknown" if None in sizes else f"{sum(sizes) / 2**20:.2f}"
