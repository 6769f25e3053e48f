"""What subjects keep between forward and backward, and how often their forward runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from efficiency.apart import CacheAll, Tape
from efficiency.batches import Batch, full_batch, one_row, padded
from efficiency.making import make
from efficiency.setting import Setting
from efficiency.subjects import Split, Subject

_ROWS, _TIMES = 8, (2, 3)
_FIRST_ORDER = 1  # how TensorFlow calls what a tape that isn't persistent may be asked for


def residual_bytes(subject: Subject, batch: Batch) -> dict[str, int]:
    """What a subject's forward keeps for its backward on a batch of one bucket pair, in bytes, by part.

    Inputs, outputs, variables and constants exist anyway, and count for nobody; a view of another tensor adds nothing.

    Returns:
        The bytes of `encoder` and, where its forward is a function of its own, of `decoder`.
    """
    source, target = (int(lengths.max()) for lengths in subject.setting.by_bucket(batch))
    fields = padded(batch, np.arange(len(batch["source"].lengths)), source, target)
    measure = {Split: _split_bytes, CacheAll: _cached_bytes, Tape: _taped_bytes}.get(type(subject))
    return measure(subject, source, target, *fields) if measure else {}


def forward_runs(name: str, setting: Setting) -> dict[str, int]:
    """How often the forward of each part of a subject runs in one step; counted, in a small model.

    Args:
        name: The subject.
        setting: Its model is taken.

    Returns:
        By part the runs in the second step on a batch of one bucket pair, in one thread; the optimizer runs none.
    """
    small = replace(setting.sizes, vocabulary=16, units=4, layers=1)
    source, target = _TIMES
    lengths = {"source": (source,), "target": (target,), "diagonal": (_TIMES,)}
    subject = make(name, replace(setting, sizes=small, precision="float32", threads=1, **lengths))
    counters = {part: tf.Variable(0, trainable=False) for part in subject.layers}
    for part, layer in subject.layers.items():
        layer.call = _counted(layer.call, counters[part])
    batch = full_batch(source, target, _ROWS * (source + target), small.vocabulary)
    subject.loss_and_gradients(batch)
    before = {part: int(counter) for part, counter in counters.items()}
    subject.loss_and_gradients(batch)
    return {part: int(counter) - before[part] for part, counter in counters.items()}


def bytes_of(kept: Iterable[tf.Tensor], known: Iterable[tf.Tensor]) -> int:
    """The memory that tensors take beside others, each byte counted once however many tensors show it.

    Args:
        kept: Eager tensors.
        known: Those that exist anyway.

    Returns:
        The bytes.
    """
    known, extents = ([_extent(tensor) for tensor in _dense(tensors)] for tensors in (known, kept))
    return _covered(known + extents) - _covered(known)


def _split_bytes(subject: Split, source: int, target: int, *fields: Any) -> dict[str, int]:
    subject.loss_and_gradients(one_row(source, target))  # builds them
    encoded, residuals = subject.split.graphs["encoder", source].forward(fields[0])
    losses, decoder_residuals = subject.split.graphs["decoder", target].forward(encoded, fields[1])
    shown = _shown(subject, fields, encoded)
    return {
        "encoder": bytes_of(residuals.held, shown),
        "decoder": bytes_of(decoder_residuals.held, shown + _tensors(losses)),
    }


def _cached_bytes(subject: CacheAll, source: int, target: int, *fields: Any) -> dict[str, int]:
    subject.prepare(source, target)
    encoded, kept = subject.passes["encoder", source].forward(fields[0])
    losses, decoder_kept = subject.passes["decoder", target].forward(encoded, fields[1])
    shown = _shown(subject, fields, encoded)
    return {
        "encoder": bytes_of(kept, shown),
        "decoder": bytes_of(decoder_kept, shown + _tensors(losses)),
    }


def _taped_bytes(subject: Tape, source: int, target: int, *fields: Any) -> dict[str, int]:
    """What an eager tape keeps of a call: the further outputs of the function that it runs in the place of ours.

    TensorFlow shows it nowhere, so this reads a private method, the one that the call itself goes through.
    """
    subject.prepare(source, target)
    encoded, kept = _taped(subject.functions["encoder", source], _tensors(fields[0]))
    losses, decoder_kept = _taped(subject.functions["decoder", target], _tensors(encoded) + _tensors(fields[1]))
    shown = _shown(subject, fields, encoded)
    return {"encoder": bytes_of(kept, shown), "decoder": bytes_of(decoder_kept, shown + losses)}


def _shown(subject: Subject, fields: Any, encoded: Any) -> list[tf.Tensor]:
    """What exists anyway: variables, inputs, and what the encoder hands over."""
    weights = [variable.value.value() for each in subject.variables.values() for variable in each]
    return weights + _tensors(fields) + _tensors(encoded)


def _taped(function: Any, inputs: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The outputs of a concrete function under a tape, and what is kept beside them."""
    with tf.GradientTape() as tape:
        tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
        chosen = function._select_forward_and_backward_functions(
            [*inputs, *function.captured_inputs], _FIRST_ORDER, True
        )
        forward, arguments = chosen.forward()
        results = forward.call_flat(*arguments)
    count = len(tf.nest.flatten(function.structured_outputs))
    return list(results[:count]), list(results[count:])


def _counted(call: Callable, counter: tf.Variable) -> Callable:
    def counted(*args, **kwargs):
        counter.assign_add(1)
        return call(*args, **kwargs)

    return tf.autograph.experimental.do_not_convert(counted)


def _tensors(nest: Any) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(nest)]


def _dense(tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
    """Those with numbers to count; scalars are too few."""
    return [each for each in tensors if each.dtype not in (tf.resource, tf.variant) and each.shape.rank]


def _extent(tensor: tf.Tensor) -> tuple[int, int]:
    """Where the numbers of an eager tensor begin and end in memory."""
    start = tensor._numpy_internal().ctypes.data  # numpy() would copy
    return start, start + tensor.shape.num_elements() * tensor.dtype.size


def _covered(extents: list[tuple[int, int]]) -> int:
    """The length of the union of intervals."""
    total = reached = 0
    for start, end in sorted(extents):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
