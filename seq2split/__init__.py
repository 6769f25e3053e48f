"""Bucketed sequence-to-sequence models for TensorFlow, split into parts."""

from seq2split.buckets import Admission, Buckets, OverlongError
from seq2split.carry import Sequences
from seq2split.model import Node, SplitModel
from seq2split.partition import Part, PartGraph, Residuals
from seq2split.tracing import ResidualSpec

__all__ = [
    # the engine
    "Part",
    "PartGraph",
    "ResidualSpec",
    "Residuals",
    # buckets and models of several parts
    "Admission",
    "Buckets",
    "Node",
    "OverlongError",
    "Sequences",
    "SplitModel",
]
