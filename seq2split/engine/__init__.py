"""One callable at one signature: its forward, its backward, and the residuals between them. Knows of no sequences."""

from seq2split.engine import policies
from seq2split.engine.added_losses import WithLosses
from seq2split.engine.part import Part
from seq2split.engine.part_graph import PartGraph
from seq2split.engine.residuals import Residuals, ResidualSpec
from seq2split.engine.results import BackwardResult, ForwardResult, LossResult

__all__ = [
    "BackwardResult",
    "ForwardResult",
    "LossResult",
    "Part",
    "PartGraph",
    "ResidualSpec",
    "Residuals",
    "WithLosses",
    "policies",
]
