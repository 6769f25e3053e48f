"""The weights of the measured models by names that the frameworks share.

A name is the part, the layer where there are several, and the weight, such as `encoder/level_0/own/query/kernel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from seq2split.layers.transformer_layer import TransformerLayer
from seq2split.models import RecurrentDecoder, RecurrentEncoder, TransformerDecoder, TransformerEncoder

Weights = dict[str, np.ndarray]
T = TypeVar("T")
_DENSE, _NORM, _RECURRENT = (("kernel", "bias"), ("scale", "shift"), ("kernel", "recurrent_kernel", "bias"))


def variables_of(encoder: keras.Layer, decoder: keras.Layer) -> dict[str, keras.Variable]:
    """Names the variables of a measured model as the peers do.

    Args:
        encoder: Of one LSTM layer in one direction; or a Transformer's.
        decoder: Of one LSTM layer, with Luong's attention and embeddings of its own; or a Transformer's.

    Returns:
        Every trainable variable by its name.

    Raises:
        ValueError: They are of another kind.
    """
    of_model = _of_transformer if isinstance(encoder, TransformerEncoder) else _of_recurrent
    named = {
        "encoder/embeddings": encoder.embeddings,
        "decoder/embeddings": decoder.embeddings,
        **of_model(encoder, decoder),
        "decoder/projection": decoder.projection,
        "decoder/output_bias": decoder.output_bias,
    }
    trainable = {id(variable): variable.path for variable in encoder.trainable_variables + decoder.trainable_variables}
    if trainable.keys() != {id(variable) for variable in named.values()}:
        raise ValueError(
            f"the peers have the variables {list(named)}, but the layers have {list(trainable.values())}. Give "
            "RecurrentEncoder(..., bidirectional=False) and RecurrentDecoder(...), with one layer, cell='lstm', "
            "attention='luong' and tied_embeddings=False; or TransformerEncoder(...) and TransformerDecoder(...), with "
            "norm='pre', positions='sinusoidal' and tied_embeddings=False."
        )
    return named


def weights_of(encoder: keras.Layer, decoder: keras.Layer) -> Weights:
    """Copies the weights of a measured model.

    Args:
        encoder: As of `variables_of`.
        decoder: Likewise.

    Returns:
        Every weight by its name, float32, in Keras's layout: a kernel is `[inputs, outputs]`, gates come in the order
        input, forget, candidate, output, queries come before keys and these before values, and the projection is
        `[vocabulary, units]`.

    Raises:
        ValueError: As of `variables_of`.

    Example:
        >>> from seq2split.models import RecurrentDecoder, RecurrentEncoder
        >>> encoder = RecurrentEncoder(50, 4, 8, bidirectional=False, name="encoder")
        >>> weights = weights_of(encoder, RecurrentDecoder(60, 8, 2, 4, 8, name="decoder"))
        >>> weights["encoder/recurrent_kernel"].shape, weights["decoder/projection"].shape
        ((8, 32), (60, 8))
    """
    return {name: variable.numpy().astype(np.float32) for name, variable in variables_of(encoder, decoder).items()}


def by_part(named: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """What stands under names, by part and the rest of the name.

    Example:
        >>> by_part({"encoder/kernel": 1, "decoder/bridge/bias": 2})
        {'encoder': {'kernel': 1}, 'decoder': {'bridge/bias': 2}}
    """
    return {part: _below(named, part) for part in ("encoder", "decoder")}


def flat(nested: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """The inverse of `by_part`."""
    return {f"{part}/{name}": each for part, found in nested.items() for name, each in found.items()}


def levels(named: Mapping[str, T]) -> list[dict[str, T]]:
    """What stands under the names of one part of a Transformer, by layer and the rest of the name.

    Example:
        >>> levels({"embeddings": 1, "level_0/own_norm/scale": 2, "level_1/own_norm/scale": 3})
        [{'own_norm/scale': 2}, {'own_norm/scale': 3}]
    """
    places = dict.fromkeys(name.split("/")[0] for name in named if name.startswith("level_"))
    return [_below(named, place) for place in places]


def _of_recurrent(encoder: RecurrentEncoder, decoder: RecurrentDecoder) -> dict[str, keras.Variable]:
    named = _held("encoder", encoder.levels[0][0], _RECURRENT) | _held("decoder", decoder.levels[0], _RECURRENT)
    named["decoder/attention/kernel"] = decoder.attentions[0].kernel
    return named | _held("decoder/bridge", decoder.bridge, _DENSE) | _held("decoder/combine", decoder.combine, _DENSE)


def _of_transformer(encoder: TransformerEncoder, decoder: TransformerDecoder) -> dict[str, keras.Variable]:
    named = {}
    for part, layer in {"encoder": encoder, "decoder": decoder}.items():
        for depth, level in enumerate(layer.levels):
            named |= _of_level(f"{part}/level_{depth}", level)
        named |= _held(f"{part}/last_norm", layer.last, _NORM)
    return named


def _of_level(place: str, level: TransformerLayer) -> dict[str, keras.Variable]:
    named = _held(f"{place}/inner", level.inner, _DENSE) | _held(f"{place}/outer", level.outer, _DENSE)
    for heads in (level.own, *level.others):
        for dense in filter(None, (heads.query, heads.key_value, heads.output_projection)):
            named |= _held(f"{place}/{heads.name}/{dense.name}", dense, _DENSE)
    for norm in level.norms:
        named |= _held(f"{place}/{norm.name}", norm, _NORM)
    return named


def _held(place: str, layer: Any, names: tuple[str, ...]) -> dict[str, keras.Variable]:
    """The weights of a layer, `None` where it has no such."""
    return {f"{place}/{name}": getattr(layer, name, None) for name in names}


def _below(named: Mapping[str, T], place: str) -> dict[str, T]:
    return {name.removeprefix(f"{place}/"): each for name, each in named.items() if name.startswith(f"{place}/")}
