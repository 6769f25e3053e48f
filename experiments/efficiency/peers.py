"""The measured model in PyTorch and in JAX, from the weights of ours, so that only the frameworks differ.

The model is `Encoder(..., bidirectional=False)` with `Decoder(...)` of `seq2split.models`: one LSTM layer each, Luong's
attention, no dropout, no label smoothing. Each peer is written as one would write it there for speed: PyTorch in eager
mode with its fused `nn.LSTM`, JAX compiled for each padded shape and split by `jax.vjp` as ours is split into parts.
Padding needs no mask in the recurrences, since both run forwards: what comes after a row's last piece is never read.

Every row holds at least one piece on either side. Adam differs from Keras's in where its epsilon stands, so that
losses and gradients agree with ours to rounding, but trajectories drift apart slowly.

PyTorch and JAX are imported when a subject is made, for neither comes with the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

    from seq2split.carry import Sequences
    from seq2split.models import Decoder, Encoder

Batch = Mapping[str, "Sequences"]
Weights = dict[str, np.ndarray]

PRECISIONS = ("float32", "mixed_bfloat16")
EPSILON = 1e-7  # Adam's, as in Keras
_NEEDS = {"torch": ("torch",), "jax": ("jax", "optax")}
_MASKED = -1e9
_IGNORED = -100  # the label of padding in PyTorch


def available() -> dict[str, str | None]:
    """For `torch` and `jax` the reason why they can't be used, or `None` where they can."""
    return {name: _reason(modules) for name, modules in _NEEDS.items()}


def variables_of(encoder: Encoder, decoder: Decoder) -> dict[str, keras.Variable]:
    """Names the variables of the measured model as the peers do.

    Args:
        encoder: Of one LSTM layer in one direction.
        decoder: Of one LSTM layer, with Luong's attention and embeddings of its own.

    Returns:
        Every trainable variable by its name.

    Raises:
        ValueError: They are of another kind.
    """
    layers = {"encoder": encoder.levels[0][0], "decoder": decoder.levels[0]}
    named = {"encoder/embeddings": encoder.embeddings, "decoder/embeddings": decoder.embeddings}
    for part, layer in layers.items():
        named |= {f"{part}/{name}": getattr(layer, name) for name in ("kernel", "recurrent_kernel", "bias")}
    named["decoder/attention"] = decoder.attentions[0].kernel
    for name in ("bridge", "combine"):
        dense = getattr(decoder, name)
        named |= {f"decoder/{name}_kernel": dense.kernel, f"decoder/{name}_bias": dense.bias}
    named |= {"decoder/projection": decoder.projection, "decoder/output_bias": decoder.output_bias}
    trainable = {id(variable): variable.path for variable in encoder.trainable_variables + decoder.trainable_variables}
    if trainable.keys() != {id(variable) for variable in named.values()}:
        raise ValueError(
            f"the peers have the variables {list(named)}, but the layers have {list(trainable.values())}. Give "
            "Encoder(..., bidirectional=False) and Decoder(...), with one layer, cell='lstm', attention='luong' and "
            "tied_embeddings=False."
        )
    return named


def weights_of(encoder: Encoder, decoder: Decoder) -> Weights:
    """Copies the weights of the measured model.

    Args:
        encoder: As of `variables_of`.
        decoder: Likewise.

    Returns:
        Every weight by its name, float32, in Keras's layout: a kernel is `[inputs, outputs]`, gates come in the order
        input, forget, candidate, output, and the projection is `[vocabulary, units]`.

    Raises:
        ValueError: As of `variables_of`.

    Example:
        >>> from seq2split.models import Decoder, Encoder
        >>> encoder = Encoder(50, 4, 8, bidirectional=False, name="encoder")
        >>> weights = weights_of(encoder, Decoder(60, 8, 2, 4, 8, name="decoder"))
        >>> weights["encoder/recurrent_kernel"].shape, weights["decoder/projection"].shape
        ((8, 32), (60, 8))
    """
    return {name: variable.numpy().astype(np.float32) for name, variable in variables_of(encoder, decoder).items()}


class TorchSubject:
    """The model in PyTorch's eager mode, one padded batch at a time.

    Args:
        weights: As of `weights_of`.
        bos: The piece that stands before the first.
        precision: `float32`; or `mixed_bfloat16`, which is `torch.autocast` over the forward.
        threads: Of PyTorch, in the whole process.
        learning_rate: Of Adam.

    Raises:
        ValueError: The precision is neither.
    """

    def __init__(self, weights: Weights, bos: int, precision: str, threads: int, learning_rate: float):
        import torch

        if precision not in PRECISIONS:
            raise ValueError(f"TorchSubject was given the precision {precision!r}; expected one of {PRECISIONS}.")
        torch.set_num_threads(threads)
        self._bos, self._mixed = bos, precision == "mixed_bfloat16"
        self._layers = _torch_layers(weights)
        self._named = _torch_named(self._layers)
        trained = [parameter for parameter, _ in self._named.values()]
        self._optimizer = torch.optim.Adam(trained, learning_rate, eps=EPSILON, fused=True)

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
        """Runs forward and backward.

        Args:
            batch: `source` and `target`; each `[rows, time]` and `[rows]`, int32.

        Returns:
            The loss in nats of a target piece on average, and the gradients by the names of the weights.
        """
        loss = self._backward(batch)
        return loss, {name: _keras_layout(each.grad, turned) for name, (each, turned) in self._named.items()}

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss before it."""
        loss = self._backward(batch)
        self._optimizer.step()
        return loss

    def weights(self) -> Weights:
        """Copies the weights as they are now, as of `weights_of`."""
        return {name: _keras_layout(each.detach(), turned).copy() for name, (each, turned) in self._named.items()}

    def _backward(self, batch: Batch) -> float:
        """Leaves the gradients at the parameters."""
        import torch

        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._mixed):
            loss = self._loss(_inputs(batch, self._bos))
        loss.backward()
        return loss.item()

    def _loss(self, inputs: _Inputs) -> Any:
        import torch
        from torch.nn import functional

        layers = self._layers
        labels = torch.from_numpy(np.where(inputs.real, inputs.labels, _IGNORED).astype(np.int64))
        memory, summary = self._encode(inputs)
        first = torch.tanh(layers["bridge"](summary))[None]
        first = first.to(memory.dtype), torch.zeros_like(first, dtype=memory.dtype)
        states, _ = layers["decoder"](layers["target"](torch.from_numpy(inputs.previous)), first)
        states, memory = states.transpose(0, 1), memory.transpose(0, 1)
        features = torch.cat([states, self._attend(states, memory, inputs.source_lengths)], -1)
        logits = layers["projection"](torch.tanh(layers["combine"](features)))
        summed = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        return summed / int(inputs.real.sum())

    def _encode(self, inputs: _Inputs) -> tuple[Any, Any]:
        """The outputs `[time, rows, units]`, and those of the last pieces `[rows, units]`."""
        import torch

        outputs, _ = self._layers["encoder"](self._layers["source"](torch.from_numpy(inputs.source)))
        return outputs, outputs[torch.from_numpy(inputs.source_lengths) - 1, torch.arange(outputs.shape[1])]

    def _attend(self, queries: Any, memory: Any, lengths: np.ndarray) -> Any:
        """Contexts of `queries [rows, queries, units]` in `memory [rows, time, features]`."""
        import torch

        scores = queries @ self._layers["attention"](memory).transpose(1, 2)
        padding = torch.from_numpy(np.arange(memory.shape[1]) >= lengths[:, None])
        return torch.softmax(scores.masked_fill(padding[:, None], _MASKED), -1) @ memory


class JaxSubject:
    """The model in JAX, float32, split in two by `jax.vjp` and compiled for each padded shape.

    The encoder's forward hands its residuals to its backward inside the function that `jax.vjp` returns. Its forward
    and backward are compiled for each source shape; the decoder, whose loss and gradients are one function, for each
    pair.

    Args:
        weights: As of `weights_of`.
        bos: The piece that stands before the first.
        learning_rate: Of Adam.
    """

    def __init__(self, weights: Weights, bos: int, learning_rate: float):
        import jax
        import optax

        optimizer = optax.adam(learning_rate, eps=EPSILON)

        def update(weights: dict, state: Any, gradients: dict) -> tuple[dict, Any]:
            updates, state = optimizer.update(gradients, state)
            return optax.apply_updates(weights, updates), state

        self._bos = bos
        self._weights = {
            part: {name.split("/")[1]: jax.numpy.array(each) for name, each in weights.items() if name.startswith(part)}
            for part in ("encoder", "decoder")
        }
        self._state = optimizer.init(self._weights)
        self._encode = jax.jit(lambda weights, *given: jax.vjp(lambda weights: _jax_encode(weights, *given), weights))
        self._encode_back = jax.jit(lambda back, cotangents: back(cotangents)[0])
        self._decode = jax.jit(jax.value_and_grad(_jax_decode, argnums=(0, 1)))
        self._update = jax.jit(update, donate_argnums=(0, 1))

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
        """As of `TorchSubject`."""
        loss, gradients = self._run(batch)
        return float(loss), {name: np.asarray(each) for name, each in _flat(gradients).items()}

    def step(self, batch: Batch) -> float:
        """As of `TorchSubject`; done when it returns."""
        import jax

        loss, gradients = self._run(batch)
        self._weights, self._state = jax.block_until_ready(self._update(self._weights, self._state, gradients))
        return float(loss)

    def weights(self) -> Weights:
        """As of `TorchSubject`."""
        return {name: np.array(each) for name, each in _flat(self._weights).items()}

    def _run(self, batch: Batch) -> tuple[Any, dict]:
        source, source_lengths, *target = _inputs(batch, self._bos)
        encoded, encode_back = self._encode(self._weights["encoder"], source, source_lengths)
        loss, (decoder, encoded_ct) = self._decode(self._weights["decoder"], encoded, source_lengths, *target)
        return loss, {"encoder": self._encode_back(encode_back, encoded_ct), "decoder": decoder}


class _Inputs(NamedTuple):
    """What both peers read: pieces that enter a recurrence `[time, rows]`, lengths, and labels `[rows, time]`."""

    source: np.ndarray
    source_lengths: np.ndarray
    previous: np.ndarray
    labels: np.ndarray
    real: np.ndarray


def _inputs(batch: Batch, bos: int) -> _Inputs:
    source, target = batch["source"], batch["target"]
    previous = np.roll(target.values, 1, axis=1)
    previous[:, 0] = bos
    real = np.arange(target.values.shape[1]) < target.lengths[:, None]
    turned = (np.ascontiguousarray(pieces.T) for pieces in (source.values, previous))
    return _Inputs(next(turned), source.lengths, next(turned), target.values, real)


def _reason(modules: tuple[str, ...]) -> str | None:
    try:
        for module in modules:
            import_module(module)
    except ImportError as error:
        return str(error)
    return None


def _torch_layers(weights: Weights) -> Any:
    """The layers by name, with the weights in their layout: `[outputs, inputs]`, gates in our order."""
    import torch
    from torch import nn

    def lstm(part: str) -> nn.LSTM:
        inputs, columns = weights[f"{part}/kernel"].shape
        layer = nn.LSTM(inputs, columns // 4)
        fill(layer.weight_ih_l0, weights[f"{part}/kernel"].T)
        fill(layer.weight_hh_l0, weights[f"{part}/recurrent_kernel"].T)
        fill(layer.bias_ih_l0, weights[f"{part}/bias"])
        layer.bias_hh_l0 = nn.Parameter(torch.zeros(columns), requires_grad=False)  # Keras has one bias, the sum
        return layer

    def linear(kernel: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
        layer = nn.Linear(kernel.shape[1], kernel.shape[0], bias=bias is not None)
        fill(layer.weight, kernel)
        if bias is not None:
            fill(layer.bias, bias)
        return layer

    def fill(parameter: nn.Parameter, values: np.ndarray) -> None:
        parameter.data.copy_(torch.from_numpy(values))

    def embedding(part: str) -> nn.Embedding:
        return nn.Embedding.from_pretrained(torch.tensor(weights[f"{part}/embeddings"]), freeze=False)

    return {
        "source": embedding("encoder"),
        "encoder": lstm("encoder"),
        "target": embedding("decoder"),
        "decoder": lstm("decoder"),
        "attention": linear(weights["decoder/attention"].T, None),
        "bridge": linear(weights["decoder/bridge_kernel"].T, weights["decoder/bridge_bias"]),
        "combine": linear(weights["decoder/combine_kernel"].T, weights["decoder/combine_bias"]),
        "projection": linear(weights["decoder/projection"], weights["decoder/output_bias"]),
    }


def _torch_named(layers: dict) -> dict[str, tuple[Any, bool]]:
    """The trained parameters by the names of the weights, each with whether its layout is turned against Keras's."""
    named = {
        "encoder/embeddings": (layers["source"].weight, False),
        "decoder/embeddings": (layers["target"].weight, False),
        "decoder/attention": (layers["attention"].weight, True),
        "decoder/projection": (layers["projection"].weight, False),
        "decoder/output_bias": (layers["projection"].bias, False),
    }
    for part in ("encoder", "decoder"):
        layer = layers[part]
        named[f"{part}/kernel"] = layer.weight_ih_l0, True
        named[f"{part}/recurrent_kernel"] = layer.weight_hh_l0, True
        named[f"{part}/bias"] = layer.bias_ih_l0, False
    for name in ("bridge", "combine"):
        named[f"decoder/{name}_kernel"] = layers[name].weight, True
        named[f"decoder/{name}_bias"] = layers[name].bias, False
    return named


def _keras_layout(tensor: Any, turned: bool) -> np.ndarray:
    """A view, so that whoever times the gradients doesn't time a copy."""
    return tensor.T.numpy() if turned else tensor.numpy()


def _flat(nested: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{part}/{name}": each for part, found in nested.items() for name, each in found.items()}


def _jax_encode(weights: dict, source: Any, lengths: Any) -> tuple[Any, Any]:
    """The outputs `[time, rows, units]`, and those of the last pieces `[rows, units]`."""
    import jax.numpy as jnp

    first = jnp.zeros([source.shape[1], weights["recurrent_kernel"].shape[0]])
    outputs = _jax_lstm(weights, source, first)
    return outputs, outputs[lengths - 1, jnp.arange(source.shape[1])]


def _jax_decode(
    weights: dict, encoded: tuple[Any, Any], source_lengths: Any, previous: Any, labels: Any, real: Any
) -> Any:
    """The loss."""
    import jax
    import jax.numpy as jnp

    memory, summary = encoded
    first = jnp.tanh(summary @ weights["bridge_kernel"] + weights["bridge_bias"])
    states = _jax_lstm(weights, previous, first).transpose(1, 0, 2)
    memory = memory.transpose(1, 0, 2)
    scores = states @ (memory @ weights["attention"]).transpose(0, 2, 1)
    padding = jnp.arange(memory.shape[1]) >= source_lengths[:, None]
    contexts = jax.nn.softmax(jnp.where(padding[:, None], _MASKED, scores)) @ memory
    features = jnp.concatenate([states, contexts], -1) @ weights["combine_kernel"] + weights["combine_bias"]
    logits = jnp.tanh(features) @ weights["projection"].T + weights["output_bias"]
    of_labels = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return jnp.sum(real * (jax.nn.logsumexp(logits, -1) - of_labels)) / jnp.sum(real)


def _jax_lstm(weights: dict, pieces: Any, first: Any) -> Any:
    """The outputs `[time, rows, units]` over `pieces [time, rows]` from a first output and a cell of zeros."""
    import jax
    import jax.numpy as jnp

    def step(state: tuple[Any, Any], projected: Any) -> tuple[tuple[Any, Any], Any]:
        output, cell = state
        admit, keep, candidate, expose = jnp.split(projected + output @ weights["recurrent_kernel"], 4, axis=1)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(admit) * jnp.tanh(candidate)
        output = jax.nn.sigmoid(expose) * jnp.tanh(cell)
        return (output, cell), output

    projected = weights["embeddings"][pieces] @ weights["kernel"] + weights["bias"]
    # Not unrolled: all steps unrolled take 2 % less time, and four times as long to compile; fewer are slower.
    _, outputs = jax.lax.scan(step, (first, jnp.zeros_like(first)), projected)
    return outputs
