"""Searches for the likeliest outputs of a model."""

from seq2split.search.beam import BeamSearch

__all__ = ["BeamSearch"]
