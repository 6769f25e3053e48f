"""Bucketed sequence-to-sequence models for TensorFlow, split into parts."""
