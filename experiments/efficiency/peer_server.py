"""A peer's process: it makes a subject, runs it when asked, and takes the time itself.

It never imports TensorFlow: two frameworks in one process have crashed each other (PyTorch's triton and TensorFlow each
bring an LLVM of their own), and share threads and an allocator.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from efficiency.messages import Arrays, pack, unpack

SETTLING = 0.01
"""Seconds between a step and the answer. Threads of OpenMP wait for more work in a loop for a few milliseconds before
they sleep: they do so now, and not while the next subject is timed."""
Batch = dict[str, tuple[np.ndarray, np.ndarray]]


def serve(descriptor: int) -> None:
    """Answer calls until the other end is closed.

    Args:
        descriptor: The file descriptor of a connection.
    """
    connection, peer = Connection(descriptor), _Peer()
    while True:
        try:
            fields, arrays = unpack(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = peer.calls[fields.pop("call")](arrays, **fields)
        except Exception as error:  # it is a line of the report; the benchmark goes on
            answer = pack({"error": f"{type(error).__name__}: {error}"})
        connection.send_bytes(answer)


class _Peer:
    """A subject, and the calls that it answers with messages."""

    def __init__(self):
        self._subject: Any = None
        self.calls: dict[str, Callable[..., bytes]] = {
            "make": self._make,
            "loss_and_gradients": self._loss_and_gradients,
            "step": self._step,
            "weights": self._weights,
        }

    def _make(self, arrays: Arrays, factory: str, options: dict[str, Any]) -> bytes:
        module, _, name = factory.partition(":")
        self._subject = getattr(import_module(module), name)(arrays, **options)
        gc.collect()
        gc.freeze()  # as in the benchmark's own process, no search through all of a framework in mid-step
        return pack({})

    def _loss_and_gradients(self, arrays: Arrays) -> bytes:
        loss, gradients = self._subject.loss_and_gradients(_batch(arrays))
        return pack({"loss": float(loss)}, gradients)

    def _step(self, arrays: Arrays) -> bytes:
        batch, start = _batch(arrays), time.perf_counter()
        self._subject.step(batch)
        seconds = time.perf_counter() - start
        time.sleep(SETTLING)
        return pack({"seconds": seconds})

    def _weights(self, _arrays: Arrays) -> bytes:
        return pack({}, self._subject.weights())


def _batch(arrays: Arrays) -> Batch:
    return {side: (arrays[f"{side}/values"], arrays[f"{side}/lengths"]) for side in ("source", "target")}
