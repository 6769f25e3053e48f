"""The attention weights of a translation: which source pieces the decoder attended to for each target piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from seq2split.corpus import Corpus
from seq2split.corpus.admission import Provenance, admit
from seq2split.models.protocol import AttentiveDecoder, Nest, require
from seq2split.translation.translator import Translator, part_name


@dataclass(frozen=True)
class Alignment:
    """The attention weights of one sentence.

    Attributes:
        sources: The pieces of each source side, as text; the last ends the sentence.
        target: The pieces of the target, likewise.
        weights: The weights over each source side with which each target piece was predicted, `[target, source]`; each
            row adds up to one.
    """

    sources: list[list[str]]
    target: list[str]
    weights: list[np.ndarray]


_ORIGIN = Provenance("sentence", "Give a shorter one", lambda side, _: f"the {side} that was given")


def align(translator: Translator, sources: Sequence[str], target: str | None = None) -> Alignment:
    """Return the attention weights of one sentence.

    Args:
        translator: The model.
        sources: The sentence, in the language of each source side.
        target: Its translation; by default the model's. It is read in the pieces that the vocabulary cuts it into,
            which may be others than the model chose.

    Returns:
        The alignment.

    Raises:
        OverlongError: The sentence, or the target that was given, is longer than the last bucket of its side.
        ValueError: There are not as many sentences as the model has source sides, or the decoder has no
            `step_with_weights`.
    """
    require(translator.decoder, "step_with_weights", "a picture of attention")
    overlong = "error"
    if target is None or len(sources) != len(translator.encoders):  # too few or many are the translation's error
        (target,), _ = translator.translate(*([source] for source in sources), origin=_ORIGIN)
        overlong = "truncate"  # what was cut at the limit of a search may be cut into more pieces
    vocabularies = translator.vocabularies
    batch = {side: vocabularies[side].encode([line]) for side, line in zip(translator.encoders, sources, strict=True)}
    rows, labels = [row for (row,) in batch.values()], _labels(translator, target, overlong)
    encoded = [translator.model.infer(batch, part_name(side)) for side in translator.encoders]
    weights = forced_weights(translator.decoder, encoded, labels[None])
    return Alignment(
        [vocabularies[side].pieces(row) for side, row in zip(batch, rows, strict=True)],
        vocabularies["target"].pieces(labels),
        [each.numpy()[0, :, : len(row)] for each, row in zip(weights, rows, strict=True)],
    )


def forced_weights(decoder: AttentiveDecoder, encoded: Sequence[Nest], labels: np.ndarray) -> list[tf.Tensor]:
    """Return the attention weights with which a decoder predicts given targets.

    Args:
        decoder: The decoder.
        encoded: What each encoder returned, for `[rows]` sentences.
        labels: The pieces of the targets, `[rows, target time]`, integers.

    Returns:
        The weights over the positions of each encoder, `[rows, target time, source time]`; they add up to one over the
        real ones.
    """
    context, state = decoder.start(*encoded)
    pieces, steps = tf.constant(decoder.bos, tf.int32, [len(labels)]), []
    for following in labels.T.astype(np.int32):
        _, state, weights = decoder.step_with_weights(context, state, pieces)
        steps.append(weights)
        pieces = tf.constant(following)
    return [tf.stack(each, axis=1) for each in zip(*steps, strict=True)]


def _labels(translator: Translator, target: str, overlong: str) -> np.ndarray:
    """Return the pieces of a target, `[pieces]`."""
    corpus = Corpus({"target": translator.vocabularies["target"].encode([target])})
    (labels,) = admit(corpus, translator.buckets, overlong, _ORIGIN)[0].fields["target"]
    return labels
