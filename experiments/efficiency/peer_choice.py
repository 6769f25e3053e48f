"""Which peers can be measured here, and how they are started. Nothing here imports one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

from efficiency.peer_process import PeerProcess
from efficiency.plan import PEERS, Plan
from efficiency.setting import Setting
from efficiency.subjects import LEARNING_RATE
from efficiency.weights import weights_of
from efficiency.workloads import BOS

_COMPILERS = ("g++", "clang++", "c++")


class Peer(NamedTuple):
    """One way to run a peer.

    Attributes:
        factory: What makes it, as `module:name`.
        modules: What must be installed.
        options: What it is made with beside what all are.
        environment: Of its process.
        precisions: Those that it has.
    """

    factory: str
    modules: tuple[str, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 never changed
    environment: dict[str, str] = {}  # noqa: RUF012 likewise
    precisions: tuple[str, ...] = ("mixed_bfloat16", "float32")


_TORCH = Peer("efficiency.peers:TorchSubject", ("torch",))
# How threads of OpenMP wait for each other: asleep; or in a loop, the default, which costs many times the step on
# a machine that runs anything else.
_ASLEEP, _IN_A_LOOP = ({"OMP_WAIT_POLICY": "passive"}, {})
# Several ways of one name are all measured, and the best of them counts.
WAYS: dict[str, dict[str, Peer]] = {
    "torch": {
        "torch-passive": _TORCH._replace(environment=_ASLEEP),
        "torch-active": _TORCH._replace(environment=_IN_A_LOOP),
    },
    "torch-compile": {
        f"torch-compile-{shapes}": _TORCH._replace(options={"shapes": shapes}, environment=_ASLEEP)
        for shapes in ("static", "dynamic")
    },
    "jax": {"jax": Peer("efficiency.peers:JaxSubject", ("jax", "optax"), precisions=("float32",))},
}


def left_out(plan: Plan) -> dict[str, str]:
    """The peers of a plan that can't be measured, each with the reason."""
    reasons = {name: _reason(name, plan) for name in plan.subjects if name in PEERS}
    return {name: reason for name, reason in reasons.items() if reason}


def ways(names: list[str], precision: str) -> Iterator[tuple[str, Peer]]:
    """All ways of some peers that there are in a precision."""
    for name in names:
        yield from ((way, peer) for way, peer in WAYS[name].items() if precision in peer.precisions)


def start(peer: Peer, setting: Setting) -> PeerProcess:
    """Make a peer, in a process of its own.

    Raises:
        PeerError: It can't be made.
    """
    given: dict[str, Any] = {"bos": BOS, "learning_rate": LEARNING_RATE, **peer.options}
    given["heads"] = setting.sizes.heads if setting.sizes.model == "transformer" else None
    if "torch" in peer.modules:
        given |= {"precision": setting.precision, "threads": setting.threads}
    return PeerProcess(peer.factory, weights_of(*setting.layers()), given, peer.environment)


def _reason(name: str, plan: Plan) -> str | None:
    for peer in WAYS[name].values():
        missing = next((module for module in peer.modules if find_spec(module) is None), None)
        if missing:
            return f"No module named {missing!r}"
        if plan.model == "gru":
            return "it is not written for the GRU"
        if not set(plan.precisions) & set(peer.precisions):
            return f"it is measured in {' and '.join(peer.precisions)} alone"
    if name == "torch-compile" and not _compiler():
        return f"no C++ compiler is found: install one of {', '.join(_COMPILERS)}, or set CXX"
    return None


def _compiler() -> str | None:
    """The compiler that `torch.compile` would use."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), *_COMPILERS)))), None)
