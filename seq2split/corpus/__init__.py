"""Corpora: vocabularies, parallel text, examples in memory, and batches of them."""

from seq2split.corpus.batches import Batch, Batches
from seq2split.corpus.corpus import Corpus
from seq2split.corpus.vocabulary import Vocabulary

__all__ = ["Batch", "Batches", "Corpus", "Vocabulary"]
