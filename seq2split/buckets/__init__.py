"""Padded lengths: which to use, which one holds a sequence, and how rows are padded. Needs numpy alone."""

from seq2split.buckets.boundaries import OVERLONG_CHOICES, Admission, Buckets, OverlongError
from seq2split.buckets.merging import merge_small
from seq2split.buckets.rows import batch_rows, pad_rows

__all__ = ["OVERLONG_CHOICES", "Admission", "Buckets", "OverlongError", "batch_rows", "merge_small", "pad_rows"]
