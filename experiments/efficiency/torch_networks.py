"""The measured models in PyTorch, as functions of inputs that give logits `[rows, target, vocabulary]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from efficiency.naming import Weights, below, by_part, layers
from efficiency.peer_inputs import MASKED, Inputs, places

Parameters = Mapping[str, nn.Parameter]
_EPSILON = 1e-6  # of the variance, as in our normalization
_IGNORED = -100  # the label of padding
_LONGEST = 1024  # positions that a Transformer has sinusoids for


class Tensors(NamedTuple):
    """A batch as a network reads it.

    Attributes:
        source: Pieces `[rows, source]`.
        lengths: Of the sources, `[rows]`.
        real: Whether source pieces are no padding, `[rows, source]`.
        previous: The pieces before those that are predicted, `[rows, target]`.
        labels: The pieces that are predicted, likewise, with a mark for padding.
    """

    source: torch.Tensor
    lengths: torch.Tensor
    real: torch.Tensor
    previous: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, inputs: Inputs) -> Tensors:
        """Those of numpy arrays."""
        real = np.arange(inputs.source.shape[1]) < inputs.lengths[:, None]
        labels = np.where(inputs.real, inputs.labels, _IGNORED).astype(np.int64)
        return cls(*map(torch.from_numpy, (inputs.source, inputs.lengths, real, inputs.previous, labels)))


Network = Callable[[Tensors], torch.Tensor]


def summed_loss(network: Network) -> Network:
    """A network's cross-entropy, summed over the real positions of the target."""

    def loss(inputs: Tensors) -> torch.Tensor:
        logits, labels = network(inputs).flatten(0, 1), inputs.labels.flatten()
        return functional.cross_entropy(logits, labels, ignore_index=_IGNORED, reduction="sum")

    return loss


def parameters_of(weights: Weights) -> Parameters:
    """Copy weights into PyTorch's layout, where a kernel is `[outputs, inputs]`."""
    return {name: nn.Parameter(torch.tensor(_turned(name, weight))) for name, weight in weights.items()}


def keras_layout(name: str, tensor: torch.Tensor) -> np.ndarray:
    """A view, so that whoever times the gradients doesn't time a copy."""
    return _turned(name, tensor.numpy())


def recurrent(parameters: Parameters) -> Network:
    """The LSTMs with Luong's attention."""
    encoder, decoder = by_part(parameters).values()
    encode, decode = _lstm(below(encoder, "lstm_0")), _lstm(below(decoder, "lstm_0"))

    def logits(inputs: Tensors) -> torch.Tensor:
        lengths = inputs.lengths
        encoded, _ = encode(_embeddings(encoder, inputs.source.T))
        summary = encoded[lengths - 1, torch.arange(len(lengths))]
        first = torch.tanh(_linear(decoder, "bridge", summary))[None].to(encoded.dtype)
        states, _ = decode(_embeddings(decoder, inputs.previous.T), (first, torch.zeros_like(first)))
        states, encoded = states.transpose(0, 1), encoded.transpose(0, 1)
        scores = states @ functional.linear(encoded, decoder["attention/kernel"]).transpose(1, 2)
        scores = scores.masked_fill(~inputs.real[:, None], MASKED)
        features = torch.cat([states, torch.softmax(scores, -1) @ encoded], -1)
        return _projected(decoder, torch.tanh(_linear(decoder, "combine", features)))

    return logits


def transformer(parameters: Parameters, heads: int) -> Network:
    """The Transformer, which normalizes before each sublayer."""
    encoder, decoder = by_part(parameters).values()
    encoder_layers, decoder_layers = layers(encoder), layers(decoder)
    sinusoids = torch.from_numpy(places(_LONGEST, encoder["embeddings"].shape[1]))

    def embedded(weights: Parameters, pieces: torch.Tensor) -> torch.Tensor:
        scale = weights["embeddings"].shape[1] ** 0.5
        return _embeddings(weights, pieces) * scale + sinusoids[: pieces.shape[1]]

    def logits(inputs: Tensors) -> torch.Tensor:
        real, time = inputs.real[:, None, None], inputs.previous.shape[1]
        earlier = torch.ones([time, time], dtype=torch.bool).tril()
        encoded = embedded(encoder, inputs.source)
        for layer in encoder_layers:
            encoded = encoded + _self_attention(layer, encoded, heads, real)
            encoded = encoded + _feedforward(layer, encoded)
        encoded = _normalized(encoder, "final_norm", encoded)
        values = embedded(decoder, inputs.previous)
        for layer in decoder_layers:
            values = values + _self_attention(layer, values, heads, earlier)
            values = values + _attention_to(encoded, layer, values, heads, real)
            values = values + _feedforward(layer, values)
        return _projected(decoder, _normalized(decoder, "final_norm", values))

    return logits


def _turned(name: str, matrix: np.ndarray) -> np.ndarray:
    """From either layout to the other."""
    return matrix.T if name.endswith("kernel") else matrix


def _lstm(weights: Parameters) -> nn.LSTM:
    columns, inputs = weights["kernel"].shape
    layer = nn.LSTM(inputs, columns // 4)
    layer.weight_ih_l0, layer.weight_hh_l0 = weights["kernel"], weights["recurrent_kernel"]
    layer.bias_ih_l0 = weights["bias"]
    layer.bias_hh_l0 = nn.Parameter(torch.zeros(columns), requires_grad=False)  # Keras has one bias, the sum
    return layer


def _self_attention(weights: Parameters, values: torch.Tensor, heads: int, mask: torch.Tensor) -> torch.Tensor:
    projected = _linear(weights, "self_attention/query_key_value", _normalized(weights, "self_attention_norm", values))
    return _linear(weights, "self_attention/output", _contexts(*projected.chunk(3, -1), heads, mask))


def _attention_to(
    encoded: torch.Tensor, weights: Parameters, values: torch.Tensor, heads: int, mask: torch.Tensor
) -> torch.Tensor:
    queries = _linear(weights, "cross_attention/query", _normalized(weights, "cross_attention_norm", values))
    keys_values = _linear(weights, "cross_attention/key_value", encoded).chunk(2, -1)
    return _linear(weights, "cross_attention/output", _contexts(queries, *keys_values, heads, mask))


def _contexts(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, heads: int, mask: torch.Tensor
) -> torch.Tensor:
    """What `queries [rows, queries, units]` read; each head of its own share of the units."""
    queries, keys, values = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (queries, keys, values))
    if queries.dtype == torch.bfloat16:  # PyTorch's own attention takes 2 to 8 times as long, and half of it in float32
        scores = queries * queries.shape[-1] ** -0.5 @ keys.transpose(2, 3)
        contexts = torch.softmax(scores.masked_fill(~mask, MASKED), -1) @ values
    else:
        contexts = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return contexts.transpose(1, 2).flatten(2)


def _feedforward(weights: Parameters, values: torch.Tensor) -> torch.Tensor:
    inner = _linear(weights, "feedforward_in", _normalized(weights, "feedforward_norm", values))
    return _linear(weights, "feedforward_out", functional.relu(inner))


def _embeddings(weights: Parameters, pieces: torch.Tensor) -> torch.Tensor:
    return functional.embedding(pieces, weights["embeddings"])


def _normalized(weights: Parameters, name: str, values: torch.Tensor) -> torch.Tensor:
    gamma, beta = weights[f"{name}/gamma"], weights[f"{name}/beta"]
    return functional.layer_norm(values, gamma.shape, gamma, beta, _EPSILON)


def _linear(weights: Parameters, name: str, values: torch.Tensor) -> torch.Tensor:
    return functional.linear(values, weights[f"{name}/kernel"], weights[f"{name}/bias"])


def _projected(weights: Parameters, features: torch.Tensor) -> torch.Tensor:
    return functional.linear(features, weights["output_projection"], weights["output_bias"])
