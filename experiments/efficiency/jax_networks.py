"""The measured models in JAX, each split into an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from efficiency.naming import layers
from efficiency.peer_inputs import MASKED, places

Weights = Mapping[str, jax.Array]
_EPSILON = 1e-6  # of the variance, as in our normalization


class Network(NamedTuple):
    """A model.

    Attributes:
        encode: Takes the encoder's weights, pieces `[rows, source]` and their lengths; returns what the decoder reads.
        decode: Takes the decoder's weights, that, the lengths and the previous pieces `[rows, target]`; returns
            logits `[rows, target, vocabulary]`.
    """

    encode: Callable[[Weights, jax.Array, jax.Array], Any]
    decode: Callable[[Weights, Any, jax.Array, jax.Array], jax.Array]


def recurrent() -> Network:
    """The LSTMs with Luong's attention."""

    def encode(weights: Weights, source: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The outputs `[time, rows, units]`, and those of the last pieces `[rows, units]`."""
        rows = source.shape[0]
        outputs = _lstm(weights, source, jnp.zeros([rows, weights["lstm_0/recurrent_kernel"].shape[0]]))
        return outputs, outputs[lengths - 1, jnp.arange(rows)]

    def decode(weights: Weights, encoded: tuple, lengths: jax.Array, previous: jax.Array) -> jax.Array:
        outputs, summary = encoded
        states = _lstm(weights, previous, jnp.tanh(_linear(weights, "bridge", summary))).transpose(1, 0, 2)
        outputs = outputs.transpose(1, 0, 2)
        scores = states @ (outputs @ weights["attention/kernel"]).transpose(0, 2, 1)
        contexts = jax.nn.softmax(jnp.where(_real(outputs, lengths)[:, None], scores, MASKED)) @ outputs
        features = jnp.concatenate([states, contexts], -1)
        return _projected(weights, jnp.tanh(_linear(weights, "combine", features)))

    return Network(encode, decode)


def transformer(heads: int) -> Network:
    """The Transformer, which normalizes before each sublayer."""

    def encode(weights: Weights, source: jax.Array, lengths: jax.Array) -> jax.Array:
        """The outputs `[rows, time, units]`."""
        values = _embeddings_at_places(weights, source)
        real = _real(values, lengths)[:, None, None]
        for layer in layers(weights):
            values += _self_attention(layer, values, heads, real)
            values += _feedforward(layer, values)
        return _normalized(weights, "final_norm", values)

    def decode(weights: Weights, encoded: jax.Array, lengths: jax.Array, previous: jax.Array) -> jax.Array:
        values, time = (_embeddings_at_places(weights, previous), jnp.arange(previous.shape[1]))
        real, earlier = (_real(encoded, lengths)[:, None, None], time[:, None] >= time)
        for layer in layers(weights):
            values += _self_attention(layer, values, heads, earlier)
            values += _attention_to(encoded, layer, values, heads, real)
            values += _feedforward(layer, values)
        return _projected(weights, _normalized(weights, "final_norm", values))

    return Network(encode, decode)


def cross_entropy(logits: jax.Array, labels: jax.Array, real: jax.Array) -> jax.Array:
    """The mean over the real positions of `logits [rows, target, vocabulary]`."""
    of_labels = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return jnp.sum(real * (jax.nn.logsumexp(logits, -1) - of_labels)) / jnp.sum(real)


def _lstm(weights: Weights, pieces: jax.Array, first: jax.Array) -> jax.Array:
    """The outputs `[time, rows, units]` over `pieces [rows, time]` from a first output and a cell of zeros."""

    def step(state: tuple[jax.Array, jax.Array], projected: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        output, cell = state
        input, forget, candidate, expose = jnp.split(projected + output @ weights["lstm_0/recurrent_kernel"], 4, axis=1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(input) * jnp.tanh(candidate)
        output = jax.nn.sigmoid(expose) * jnp.tanh(cell)
        return (output, cell), output

    projected = weights["embeddings"][pieces.T] @ weights["lstm_0/kernel"] + weights["lstm_0/bias"]
    # Not unrolled: all steps unrolled take 2 % less time, and four times as long to compile; fewer are slower.
    _, outputs = jax.lax.scan(step, (first, jnp.zeros_like(first)), projected)
    return outputs


def _self_attention(weights: Weights, values: jax.Array, heads: int, mask: jax.Array) -> jax.Array:
    projected = _linear(weights, "self_attention/query_key_value", _normalized(weights, "self_attention_norm", values))
    return _linear(weights, "self_attention/output", _contexts(*jnp.split(projected, 3, -1), heads, mask))


def _attention_to(encoded: jax.Array, weights: Weights, values: jax.Array, heads: int, mask: jax.Array) -> jax.Array:
    queries = _linear(weights, "cross_attention/query", _normalized(weights, "cross_attention_norm", values))
    keys_values = jnp.split(_linear(weights, "cross_attention/key_value", encoded), 2, -1)
    return _linear(weights, "cross_attention/output", _contexts(queries, *keys_values, heads, mask))


def _contexts(queries: jax.Array, keys: jax.Array, values: jax.Array, heads: int, mask: jax.Array) -> jax.Array:
    """What `queries [rows, queries, units]` read; each head of its own share of the units."""
    rows, count, units = queries.shape
    queries, keys, values = (
        each.reshape(rows, -1, heads, units // heads).transpose(0, 2, 1, 3) for each in (queries, keys, values)
    )
    scores = queries @ keys.transpose(0, 1, 3, 2) * (units // heads) ** -0.5
    contexts = jax.nn.softmax(jnp.where(mask, scores, MASKED)) @ values
    return contexts.transpose(0, 2, 1, 3).reshape(rows, count, units)


def _feedforward(weights: Weights, values: jax.Array) -> jax.Array:
    inner = _linear(weights, "feedforward_in", _normalized(weights, "feedforward_norm", values))
    return _linear(weights, "feedforward_out", jax.nn.relu(inner))


def _real(encoded: jax.Array, lengths: jax.Array) -> jax.Array:
    """Whether positions of an encoder's outputs `[rows, time, units]` are no padding, `[rows, time]`."""
    return jnp.arange(encoded.shape[1]) < lengths[:, None]


def _embeddings_at_places(weights: Weights, pieces: jax.Array) -> jax.Array:
    units = weights["embeddings"].shape[1]
    return weights["embeddings"][pieces] * units**0.5 + places(pieces.shape[1], units)


def _normalized(weights: Weights, name: str, values: jax.Array) -> jax.Array:
    centred = values - values.mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
    return normal * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def _linear(weights: Weights, name: str, values: jax.Array) -> jax.Array:
    return values @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def _projected(weights: Weights, features: jax.Array) -> jax.Array:
    return features @ weights["output_projection"].T + weights["output_bias"]
