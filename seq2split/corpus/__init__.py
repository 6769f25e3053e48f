"""Corpora: examples in memory and batches of them; vocabularies and parallel text stand in modules of their names."""

from seq2split.corpus.batches import Batch, Batches
from seq2split.corpus.bucket_choice import choose_buckets
from seq2split.corpus.corpus import Corpus

__all__ = ["Batch", "Batches", "Corpus", "choose_buckets"]
