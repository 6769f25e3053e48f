"""Many parts and one batch: how parts are wired, rows grouped, outputs carried, and gradients summed."""

from seq2split.split.model import SplitModel
from seq2split.split.node import Node
from seq2split.split.results import BatchLosses, LossAndGradients
from seq2split.split.sequences import Sequences

__all__ = ["LossAndGradients", "BatchLosses", "Node", "Sequences", "SplitModel"]
