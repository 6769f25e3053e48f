"""The layers of a translation model, as a configuration describes them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras

from seq2split.buckets import Buckets
from seq2split.config.settings import Config, ModelConfig
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.models import DropoutRates, RecurrentDecoder, RecurrentEncoder, TransformerDecoder, TransformerEncoder


def make_layers(
    config: Config, vocabularies: Mapping[str, Vocabulary], buckets: Mapping[str, Buckets]
) -> tuple[dict[str, keras.Layer], keras.Layer]:
    """Makes the layers of a model with new variables, whose initial values follow from the seed.

    Args:
        config: The configuration.
        vocabularies: Of each side.
        buckets: Of each side.

    Returns:
        The encoder of each source side, and the decoder, which attends to all of them.
    """
    with _seeded(config.seed):
        return _make_layers(config, vocabularies, buckets)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Lets Python's random numbers, from which Keras draws the seeds of initial values, begin at a seed meanwhile."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _make_layers(
    config: Config, vocabularies: Mapping[str, Vocabulary], buckets: Mapping[str, Buckets]
) -> tuple[dict[str, keras.Layer], keras.Layer]:
    make_encoder, make_decoder = _MAKERS[config.model.architecture]
    encoders: dict[str, keras.Layer] = {}
    for place, side in enumerate(config.sides[:-1]):
        options = {
            "name": side.replace("source", "encoder"),
            "seed": config.seed + 2000 * place,
            "embeddings": _shared(config.model, encoders),
            "dtype": config.precision,
        }
        encoders[side] = make_encoder(config.model, vocabularies[side], buckets[side], **options)
    options = {
        "name": "decoder",
        "seed": config.seed + 1000,
        "embeddings": _shared(config.model, encoders),
        "dtype": config.precision,
        "tied_embeddings": config.model.tied_embeddings,
        "label_smoothing": config.model.label_smoothing,
    }
    memories = [config.model.units] * len(encoders)
    return encoders, make_decoder(config.model, vocabularies["target"], buckets["target"], memories, **options)


def _shared(settings: ModelConfig, encoders: Mapping[str, keras.Layer]) -> keras.Variable | None:
    """The embeddings that all sides share, if they do and have been made."""
    return next(iter(encoders.values())).embeddings if settings.shared_embeddings and encoders else None


def _recurrent_encoder(settings: ModelConfig, vocabulary: Vocabulary, _buckets: Buckets, **options) -> RecurrentEncoder:
    return RecurrentEncoder(
        vocabulary.size,
        settings.embedding,
        settings.units,
        settings.encoder_layers,
        cell=settings.cell,
        bidirectional=settings.bidirectional,
        dropout=settings.dropout,
        **options,
    )


def _recurrent_decoder(
    settings: ModelConfig, vocabulary: Vocabulary, _buckets: Buckets, memories: list[int], **options
) -> RecurrentDecoder:
    return RecurrentDecoder(
        vocabulary.size,
        memories,
        vocabulary.bos,
        settings.embedding,
        settings.units,
        settings.decoder_layers,
        cell=settings.cell,
        attention=settings.attention,
        dropout=settings.dropout,
        **options,
    )


def _transformer_encoder(
    settings: ModelConfig, vocabulary: Vocabulary, buckets: Buckets, **options
) -> TransformerEncoder:
    return TransformerEncoder(
        vocabulary.size, *_sizes(settings, settings.encoder_layers), **_transformer(settings, buckets), **options
    )


def _transformer_decoder(
    settings: ModelConfig, vocabulary: Vocabulary, buckets: Buckets, memories: list[int], **options
) -> TransformerDecoder:
    return TransformerDecoder(
        vocabulary.size,
        memories,
        vocabulary.bos,
        *_sizes(settings, settings.decoder_layers),
        **_transformer(settings, buckets),
        **options,
    )


def _sizes(settings: ModelConfig, layers: int) -> tuple[int, ...]:
    return settings.units, layers, settings.heads, settings.feedforward


def _transformer(settings: ModelConfig, buckets: Buckets) -> dict:
    return {
        "norm": settings.norm,
        "positions": settings.positions,
        "max_length": buckets.boundaries[-1],
        "rates": DropoutRates(settings.dropout, settings.attention_dropout, settings.activation_dropout),
    }


_MAKERS = {
    "recurrent": (_recurrent_encoder, _recurrent_decoder),
    "transformer": (_transformer_encoder, _transformer_decoder),
}
