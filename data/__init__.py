"""The embedded default corpora, and the scripts that make or fetch corpora."""
