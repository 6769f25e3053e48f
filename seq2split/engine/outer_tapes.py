"""What a user's `tf.GradientTape` around a call of a part graph is told.

The tape doesn't see the call, since its gradient is another graph's. With another path to the same variables it would
return a wrong number and not `None`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from seq2split.engine.signature import differentiable

Nest = Any

try:  # Not public, and nothing public tells; without it each call pays 0.1 ms for three operations.
    from tensorflow.python.eager.record import could_possibly_record
except ImportError:  # pragma: no cover

    def could_possibly_record() -> bool:
        """Return True, since nobody knows."""
        return True


def sealed(results: Nest, sources: Iterable, owner: Any) -> Nest:
    """Return results through which a tape that records now can't differentiate.

    To take a gradient through them then raises a `LookupError`; to watch them and start from there is an error too.

    Args:
        results: What a call that no tape has seen returned: a nest of tensors, `tf.IndexedSlices` and `None`.
        sources: The tensors and variables that it depends on; read only while a tape records.
        owner: What was called; printed only where a tape records.

    Returns:
        The same nest, where no tape records or nothing is differentiable.
    """
    if not could_possibly_record():
        return results
    flat = tf.nest.flatten(results, expand_composites=True)
    tensors = [each for each in flat if each is not None]
    read = [tf.convert_to_tensor(source) for source in sources if differentiable(source)]  # has tapes watch variables
    if not read or not tensors:
        return results
    message = (
        f"{owner} was called while a gradient tape was recording, which can't see into it and would return a wrong "
        "gradient. Call it outside of the tape (or under tape.stop_recording()), watch its outputs with a tape of your "
        "own for what follows, and hand the cotangents to its backward; for a split model, loss_and_gradients returns "
        "the gradients."
    )
    token = tf.raw_ops.PreventGradient(input=tf.raw_ops.IdentityN(input=read)[0], message=message)
    hidden = iter(tf.raw_ops.IdentityN(input=[*tensors, token]))
    packed = [None if each is None else next(hidden) for each in flat]
    return tf.nest.pack_sequence_as(results, packed, expand_composites=True)
