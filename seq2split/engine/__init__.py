"""One callable at one signature: its forward, its backward, and the residuals between them. Knows of no sequences."""

from seq2split.engine.part import Part, PartGraph, Residuals
from seq2split.engine.residuals import ResidualSpec

__all__ = ["Part", "PartGraph", "ResidualSpec", "Residuals"]
