"""Options of TensorFlow that part graphs are called with, whatever thread calls them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager.context import (  # not public, and nothing public sets what is set here
    FunctionCallOptions,
    context,
)


@contextmanager
def calls_apart() -> Iterator[bytes]:
    """Have the graphs that this thread calls within the context share no variable with those of other threads.

    Where a graph needs more than 200 MB, TensorFlow's memory optimizer sums up into temporary variables. They are told
    apart by the name of the operation and the step, and all eager calls are of one step: of two at once one would fail.

    Yields:
        What says so to the raw operation that calls a function, as its `config_proto`.
    """
    before = context().function_call_options  # those of this thread
    stay_apart()
    try:
        yield context().function_call_options.config_proto_serialized
    finally:
        context().function_call_options = before


def stay_apart() -> None:
    """Do the same for good: whatever this thread calls from now on shares no variable with other threads."""
    before = context().function_call_options
    context().function_call_options = _without_temporaries(before.executor_type, before.config_proto_serialized)


@lru_cache
def _without_temporaries(executor_type: str, serialized: bytes) -> FunctionCallOptions:
    config = tf.compat.v1.ConfigProto.FromString(serialized)
    config.graph_options.rewrite_options.memory_optimization = RewriterConfig.NO_MEM_OPT
    return FunctionCallOptions(executor_type, config)
