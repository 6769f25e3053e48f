"""Which source pieces the decoder read for each target piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seq2split.corpus import Corpus
from seq2split.corpus.admission import admit
from seq2split.split.sequences import Sequences
from seq2split.translation.translator import Translator


@dataclass(frozen=True)
class Alignment:
    """The attention weights of one sentence.

    Attributes:
        sources: For each source side its pieces, as text; the last ends the sentence.
        target: The pieces of the target, likewise.
        weights: For each source side the weights with which each target piece was predicted, `[target, source]`; each
            row adds up to one.
    """

    sources: list[list[str]]
    target: list[str]
    weights: list[np.ndarray]


def align(translator: Translator, sources: Sequence[str], target: str | None = None) -> Alignment:
    """The attention weights over a sentence.

    Args:
        translator: The model.
        sources: The sentence, in the language of each source side.
        target: What it is translated to; by default as the model translates it. It is read in the pieces that the
            vocabulary cuts it into, which may be others than the model chose.

    Returns:
        The alignment.

    Raises:
        OverlongError: The sentence, or the target that was given, is longer than the last bucket of its side.
        ValueError: There are not as many sentences as the model has source sides.
    """
    overlong = "error"
    if target is None or len(sources) != len(translator.encoders):  # which the translation complains about
        (target,), _ = translator.translate(*([source] for source in sources))
        overlong = "truncate"  # what was cut at the limit of a search may be cut into more pieces
    vocabularies = translator.vocabularies
    batch = {side: vocabularies[side].encode([line]) for side, line in zip(translator.encoders, sources, strict=True)}
    rows, labels = [row for (row,) in batch.values()], _labels(translator, target, overlong)
    encoded = [translator.model.infer(batch, encoder.name) for encoder in translator.encoders.values()]
    weights = translator.decoder.align(*encoded, Sequences(labels[None], np.array([len(labels)], np.int32)))
    return Alignment(
        [vocabularies[side].pieces(row) for side, row in zip(batch, rows, strict=True)],
        vocabularies["target"].pieces(labels),
        [each.numpy()[0, :, : len(row)] for each, row in zip(weights, rows, strict=True)],
    )


def _labels(translator: Translator, target: str, overlong: str) -> np.ndarray:
    """The pieces of a target, `[pieces]`."""
    corpus = Corpus({"target": translator.vocabularies["target"].encode([target])})
    (labels,) = admit(corpus, translator.buckets, overlong, "sentence")[0].fields["target"]
    return labels
