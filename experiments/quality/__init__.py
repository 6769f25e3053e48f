"""The parts of translation.py, which trains every model of the results table."""
