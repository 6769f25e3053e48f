"""The layers of a translation model: ready ones, or those that a function of the user's makes."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from seq2split.buckets import Buckets
from seq2split.common.files import doing
from seq2split.config import Config, ModelConfig
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.models import (
    DropoutRates,
    RecurrentDecoder,
    RecurrentEncoder,
    TransformerDecoder,
    TransformerEncoder,
)


@dataclass(frozen=True)
class ModelRequest:
    """What a model is wanted for: the first argument of an architecture.

    Attributes:
        vocabularies: The vocabulary of each side: `source`, `source2` where there is a second one, and `target`.
        buckets: The buckets of each side; the last boundary is the longest row that there can be.
        precision: The Keras dtype policy, `float32` or `mixed_bfloat16`.
        seed: The seed of the configuration, for dropout; initial values follow from it anyway.
    """

    vocabularies: Mapping[str, Vocabulary]
    buckets: Mapping[str, Buckets]
    precision: str
    seed: int

    @property
    def sizes(self) -> dict[str, int]:
        """The number of pieces of each side."""
        return {side: vocabulary.size for side, vocabulary in self.vocabularies.items()}

    @property
    def sources(self) -> list[str]:
        """The source sides, in the order in which the decoder reads their encoders."""
        return [side for side in self.vocabularies if side != "target"]

    @property
    def bos(self) -> int:
        """The target piece that stands before the first."""
        return self.vocabularies["target"].bos

    @property
    def eos(self) -> int:
        """The target piece that ends a sentence."""
        return self.vocabularies["target"].eos


Layers = tuple[Mapping[str, Callable], Callable]


def make_layers(
    config: Config, vocabularies: Mapping[str, Vocabulary], buckets: Mapping[str, Buckets]
) -> tuple[dict[str, Callable], Callable]:
    """Make the layers of a model with new variables, whose initial values follow from the seed.

    Args:
        config: The configuration.
        vocabularies: The vocabulary of each side.
        buckets: The buckets of each side.

    Returns:
        The encoder of each source side, and the decoder, which reads all of them.

    Raises:
        ValueError: The architecture can't be found, or doesn't return encoders and a decoder.
    """
    request = ModelRequest(dict(vocabularies), dict(buckets), config.precision, config.seed)
    with _seeded(config.seed):
        if config.model.is_built_in:
            return _BUILT_IN[config.model.architecture](request, config.model)
        return _make_own(config.model.architecture, request, config.model.options)


def check_architecture(config: Config) -> None:
    """Check that an architecture can be made here, before hours of work that end in it.

    Raises:
        ValueError: It can't be found, or its variables alone are larger than this machine's memory.
    """
    model = config.model
    if not model.is_built_in:
        find_architecture(model.architecture)
    elif (needed := 4 * _least_parameters(config)) > (memory := memory_bytes()):
        raise ValueError(
            f"the layers that [model] describes ({model.architecture}, model.units = {model.units}, "
            f"{model.encoder_layers} + {model.decoder_layers} layers, embeddings of {model.embedding}) have variables "
            f"of at least {needed / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f} GiB of memory: lower "
            "these sizes or vocabulary.size."
        )


def _least_parameters(config: Config) -> int:
    """Return a number of parameters that a built-in architecture has in any case."""
    model, vocabulary = config.model, config.vocabulary
    is_exact = vocabulary.algorithm in ("unigram", "bpe") and not vocabulary.source_model
    embeddings = model.embedding * (vocabulary.size if is_exact else 1)
    if model.architecture == "transformer":
        width = 4 * model.units + 2 * model.feedforward
    else:
        width = {"lstm": 4, "gru": 3}[model.cell] * model.units
    return embeddings + model.units * width * (model.encoder_layers + model.decoder_layers)


def memory_bytes() -> int:
    """Return the size of this machine's memory; without end where the system doesn't tell it."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _make_own(architecture: str, request: ModelRequest, options: Mapping[str, Any]) -> tuple[dict, Callable]:
    function = find_architecture(architecture)
    try:
        made = function(request, **options)
    except Exception as error:
        error.add_note(f"in the architecture {architecture}, with [model.options] {dict(options)}")
        raise
    expected = f"expected a dictionary with an encoder for each of {request.sources}, and a decoder"
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], Mapping):
        raise ValueError(f"the architecture {architecture} returned {type(made).__name__}; {expected}.")
    encoders, decoder = made
    if list(encoders) != request.sources or not all(map(callable, (*encoders.values(), decoder))):
        raise ValueError(f"the architecture {architecture} returned encoders for {list(encoders)}; {expected}.")
    return dict(encoders), decoder


def find_architecture(name: str) -> Callable:
    """Return the function that an architecture is the name of.

    Args:
        name: `package.module:function`, or `path/to/file.py:function`.

    Raises:
        ValueError: There is no such module, file or function.
    """
    place, _, function = name.rpartition(":")
    module = _import(name)
    if not callable(getattr(module, function, None)):
        found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(
            f"model.architecture is {name!r}, but {place} has no function {function!r}; it has {', '.join(found)}."
        )
    return getattr(module, function)


def source_digest(name: str) -> str:
    """Return a hexadecimal digest of the file that an architecture is named by, which tells it from a changed one.

    Args:
        name: `package.module:function`, or `path/to/file.py:function`.
    """
    place = name.rpartition(":")[0]
    file = place if place.endswith(".py") else getattr(_import(name), "__file__", None)
    if file is None:  # a module that is built into Python
        return ""
    with doing("read", file):
        return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()


def _import(name: str) -> Any:
    """Return the module, or the file as one, that an architecture is named by."""
    place = name.rpartition(":")[0]
    try:
        return _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, OSError) as error:
        raise ValueError(
            f"model.architecture is {name!r}, but {place} can't be imported: {error}. Give an installed module, or a "
            'file beside the configuration: architecture = "model.py:function".'
        ) from error
    except (Exception, SystemExit) as error:  # a script that exits at its end would end us in silence
        raise ValueError(f"model.architecture is {name!r}: {type(error).__name__} in {place}: {error}") from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"seq2split_architecture_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Keras looks up the module of a class that it saves
    spec.loader.exec_module(module)
    return module


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let Python's random numbers, from which Keras draws the seeds of initial values, begin at a seed meanwhile."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _recurrent(request: ModelRequest, settings: ModelConfig) -> tuple[dict[str, keras.Layer], keras.Layer]:
    encoders: dict[str, keras.Layer] = {}
    for side in request.sources:
        encoders[side] = RecurrentEncoder(
            request.sizes[side],
            settings.embedding,
            settings.units,
            settings.encoder_layers,
            cell=settings.cell,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout,
            unroll=settings.unroll,
            **_encoder_options(request, settings, encoders),
        )
    decoder = RecurrentDecoder(
        request.sizes["target"],
        [settings.units] * len(encoders),
        request.bos,
        settings.embedding,
        settings.units,
        settings.decoder_layers,
        cell=settings.cell,
        attention=settings.attention,
        dropout=settings.dropout,
        unroll=settings.unroll,
        **_decoder_options(request, settings, encoders),
    )
    return encoders, decoder


def _transformer(request: ModelRequest, settings: ModelConfig) -> tuple[dict[str, keras.Layer], keras.Layer]:
    encoders: dict[str, keras.Layer] = {}
    for side in request.sources:
        encoders[side] = TransformerEncoder(
            request.sizes[side],
            settings.units,
            settings.encoder_layers,
            settings.heads,
            settings.feedforward,
            **_transformer_options(request, settings, side),
            **_encoder_options(request, settings, encoders),
        )
    decoder = TransformerDecoder(
        request.sizes["target"],
        [settings.units] * len(encoders),
        request.bos,
        settings.units,
        settings.decoder_layers,
        settings.heads,
        settings.feedforward,
        **_transformer_options(request, settings, "target"),
        **_decoder_options(request, settings, encoders),
    )
    return encoders, decoder


def _encoder_options(request: ModelRequest, settings: ModelConfig, encoders: Mapping[str, keras.Layer]) -> dict:
    return {
        "name": request.sources[len(encoders)].replace("source", "encoder"),
        "seed": request.seed + 2000 * len(encoders),
        "embeddings": _shared_embeddings(settings, encoders),
        "dtype": request.precision,
    }


def _decoder_options(request: ModelRequest, settings: ModelConfig, encoders: Mapping[str, keras.Layer]) -> dict:
    return {
        "name": "decoder",
        "seed": request.seed + 1000,
        "embeddings": _shared_embeddings(settings, encoders),
        "dtype": request.precision,
        "tied_embeddings": settings.tied_embeddings,
        "label_smoothing": settings.label_smoothing,
    }


def _transformer_options(request: ModelRequest, settings: ModelConfig, side: str) -> dict:
    return {
        "norm": settings.norm,
        "positions": settings.positions,
        "max_length": request.buckets[side].boundaries[-1],
        "rates": DropoutRates(settings.dropout, settings.attention_dropout, settings.activation_dropout),
    }


def _shared_embeddings(settings: ModelConfig, encoders: Mapping[str, keras.Layer]) -> keras.Variable | None:
    """Return the embeddings that all sides share, if they do and have been made."""
    return next(iter(encoders.values())).embeddings if settings.shared_embeddings and encoders else None


_BUILT_IN = {"recurrent": _recurrent, "transformer": _transformer}
