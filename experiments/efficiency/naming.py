"""The weights of the measured models by names that the frameworks share.

A name is the part and the path of the weight in it, such as `encoder/layer_0/self_attention/output/kernel`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import keras
import numpy as np

from seq2split.models import TransformerEncoder

Weights = dict[str, np.ndarray]
T = TypeVar("T")
_DENSE, _NORM, _RECURRENT = (("kernel", "bias"), ("gamma", "beta"), ("kernel", "recurrent_kernel", "bias"))
_OUTPUT = {"output_projection", "output_bias"}


def variables_of(encoder: keras.Layer, decoder: keras.Layer) -> dict[str, keras.Variable]:
    """Name the variables of a measured model as the peers do.

    Args:
        encoder: An encoder of one LSTM layer in one direction; or a Transformer's.
        decoder: A decoder of one LSTM layer, with Luong's attention and embeddings of its own; or a Transformer's.

    Returns:
        Every trainable variable by its name.

    Raises:
        ValueError: They are of another kind.
    """
    parts = {"encoder": encoder, "decoder": decoder}
    named = {
        f"{part}/{variable.path.split('/', 1)[1]}": variable
        for part, layer in parts.items()
        for variable in layer.trainable_variables
    }
    known = _transformer_names(encoder.layers) if isinstance(encoder, TransformerEncoder) else _recurrent_names()
    if named.keys() != set(flat(known)):
        raise ValueError(
            f"the peers have the variables {sorted(flat(known))}, but the layers have {sorted(named)}. Give "
            "RecurrentEncoder(..., bidirectional=False) and RecurrentDecoder(...), with one layer, cell='lstm', "
            "attention='luong' and tied_embeddings=False; or TransformerEncoder(...) and TransformerDecoder(...), with "
            "norm='pre', positions='sinusoidal' and tied_embeddings=False."
        )
    return named


def weights_of(encoder: keras.Layer, decoder: keras.Layer) -> Weights:
    """Copy the weights of a measured model.

    Args:
        encoder: See `variables_of`.
        decoder: See `variables_of`.

    Returns:
        Every weight by its name, float32, in Keras's layout: a kernel is `[inputs, outputs]`, gates come in the order
        input, forget, candidate, output, queries come before keys and these before values, and the projection is
        `[vocabulary, units]`.

    Raises:
        ValueError: They are of another kind.

    Example:
        >>> from seq2split.models import RecurrentDecoder, RecurrentEncoder
        >>> encoder = RecurrentEncoder(50, 4, 8, bidirectional=False, name="encoder")
        >>> weights = weights_of(encoder, RecurrentDecoder(60, 8, 2, 4, 8, name="decoder"))
        >>> weights["encoder/lstm_0/recurrent_kernel"].shape, weights["decoder/output_projection"].shape
        ((8, 32), (60, 8))
    """
    return {name: variable.numpy().astype(np.float32) for name, variable in variables_of(encoder, decoder).items()}


def by_part(named: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Group values by part and the rest of their names.

    Example:
        >>> by_part({"encoder/lstm_0/kernel": 1, "decoder/bridge/bias": 2})
        {'encoder': {'lstm_0/kernel': 1}, 'decoder': {'bridge/bias': 2}}
    """
    return {part: below(named, part) for part in ("encoder", "decoder")}


def flat(nested: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """Return the inverse of `by_part`."""
    return {f"{part}/{name}": each for part, found in nested.items() for name, each in found.items()}


def layers(named: Mapping[str, T]) -> list[dict[str, T]]:
    """Group the values of one part of a Transformer by layer and the rest of their names.

    Example:
        >>> layers({"embeddings": 1, "layer_0/feedforward_norm/gamma": 2, "layer_1/feedforward_norm/gamma": 3})
        [{'feedforward_norm/gamma': 2}, {'feedforward_norm/gamma': 3}]
    """
    places = dict.fromkeys(name.split("/")[0] for name in named if name.startswith("layer_"))
    return [below(named, place) for place in places]


def below(named: Mapping[str, T], place: str) -> dict[str, T]:
    """Return the values whose names begin with a place, by the rest of their names."""
    return {name.removeprefix(f"{place}/"): each for name, each in named.items() if name.startswith(f"{place}/")}


def _recurrent_names() -> dict[str, dict[str, None]]:
    """Return the names of an LSTM model's weights, by part."""
    lstm = {"embeddings"} | _under("lstm_0", _RECURRENT)
    decoder = {"attention/kernel"} | _under("bridge", _DENSE) | _under("combine", _DENSE) | _OUTPUT
    return {"encoder": dict.fromkeys(lstm), "decoder": dict.fromkeys(lstm | decoder)}


def _transformer_names(count: int) -> dict[str, dict[str, None]]:
    """Return the names of the weights of a Transformer with so many layers, by part."""
    found = {}
    for part in ("encoder", "decoder"):
        dense = ["self_attention/query_key_value", "self_attention/output", "feedforward_in", "feedforward_out"]
        norms = ["self_attention_norm", "feedforward_norm"]
        if part == "decoder":
            dense += [f"cross_attention/{name}" for name in ("query", "key_value", "output")]
            norms += ["cross_attention_norm"]
        layer = set().union(*(_under(name, _DENSE) for name in dense), *(_under(name, _NORM) for name in norms))
        names = {"embeddings"} | _under("final_norm", _NORM) | (_OUTPUT if part == "decoder" else set())
        found[part] = dict.fromkeys(names.union(*(_under(f"layer_{depth}", layer) for depth in range(count))))
    return found


def _under(place: str, names: Iterable[str]) -> set[str]:
    return {f"{place}/{name}" for name in names}
