"""Searches for the likeliest outputs of a model."""

from seq2split.search.beam import BeamSearch
from seq2split.search.hypotheses import Hypothesis
from seq2split.search.options import SearchOptions

__all__ = ["BeamSearch", "Hypothesis", "SearchOptions"]
