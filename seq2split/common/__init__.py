"""Helpers that every package may use, and that use no package: tables, choices, files, text."""
