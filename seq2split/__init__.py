"""Bucketed sequence-to-sequence models for TensorFlow, split into parts.

The names below are the public ones. `layers` and `models` hold ready layers and models, `policies` the save policies,
`threads` tells TensorFlow how to share the work on a processor, and `training` and `search` what the trainer and beam
search are made of. TensorFlow is imported when something of these is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seq2split import corpus, layers, models, search, training
    from seq2split.buckets import Admission, Buckets, OverlongError
    from seq2split.corpus import Batches, Corpus
    from seq2split.engine import Part, PartGraph, Residuals, ResidualSpec, WithLosses, policies
    from seq2split.search import BeamSearch, SearchOptions
    from seq2split.split import BatchLosses, LossAndGradients, Node, Sequences, SplitModel, threads
    from seq2split.training import Callback, Interrupted, Trainer, UpdateRule, WarmupSchedule

__all__ = [
    # the engine
    "Part",
    "PartGraph",
    "ResidualSpec",
    "Residuals",
    "WithLosses",
    "policies",
    # buckets, and models of several parts
    "Admission",
    "Buckets",
    "LossAndGradients",
    "BatchLosses",
    "Node",
    "OverlongError",
    "Sequences",
    "SplitModel",
    "threads",
    # ready layers and models
    "layers",
    "models",
    # data, training and search
    "Batches",
    "BeamSearch",
    "Callback",
    "Corpus",
    "Interrupted",
    "SearchOptions",
    "Trainer",
    "UpdateRule",
    "WarmupSchedule",
    "corpus",
    "search",
    "training",
]

_PACKAGES = {
    "buckets": ("Admission", "Buckets", "OverlongError"),
    "corpus": ("Batches", "Corpus"),
    "engine": ("Part", "PartGraph", "ResidualSpec", "Residuals", "WithLosses"),
    "search": ("BeamSearch", "SearchOptions"),
    "split": ("LossAndGradients", "BatchLosses", "Node", "Sequences", "SplitModel"),
    "training": ("Callback", "Interrupted", "Trainer", "UpdateRule", "WarmupSchedule"),
}
_MODULES = {
    "policies": "engine.policies",
    "threads": "split.threads",
    **{name: name for name in ("corpus", "layers", "models", "search", "training")},
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line's help must not wait for TensorFlow."""
    if name in _MODULES:
        return globals().setdefault(name, import_module(f"seq2split.{_MODULES[name]}"))
    for package, names in _PACKAGES.items():
        if name in names:
            return globals().setdefault(name, getattr(import_module(f"seq2split.{package}"), name))
    raise AttributeError(f"module 'seq2split' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
