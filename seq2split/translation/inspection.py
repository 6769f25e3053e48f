"""What a model consists of, as tables: parts, parameters, buckets, part graphs, and the bytes that each carries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from seq2split.common.tables import table
from seq2split.split import Sequences, SplitModel
from seq2split.split.wiring import WiredPart

_KINDS = {"computed": ("computed",), "random": ("random",), "at hand": ("input", "output", "variable", "alias")}


def inspect_model(model: SplitModel, tokens: int, progress: bool = True) -> str:
    """Return a description of a model.

    Args:
        model: The model.
        tokens: The number of padded positions of both sides in a batch, from which the rows of each part graph follow.
        progress: True to show a bar while the part graphs are traced.

    Returns:
        Two tables: the parts, and the part graphs with the residuals of a batch whose other side is as long.
    """
    model.create_variables()
    parts = [_describe_part(part) for part in model.parts.values()]
    todo = [(name, length) for name, part in model.parts.items() if part.buckets for length in part.buckets.boundaries]
    with tqdm(todo, desc="tracing part graphs", unit="graph", disable=not progress, leave=False) as bar:
        graphs = [_describe_graph(model, name, length, max(1, tokens // (2 * length))) for name, length in bar]
    carried = ("part", "bucket", "rows", "residuals", *(f"{kinds} MiB" for kinds in _KINDS))
    return "\n\n".join(
        (
            table(("part", "reads", "variables", "parameters", "buckets"), parts),
            table(carried, graphs),
            f"{len(graphs)} part graphs. Residuals are what a forward hands to its backward. What it computed, or drew "
            "at random, takes memory; inputs, outputs, variables and other views of these are at hand and take none. "
            "A part that holds a loss runs both passes in one graph and carries none.",
        )
    )


def _describe_part(part: WiredPart) -> tuple:
    variables = part.part.trainable_variables
    parameters = sum(math.prod(variable.shape) for variable in variables)
    buckets = ", ".join(map(str, part.buckets.boundaries)) if part.buckets else "-"
    return part.name, ", ".join(part.reads), len(variables), f"{parameters:,}", buckets


def _describe_graph(model: SplitModel, name: str, length: int, rows: int) -> tuple:
    part = model.parts[name]
    if part.loss:
        return name, length, rows, "-", *("-" for _ in _KINDS)
    specs = [
        _field_spec(model, read, length) if read == part.field else model.output_specs(read) for read in part.reads
    ]
    residuals = part.part.build(*tf.nest.map_structure(lambda spec: _with_rows(spec, rows), specs)).residual_specs
    sizes = [[spec.nbytes for spec in residuals if spec.kind in kinds] for kinds in _KINDS.values()]
    return name, length, rows, len(residuals), *map(_mebibytes, sizes)


def _field_spec(model: SplitModel, field: str, length: int) -> Sequences:
    position = model.fields[field]
    return Sequences(tf.TensorSpec([None, length, *position.shape], position.dtype), tf.TensorSpec([None], tf.int32))


def _with_rows(spec: tf.TensorSpec, rows: int) -> tf.TensorSpec:
    return tf.TensorSpec([rows, *spec.shape[1:]], spec.dtype)


def _mebibytes(sizes: Sequence[int | None]) -> str:
    return "unknown" if None in sizes else f"{sum(sizes) / 2**20:.2f}"
