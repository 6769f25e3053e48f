"""A translation model with its vocabularies and buckets."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from seq2split.buckets import Admission, Buckets, pad_rows
from seq2split.config.settings import Config
from seq2split.corpus.batches import ParallelCorpus
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.engine.part import Part
from seq2split.runs.checkpoints import read_checkpoint, variables_of
from seq2split.runs.directory import RunDirectory, admit
from seq2split.search import BeamSearch, Hypothesis, SearchOptions
from seq2split.search.options import check_n_best
from seq2split.split.model import SplitModel
from seq2split.split.sequences import Sequences
from seq2split.split.wiring import Node
from seq2split.translation.architectures import make_layers

ROWS = 128  # sentences searched together


class Translation(NamedTuple):
    """A translation and what translations of the same sentence are ranked by; see `search`."""

    text: str
    score: float


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
        search_options: How the configuration says to search.
    """

    def __init__(
        self, config: Config, vocabularies: dict[str, Vocabulary], buckets: dict[str, Buckets], threads: int = 1
    ):
        self.config, self.vocabularies, self.buckets = config, vocabularies, buckets
        self.encoders, self.decoder = make_layers(config, vocabularies, buckets)
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
        self.search_options = SearchOptions(**asdict(config.search))
        eos, longest = vocabularies["target"].eos, buckets["target"].boundaries[-1]
        self._search = BeamSearch(self.model, names, self.decoder, eos=eos, max_length=longest)

    @property
    def layers(self) -> dict[str, keras.Layer]:
        """The layers of the parts, by name."""
        return {layer.name: layer for layer in (*self.encoders.values(), self.decoder)}

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> Translator:
        """Loads the model of a run directory.

        That is the average of validated models if it is better than each of them; or else the best of them; or the
        latest, if none was validated yet.

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
        found = map(tf.train.latest_checkpoint, (run.average, run.best, run.latest))
        checkpoint = next(filter(None, found), None)
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
        self,
        *sources: Sequence[str],
        overlong: str = "error",
        progress: bool = False,
        search: SearchOptions | None = None,
    ) -> tuple[list[str], Admission]:
        """Translates sentences.

        Args:
            *sources: For each source side its sentences; row by row they belong together.
            overlong: What becomes of those with more pieces than the last source bucket: `error`, `truncate`, or
                `skip`, which leaves their translation empty.
            progress: Whether to show a bar.
            search: How to search; by default as the configuration says.

        Returns:
            Their translations in order, and how many sentences were truncated and skipped.

        Raises:
            OverlongError: A sentence is too long and `overlong` is `error`.
            ValueError: There are not as many sources as the model has, or they differ in length; or as of
                `BeamSearch`.
        """
        found, admission = self.n_best(1, *sources, overlong=overlong, progress=progress, search=search)
        return [translations[0].text if translations else "" for translations in found], admission

    def n_best(
        self,
        count: int,
        *sources: Sequence[str],
        overlong: str = "error",
        progress: bool = False,
        search: SearchOptions | None = None,
    ) -> tuple[list[list[Translation]], Admission]:
        """Translates sentences in several ways.

        Args:
            count: The most translations of a sentence, at most the beam. They differ in their pieces; that may be the
                same text cut in two ways.
            *sources: As of `translate`.
            overlong: As of `translate`; a sentence that is skipped has no translations.
            progress: As of `translate`.
            search: As in `translate`.

        Returns:
            The translations of each sentence with their scores, the best first; and as of `translate`.

        Raises:
            OverlongError: As of `translate`.
            ValueError: As of `translate`.
        """
        search = search or self.search_options
        check_n_best(count, search.beam)
        corpus = self._encode(sources)
        stay, admission = admit(corpus, self.buckets, overlong, "sentences to translate")
        order = np.argsort(-admission.lengths, kind="stable")
        results: list[list[Hypothesis]] = [[] for _ in range(len(corpus))]
        chunks = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
        with (
            ThreadPoolExecutor(self.threads) as pool,
            tqdm(total=len(order), desc="translating", unit="sentence", disable=not progress) as bar,
        ):
            found = pool.map(lambda chunk: self._search(_padded(stay, chunk), search, count), chunks)
            for chunk, each in zip(chunks, found, strict=True):
                for at, hypotheses in zip(admission.kept[chunk], each, strict=True):
                    results[at] = hypotheses
                bar.update(len(chunk))
        return [self._texts(hypotheses) for hypotheses in results], admission

    def _texts(self, hypotheses: list[Hypothesis]) -> list[Translation]:
        texts = self.vocabularies["target"].decode([each.pieces for each in hypotheses])
        return [Translation(text, each.score) for text, each in zip(texts, hypotheses, strict=True)]

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
