"""A translation model with its vocabularies and buckets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from seq2split.buckets import Admission, Buckets, pad_rows
from seq2split.config import Config
from seq2split.corpus import Corpus
from seq2split.corpus.admission import Provenance, admit
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.runs.best_model import restore_model
from seq2split.search import BeamSearch, Hypothesis, SearchOptions
from seq2split.search.options import check_n_best
from seq2split.split import Node, Sequences, SplitModel
from seq2split.split.threads import Workers
from seq2split.translation.architectures import make_layers
from seq2split.translation.experiment_files import ExperimentFiles

ROWS = 128  # sentences searched together
_NOTHING = Hypothesis(np.zeros(0, np.int32), 0.0, 0.0)  # the translation of an empty sentence
_GIVEN = Provenance(
    "sentences to translate",
    'To translate nevertheless give overlong="truncate" or overlong="skip"',
    lambda side, row: f"number {row + 1} of {side}",
)


def part_name(side: str) -> str:
    """Return the name of the part that encodes a source side: `encoder` for `source`, `encoder2` for `source2`."""
    return side.replace("source", "encoder")


class Translation(NamedTuple):
    """A translation and what translations of the same sentence are ranked by; see `search`."""

    text: str
    score: float


class Translator:
    """Vocabularies, buckets, parts and search of one configuration.

    Args:
        config: The configuration.
        vocabularies: The vocabulary of each side.
        buckets: The buckets of each side.
        threads: The number of threads that share the work; see `SplitModel`.

    Attributes:
        encoders: The encoder of each source side.
        decoder: The decoder, which reads all of them.
        model: The encoders and the decoder as parts of one model.
        search_options: How the configuration says to search.
    """

    def __init__(
        self, config: Config, vocabularies: dict[str, Vocabulary], buckets: dict[str, Buckets], threads: int = 1
    ):
        self.config, self.vocabularies, self.buckets = config, vocabularies, buckets
        self.encoders, self.decoder = make_layers(config, vocabularies, buckets)
        nodes = [Node(encoder, side, buckets[side], name=part_name(side)) for side, encoder in self.encoders.items()]
        self.model = SplitModel(
            [*nodes, Node(self.decoder, [*nodes, "target"], buckets["target"], loss=True, name="decoder")],
            row_multiple=config.batches.row_multiple,
            group_overhead=config.batches.group_overhead,
            threads=threads,
        )
        self.threads, self._workers = threads, Workers(threads)
        self.search_options = SearchOptions(**asdict(config.search))
        names, longest = [node.name for node in nodes], buckets["target"].boundaries[-1]
        self._search = BeamSearch(
            self.model, names, self.decoder, eos=vocabularies["target"].eos, max_length=longest, identity=self._text
        )

    @property
    def parts(self) -> dict[str, list]:
        """All variables of each part, those that are not trained among them."""
        return {name: part.part.variables for name, part in self.model.parts.items()}

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> Translator:
        """Load the best model of a run directory; see `runs.best_model.restore_model`.

        Args:
            path: The directory.
            threads: The number of threads that share the work; see `SplitModel`.

        Returns:
            The translator, its variables restored.

        Raises:
            ValueError: The directory holds no run, or no checkpoint was written yet, or it is damaged or lost.
        """
        files = ExperimentFiles(path)
        config = files.config()
        if not files.run.has_checkpoint():
            raise ValueError(f"{path} holds no checkpoint yet; one is written every training.checkpoint_every steps.")
        if change := files.architecture_change(config):
            warnings.warn(change, stacklevel=2)
        translator = cls(config, files.vocabularies(config), files.buckets(config), threads)
        if not config.model.is_built_in:  # whose layers make all variables when they are made
            translator.model.create_variables()
        restore_model(files.run, translator.parts)
        return translator

    def translate(
        self,
        *sources: Sequence[str],
        overlong: str = "error",
        progress: bool = False,
        search: SearchOptions | None = None,
        origin: Provenance = _GIVEN,
    ) -> tuple[list[str], Admission]:
        """Translate sentences.

        Args:
            *sources: For each source side its sentences; row by row they belong together.
            overlong: What becomes of those with more pieces than the last source bucket: `error`, `truncate`, or
                `skip`, which leaves their translation empty.
            progress: Whether to show a bar.
            search: How to search; by default as the configuration says.
            origin: What errors say about where the sentences are from.

        Returns:
            Their translations in order, and how many sentences were truncated and skipped.

        Raises:
            OverlongError: A sentence is too long and `overlong` is `error`.
            ValueError: There are not as many sources as the model has, or they differ in length; or see
                `BeamSearch`.
        """
        found, admission = self.n_best(1, *sources, overlong=overlong, progress=progress, search=search, origin=origin)
        return [translations[0].text if translations else "" for translations in found], admission

    def n_best(
        self,
        count: int,
        *sources: Sequence[str],
        overlong: str = "error",
        progress: bool = False,
        search: SearchOptions | None = None,
        origin: Provenance = _GIVEN,
    ) -> tuple[list[list[Translation]], Admission]:
        """Translate sentences in several ways.

        Args:
            count: The most translations of a sentence, at most the beam. No two are the same text; they are fewer where
                the search finds no more.
            *sources: See `translate`.
            overlong: See `translate`; a sentence that is skipped has no translations.
            progress: See `translate`.
            search: As in `translate`.
            origin: See `translate`.

        Returns:
            The translations of each sentence with their scores, the best first; and how many sentences were truncated
            and skipped. That of an empty sentence is empty, with a score of zero, whatever the search says of lengths.

        Raises:
            OverlongError: See `translate`.
            ValueError: See `translate`.
        """
        search = search or self.search_options
        check_n_best(count, search.beam)
        corpus = self._encode(sources)
        stay, admission = admit(corpus, self.buckets, overlong, origin)
        empty = _are_empty(corpus, sources)
        results: list[list[Hypothesis]] = [[_NOTHING] if each else [] for each in empty]
        order = np.argsort(-admission.lengths, kind="stable")
        order = order[~empty[admission.kept[order]]]
        chunks = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
        with tqdm(total=len(order), desc="translating", unit="sentence", disable=not progress) as bar:

            def translate(chunk: np.ndarray) -> list[list[Hypothesis]]:
                found = self._search(_padded(stay, chunk), search, count)
                bar.update(len(chunk))
                return found

            found = self._workers.each(translate, chunks)
        for chunk, each in zip(chunks, found, strict=True):
            for at, hypotheses in zip(admission.kept[chunk], each, strict=True):
                results[at] = hypotheses
        return [self._texts(hypotheses) for hypotheses in results], admission

    def _text(self, pieces: np.ndarray) -> str:
        return self.vocabularies["target"].decode([pieces])[0]

    def _texts(self, hypotheses: list[Hypothesis]) -> list[Translation]:
        texts = self.vocabularies["target"].decode([each.pieces for each in hypotheses])
        return [Translation(text, each.score) for text, each in zip(texts, hypotheses, strict=True)]

    def _encode(self, sources: Sequence[Sequence[str]]) -> Corpus:
        counts = [len(lines) for lines in sources]
        if len(sources) != len(self.encoders) or len(set(counts)) > 1:
            raise ValueError(
                f"the model translates from {' and '.join(self.encoders)}, as many sentences of each; it was given "
                f"{len(sources)} lists, of {' and '.join(map(str, counts))} sentences."
            )
        pairs = zip(self.encoders, sources, strict=True)
        return Corpus({side: self.vocabularies[side].encode(lines) for side, lines in pairs})


def _are_empty(corpus: Corpus, sources: Sequence[Sequence[str]]) -> np.ndarray:
    """Return which sentences have nothing to translate on any side, `[rows]`: no text, or no pieces but their end."""
    blank = [[not line.strip() for line in lines] for lines in sources]
    pairs = zip(blank, corpus.lengths.values(), strict=True)
    return np.all([np.array(each, bool) | (lengths == 1) for each, lengths in pairs], axis=0)


def _padded(corpus: Corpus, chunk: np.ndarray) -> dict[str, Sequences]:
    """Rows of all sides, each padded to its longest."""
    fields = {}
    for side, rows in corpus.fields.items():
        lengths = np.array([len(rows[at]) for at in chunk], np.int32)
        fields[side] = Sequences(pad_rows([rows[at] for at in chunk], int(lengths.max())), lengths)
    return fields
