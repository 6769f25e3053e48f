"""A peer in a process of its own, as the benchmark sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import Pipe
from typing import Any

import numpy as np

from efficiency.messages import Arrays, pack, unpack
from efficiency.naming import Weights
from efficiency.own_script import SCRIPT

# Intel's OpenMP, which some builds of PyTorch have, waits in a loop for 200 ms by default; GNU's for a few.
_ENVIRONMENT = {"KMP_BLOCKTIME": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
_LEAVING = 10.0  # seconds that a process has to end by itself


class PeerError(Exception):
    """A peer can't go on; the others can."""


class PeerProcess:
    """A subject that another process runs.

    Args:
        factory: What makes it there, as `module:name`; called with the weights and the options.
        weights: By the names that the frameworks share.
        options: Whatever else it is made with, as JSON can hold it.
        environment: What the process finds in its environment beside what it inherits.

    Attributes:
        error: Why it can't go on; `None` as long as it can. Every further call raises it again.

    Raises:
        PeerError: It can't be made; so does each call that fails.
    """

    def __init__(
        self,
        factory: str,
        weights: Weights,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self.error: str | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 it is read when the process has failed
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, SCRIPT, "--peer", str(theirs.fileno())],
            env=os.environ | _ENVIRONMENT | dict(environment or {}),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        theirs.close()
        self._call({"call": "make", "factory": factory, "options": options or {}}, weights)

    def loss_and_gradients(self, batch: Mapping[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss of a batch and the gradients by the names of the weights."""
        fields, gradients = self._call({"call": "loss_and_gradients"}, _arrays(batch))
        return fields["loss"], gradients

    def step(self, batch: Mapping[str, Any]) -> float:
        """Run one step of training there, and return the seconds that it took there."""
        return self._call({"call": "step"}, _arrays(batch))[0]["seconds"]

    def weights(self) -> Weights:
        """Return the weights as they are there now."""
        return self._call({"call": "weights"}, {})[1]

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        try:
            self._process.wait(_LEAVING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, fields: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        if self.error is not None:
            raise PeerError(self.error)
        try:
            self._connection.send_bytes(pack(fields, arrays))
            found, answered = unpack(self._connection.recv_bytes())
        except (EOFError, OSError):
            found, answered = {"error": self._death()}, {}
        if "error" in found:
            self.error = found["error"]
            self.close()
            raise PeerError(self.error)
        return found, answered

    def _death(self) -> str:
        """Say how the process ended, with the last that it wrote."""
        try:
            status = self._process.wait(_LEAVING)
        except subprocess.TimeoutExpired:
            return "its process closed the connection."
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        how = f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
        hint = ", as where memory runs out" if status == -signal.SIGKILL else ""
        return f"its process {how}{hint}{': ' if lines else ''}{lines[-1] if lines else ''}"


def _arrays(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    pairs = {
        side: dict(zip(("values", "lengths"), map(np.asarray, field), strict=True)) for side, field in batch.items()
    }
    return {f"{side}/{name}": each for side, found in pairs.items() for name, each in found.items()}
