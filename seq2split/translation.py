"""A translation model with its vocabularies and buckets."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from seq2split.buckets import Admission, Buckets, pad_rows
from seq2split.carry import Sequences
from seq2split.checkpoints import read_checkpoint, variables_of
from seq2split.config import Config
from seq2split.model import Node, SplitModel
from seq2split.models import Decoder, Encoder
from seq2split.partition import Part
from seq2split.run import RunDirectory, cut
from seq2split.search import GreedySearch
from seq2split.text import Vocabulary

ROWS = 128  # sentences searched together


class Translator:
    """Vocabularies, buckets, parts and search of one configuration.

    Args:
        config: The configuration.
        vocabularies: Of `source` and `target`.
        buckets: Of `source` and `target`.
        threads: How many share the work; as of `SplitModel`.

    Attributes:
        encoder: The encoder layer.
        decoder: The decoder layer.
        model: The two as parts of one model.
    """

    def __init__(
        self, config: Config, vocabularies: dict[str, Vocabulary], buckets: dict[str, Buckets], threads: int = 1
    ):
        self.config, self.vocabularies, self.buckets = config, vocabularies, buckets
        self.encoder, self.decoder = _layers(config, vocabularies)
        self.model = SplitModel(
            [
                Node(Part(self.encoder), ["source"], buckets["source"]),
                Node(Part(self.decoder), ["encoder", "target"], buckets["target"]),
            ],
            row_multiple=config.batches.row_multiple,
            threads=threads,
        )
        self.threads = threads
        limit = buckets["target"].boundaries[-1]
        self._search = GreedySearch(self.model, "encoder", self.decoder, eos=vocabularies["target"].eos, limit=limit)

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> Translator:
        """Loads the model of a run directory: the best by its validations, or the latest if there was none yet.

        Args:
            path: The directory.
            threads: How many share the work; as of `SplitModel`.

        Returns:
            The translator, its variables restored.

        Raises:
            ValueError: The directory holds no run, or no checkpoint was written yet, or it is damaged.
        """
        run = RunDirectory(path)
        config = run.config()
        checkpoint = tf.train.latest_checkpoint(run.best) or tf.train.latest_checkpoint(run.latest)
        if checkpoint is None:
            raise ValueError(f"{path} holds no checkpoint yet; one is written every training.checkpoint_every steps.")
        translator = cls(config, run.vocabularies(config), run.buckets(config), threads)
        translator.restore(checkpoint)
        return translator

    def restore(self, checkpoint: str) -> None:
        """Restores the variables of the parts from a checkpoint's path."""
        parts = {"encoder": variables_of(self.encoder), "decoder": variables_of(self.decoder)}
        read_checkpoint(tf.train.Checkpoint(**parts), checkpoint).expect_partial()

    def translate(
        self, lines: Sequence[str], overlong: str = "error", progress: bool = False
    ) -> tuple[list[str], Admission]:
        """Translates sentences.

        Args:
            lines: The sentences.
            overlong: What becomes of those with more pieces than the last source bucket: `error`, `truncate`, or
                `skip`, which leaves their translation empty.
            progress: Whether to show a bar.

        Returns:
            Their translations in order, and how many sentences were truncated and skipped.

        Raises:
            OverlongError: A sentence is too long and `overlong` is `error`.
        """
        rows = self.vocabularies["source"].encode(lines)
        admission = self.buckets["source"].admit([len(row) for row in rows], overlong)
        order = admission.kept[np.argsort(-admission.lengths, kind="stable")]
        pieces: list[np.ndarray] = [np.zeros([0], np.int32)] * len(rows)
        chunks = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
        with (
            ThreadPoolExecutor(self.threads) as pool,
            tqdm(total=len(order), desc="translating", unit="sentence", disable=not progress) as bar,
        ):
            found = pool.map(lambda chunk: self._search(self._padded(rows, chunk)), chunks)
            for chunk, results in zip(chunks, found, strict=True):
                for at, result in zip(chunk, results, strict=True):
                    pieces[at] = result
                bar.update(len(chunk))
        return self.vocabularies["target"].decode(pieces), admission

    def _padded(self, rows: list[np.ndarray], chunk: np.ndarray) -> Sequences:
        kept = [cut(rows[at], self.buckets["source"].boundaries[-1]) for at in chunk]
        lengths = np.array([len(row) for row in kept], np.int32)
        return Sequences(pad_rows(kept, int(lengths.max())), lengths)


def _layers(config: Config, vocabularies: dict[str, Vocabulary]) -> tuple[Encoder, Decoder]:
    settings = config.model
    keras.utils.set_random_seed(config.seed)
    encoder = Encoder(
        vocabularies["source"].size,
        settings.embedding,
        settings.units,
        settings.encoder_layers,
        cell=settings.cell,
        bidirectional=settings.bidirectional,
        dropout=settings.dropout,
        seed=config.seed,
        dtype=config.precision,
        name="encoder",
    )
    decoder = Decoder(
        vocabularies["target"].size,
        settings.units,
        vocabularies["target"].bos,
        settings.embedding,
        settings.units,
        settings.decoder_layers,
        cell=settings.cell,
        attention=settings.attention,
        dropout=settings.dropout,
        tied_embeddings=settings.tied_embeddings,
        label_smoothing=settings.label_smoothing,
        seed=config.seed + 1000,
        dtype=config.precision,
        name="decoder",
    )
    return encoder, decoder
