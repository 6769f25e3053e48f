"""A translation model with its vocabularies and buckets."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from seq2split.batching import ParallelCorpus
from seq2split.buckets import Admission, Buckets, pad_rows
from seq2split.carry import Sequences
from seq2split.checkpoints import read_checkpoint, variables_of
from seq2split.config import Config
from seq2split.model import Node, SplitModel
from seq2split.models import Decoder, Encoder
from seq2split.partition import Part
from seq2split.run import RunDirectory, admit
from seq2split.search import GreedySearch
from seq2split.text import Vocabulary

ROWS = 128  # sentences searched together


class Translator:
    """Vocabularies, buckets, parts and search of one configuration.

    Args:
        config: The configuration.
        vocabularies: Of each side.
        buckets: Of each side.
        threads: How many share the work; as of `SplitModel`.

    Attributes:
        encoders: For each source side its encoder layer.
        decoder: The decoder layer, which attends over all of them.
        model: The layers as parts of one model.
    """

    def __init__(
        self, config: Config, vocabularies: dict[str, Vocabulary], buckets: dict[str, Buckets], threads: int = 1
    ):
        self.config, self.vocabularies, self.buckets = config, vocabularies, buckets
        self.encoders, self.decoder = _layers(config, vocabularies)
        names = [encoder.name for encoder in self.encoders.values()]
        self.model = SplitModel(
            [
                *(Node(Part(encoder), [side], buckets[side]) for side, encoder in self.encoders.items()),
                Node(Part(self.decoder), [*names, "target"], buckets["target"]),
            ],
            row_multiple=config.batches.row_multiple,
            threads=threads,
        )
        self.threads = threads
        limit = buckets["target"].boundaries[-1]
        self._search = GreedySearch(self.model, names, self.decoder, eos=vocabularies["target"].eos, limit=limit)

    @property
    def layers(self) -> dict[str, keras.Layer]:
        """The layers of the parts, by name."""
        return {layer.name: layer for layer in (*self.encoders.values(), self.decoder)}

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
        parts = {name: variables_of(layer) for name, layer in self.layers.items()}
        read_checkpoint(tf.train.Checkpoint(**parts), checkpoint).expect_partial()

    def translate(
        self, *sources: Sequence[str], overlong: str = "error", progress: bool = False
    ) -> tuple[list[str], Admission]:
        """Translates sentences.

        Args:
            *sources: For each source side its sentences; row by row they belong together.
            overlong: What becomes of those with more pieces than the last source bucket: `error`, `truncate`, or
                `skip`, which leaves their translation empty.
            progress: Whether to show a bar.

        Returns:
            Their translations in order, and how many sentences were truncated and skipped.

        Raises:
            OverlongError: A sentence is too long and `overlong` is `error`.
            ValueError: There are not as many sources as the model has, or they differ in length.
        """
        corpus = self._encode(sources)
        stay, admission = admit(corpus, self.buckets, overlong, "sentences to translate")
        order = np.argsort(-admission.lengths, kind="stable")
        pieces: list[np.ndarray] = [np.zeros([0], np.int32)] * len(corpus)
        chunks = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
        with (
            ThreadPoolExecutor(self.threads) as pool,
            tqdm(total=len(order), desc="translating", unit="sentence", disable=not progress) as bar,
        ):
            found = pool.map(lambda chunk: self._search(_padded(stay, chunk)), chunks)
            for chunk, results in zip(chunks, found, strict=True):
                for at, result in zip(admission.kept[chunk], results, strict=True):
                    pieces[at] = result
                bar.update(len(chunk))
        return self.vocabularies["target"].decode(pieces), admission

    def _encode(self, sources: Sequence[Sequence[str]]) -> ParallelCorpus:
        counts = [len(lines) for lines in sources]
        if len(sources) != len(self.encoders) or len(set(counts)) > 1:
            raise ValueError(
                f"the model translates from {' and '.join(self.encoders)}, as many sentences of each; it was given "
                f"{len(sources)} lists, of {' and '.join(map(str, counts))} sentences."
            )
        pairs = zip(self.encoders, sources, strict=True)
        return ParallelCorpus({side: self.vocabularies[side].encode(lines) for side, lines in pairs})


def _padded(corpus: ParallelCorpus, chunk: np.ndarray) -> dict[str, Sequences]:
    """Rows of all sides, each padded to its longest."""
    fields = {}
    for side, rows in corpus.sides.items():
        lengths = np.array([len(rows[at]) for at in chunk], np.int32)
        fields[side] = Sequences(pad_rows([rows[at] for at in chunk], int(lengths.max())), lengths)
    return fields


def _layers(config: Config, vocabularies: dict[str, Vocabulary]) -> tuple[dict[str, Encoder], Decoder]:
    """The encoder of each source side, and the decoder."""
    settings, sources = config.model, config.sides[:-1]
    keras.utils.set_random_seed(config.seed)
    encoders = {
        side: Encoder(
            vocabularies[side].size,
            settings.embedding,
            settings.units,
            settings.encoder_layers,
            cell=settings.cell,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout,
            seed=config.seed + 2000 * at,
            dtype=config.precision,
            name=side.replace("source", "encoder"),
        )
        for at, side in enumerate(sources)
    }
    decoder = Decoder(
        vocabularies["target"].size,
        [settings.units] * len(sources),
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
    return encoders, decoder
