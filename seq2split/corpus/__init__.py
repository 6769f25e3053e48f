"""Corpora: vocabularies, parallel text, and batches of it."""
