"""The validation corpus: its loss, its translations and their BLEU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seq2split.config.settings import Config
from seq2split.corpus.batches import BatchPlan, ParallelCorpus, stream
from seq2split.corpus.vocabulary import read_parallel
from seq2split.runs.directory import admit_corpus
from seq2split.search import SearchOptions
from seq2split.translation.evaluation import bleu_score
from seq2split.translation.translator import Translator

# Greedy, to be fast; and whatever [search] says, which may change in a run, so that its validations can be compared.
_SEARCH = SearchOptions(beam=1)


@dataclass(frozen=True)
class Result:
    """A validation.

    Attributes:
        loss: The negative log-likelihood of a target piece in nats.
        bleu: SacreBLEU's BLEU of greedy translations.
    """

    loss: float
    bleu: float

    @property
    def perplexity(self) -> float:
        """The exponential of the loss, up to what tells that the model is lost."""
        return math.exp(min(50.0, self.loss))

    def __str__(self) -> str:
        return f"loss {self.loss:.3f}, perplexity {self.perplexity:.2f}, BLEU {self.bleu:.2f}"


class Validation:
    """Validates a translator.

    Args:
        config: The configuration.
        translator: The translator.

    Raises:
        OverlongError: A sentence is longer than the last bucket, and the configuration says that this is an error.
    """

    def __init__(self, config: Config, translator: Translator):
        self._translator, self._overlong = translator, config.data.overlong
        self._lines = read_parallel(config.corpus("valid"))
        pieces = {side: translator.vocabularies[side].encode(lines) for side, lines in self._lines.items()}
        self._corpus, self.told = admit_corpus(
            ParallelCorpus(pieces), translator.buckets, self._overlong, "validation corpus"
        )
        self._plan = BatchPlan(self._corpus, translator.buckets, tokens=config.batches.tokens)

    def run(self) -> Result:
        """Translates and scores the corpus."""
        translations, _ = self._translator.translate(*self._sources(), overlong=self._overlong, search=_SEARCH)
        return Result(self._loss(), bleu_score(translations, self._lines["target"]))

    def samples(self, translator: Translator, count: int) -> str:
        """The first sentences of the corpus with a translator's translations, as text."""
        sources = [lines[:count] for lines in self._sources()]
        translations, _ = translator.translate(*sources, overlong=self._overlong, search=_SEARCH)
        *names, _ = self._lines
        shown = [*zip(names, sources, strict=True), ("reference", self._lines["target"]), ("translation", translations)]
        return "\n\n".join(
            "\n".join(f"  {name:<11}  {lines[at]}" for name, lines in shown) for at in range(len(translations))
        )

    def _sources(self) -> list[list[str]]:
        return [lines for side, lines in self._lines.items() if side != "target"]

    def _loss(self) -> float:
        total, targets = 0.0, 0
        for batch in stream(self._corpus, self._plan):
            _, nll = self._translator.model.losses(batch.fields)
            total, targets = total + float(nll) * batch.targets, targets + batch.targets
            if batch.index + 1 == batch.epoch_batches:
                return total / targets
        raise AssertionError("a stream has no end")
