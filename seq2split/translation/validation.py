"""The validation corpus: its loss, its translations and their BLEU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seq2split.common.text import one_line
from seq2split.config import Config
from seq2split.corpus import Batches, Corpus
from seq2split.corpus.admission import admit_corpus
from seq2split.models import require
from seq2split.runs.digests import digest_of
from seq2split.search import SearchOptions
from seq2split.split import SplitModel
from seq2split.training.validation import LossValidation
from seq2split.translation.evaluation import bleu_score
from seq2split.translation.inputs import naming_keys, provenance
from seq2split.translation.translator import Translator

# Greedy, to be fast; and whatever [search] says, which may change in a run, so that its validations can be compared.
_SEARCH = SearchOptions(beam=1)
_NEEDED = ("bos", "start", "step")  # of a decoder, to translate


class Validation:
    """Validates a translator: a function of its model that returns figures.

    Args:
        config: The configuration.
        translator: The translator.
        lines: The lines of each side of the corpus, as many of each.

    Attributes:
        can_translate: True if the decoder has what a search needs of it.
        note: What to tell the user about overlong sentences; `None` if there are none.
        measures_loss: True, since its loss is that of the training.

    Raises:
        OverlongError: A sentence is longer than the last bucket, and the configuration says that this is an error.
        ValueError: BLEU is to choose the best model, but the decoder can't translate.
    """

    def __init__(self, config: Config, translator: Translator, lines: Mapping[str, Sequence[str]]):
        self._translator, self._overlong = translator, config.data.overlong
        self.can_translate = all(hasattr(translator.decoder, method) for method in _NEEDED)
        for method in _NEEDED if config.training.criterion == "bleu" else ():
            require(translator.decoder, method, 'training.criterion = "bleu"')
        self._lines = lines
        corpus = Corpus({side: translator.vocabularies[side].encode(each) for side, each in lines.items()})
        corpus, self.note = admit_corpus(corpus, translator.buckets, self._overlong, provenance(config, "valid"))
        with naming_keys():
            self._loss = LossValidation(Batches(corpus, translator.model, tokens=config.batches.tokens))
        self._corpus, self.measures_loss = corpus, True

    def __call__(self, model: SplitModel) -> dict[str, float]:
        """Return the loss, the perplexity if the decoder tells `nll`, and BLEU of greedy translations if it can
        translate.

        Losses are those of a target piece in nats.
        """
        found = self._loss(model)
        figures = {name: found[name] for name in ("loss", "perplexity") if name in found}
        if not self.can_translate:
            return figures
        translations, _ = self._translator.translate(*self._sources(), overlong=self._overlong, search=_SEARCH)
        return figures | {"bleu": bleu_score(translations, self._lines["target"])}

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells the corpus from others, its text as well as its pieces."""
        text = "\n".join("\t".join(row) for row in zip(*self._lines.values(), strict=True))
        return {"digest": self._corpus.digest(), "text": digest_of(text.encode()), "rows": len(self._corpus)}

    def samples(self, translator: Translator, count: int) -> str:
        """Return the first sentences of the corpus with a translator's translations, as text."""
        sources = [lines[:count] for lines in self._sources()]
        translations, _ = translator.translate(*sources, overlong=self._overlong, search=_SEARCH)
        *names, _ = self._lines
        shown = [*zip(names, sources, strict=True), ("reference", self._lines["target"]), ("translation", translations)]
        return "\n\n".join(
            "\n".join(f"  {name:<11}  {one_line(lines[at])}" for name, lines in shown)
            for at in range(len(translations))
        )

    def _sources(self) -> list[Sequence[str]]:
        return [lines for side, lines in self._lines.items() if side != "target"]
