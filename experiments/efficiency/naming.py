"""The weights of the measured models by names that the frameworks share.

A name is the part and the path of the weight in it, such as `encoder/layer_0/self_attention/output/kernel`. Nothing
here needs TensorFlow: the peers' processes hold none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

Weights = dict[str, np.ndarray]
T = TypeVar("T")
_DENSE, _NORM, _RECURRENT = (("kernel", "bias"), ("gamma", "beta"), ("kernel", "recurrent_kernel", "bias"))
_OUTPUT = {"output_projection", "output_bias"}


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


def recurrent_names() -> dict[str, dict[str, None]]:
    """Return the names of an LSTM model's weights, by part."""
    lstm = {"embeddings"} | _under("lstm_0", _RECURRENT)
    decoder = {"attention/kernel"} | _under("bridge", _DENSE) | _under("combine", _DENSE) | _OUTPUT
    return {"encoder": dict.fromkeys(lstm), "decoder": dict.fromkeys(lstm | decoder)}


def transformer_names(count: int) -> dict[str, dict[str, None]]:
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
