"""Many parts and one batch: how parts are wired, rows grouped, outputs carried, and gradients summed."""

from seq2split.split.model import SplitModel
from seq2split.split.sequences import Sequences
from seq2split.split.wiring import Node

__all__ = ["Node", "Sequences", "SplitModel"]
