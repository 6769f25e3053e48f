"""Bucketed sequence-to-sequence models for TensorFlow, split into parts."""

from seq2split.partition import Part, PartGraph, Residuals

__all__ = ["Part", "PartGraph", "Residuals"]
