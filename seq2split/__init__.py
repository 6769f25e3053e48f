"""Bucketed sequence-to-sequence models for TensorFlow, split into parts.

The names below are the public ones; ready layers and models are in `seq2split.layers` and `seq2split.models`, and save
policies in `seq2split.engine.policies`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seq2split.buckets import Admission, Buckets, OverlongError
    from seq2split.engine import Part, PartGraph, Residuals, ResidualSpec
    from seq2split.split.model import SplitModel
    from seq2split.split.sequences import Sequences
    from seq2split.split.wiring import Node

__all__ = [
    # the engine
    "Part",
    "PartGraph",
    "ResidualSpec",
    "Residuals",
    # buckets, and models of several parts
    "Admission",
    "Buckets",
    "Node",
    "OverlongError",
    "Sequences",
    "SplitModel",
]

_MODULES = {
    "buckets": ("Admission", "Buckets", "OverlongError"),
    "engine": ("Part", "PartGraph", "ResidualSpec", "Residuals"),
    "split": ("Node", "Sequences", "SplitModel"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: the command line's help must not wait for TensorFlow."""
    for module, names in _MODULES.items():
        if name in names:
            globals()[name] = getattr(import_module(f"seq2split.{module}"), name)
            return globals()[name]
    raise AttributeError(f"module 'seq2split' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
