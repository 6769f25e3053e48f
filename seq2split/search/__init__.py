"""Searches for the likeliest outputs of a model."""
