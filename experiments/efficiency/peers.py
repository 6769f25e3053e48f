"""The measured models in PyTorch and in JAX, from the weights of ours, so that only the frameworks differ.

Each is made in a process of its own, which holds no TensorFlow (`peer_server`); nothing here needs it.

They are `RecurrentEncoder(..., bidirectional=False)` with `RecurrentDecoder(...)` of `seq2split.models`, one LSTM layer
each with Luong's attention, and `TransformerEncoder(...)` with `TransformerDecoder(...)`; no dropout, no label
smoothing. Each peer is written as one would write it there for speed: PyTorch with its fused `nn.LSTM` and, in float32,
`scaled_dot_product_attention`, in eager mode or compiled by `torch.compile`; JAX compiled for each padded shape, and
split by `jax.vjp` as ours is split into parts.
Padding needs no mask in the recurrences, since both run forwards: what comes after a row's last piece is never read.
For the same reason the Transformer's decoder needs none where it attends to itself.

Every row holds at least one piece on either side. Adam differs from Keras's in where its epsilon stands, so that
losses and gradients agree with ours to rounding, but trajectories drift apart slowly.

PyTorch and JAX are imported when a subject is made, for neither comes with the project.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efficiency.naming import Weights, by_part, flat
from efficiency.peer_inputs import Batch, Inputs
from seq2split.common.choices import check_choice

PRECISIONS = ("float32", "mixed_bfloat16")
SHAPES = ("static", "dynamic")
EPSILON = 1e-7  # Adam's, as in Keras
_SHAPES_AT_MOST = 512  # that one function is compiled for; more would be run in eager mode, and nobody told


class TorchSubject:
    """A model in PyTorch, one padded batch at a time.

    Args:
        weights: See `weights.weights_of`.
        bos: The piece that stands before the first.
        precision: `float32`; or `mixed_bfloat16`, which is `torch.autocast` over the forward.
        threads: Of PyTorch, in the whole process.
        learning_rate: Of Adam.
        heads: Of a Transformer's attention; `None` for the LSTM.
        shapes: How `torch.compile` takes the model: `static`, for each shape of a batch, or `dynamic`, for all; `None`
            for eager mode.

    Raises:
        ValueError: There is no such precision, or no such `shapes`.
    """

    def __init__(
        self,
        weights: Weights,
        bos: int,
        precision: str,
        threads: int,
        learning_rate: float,
        heads: int | None = None,
        shapes: str | None = None,
    ):
        import torch

        from efficiency import torch_networks as networks

        check_choice("precision", precision, PRECISIONS)
        torch.set_num_threads(threads)
        self._bos, self._mixed, self._tensors = bos, precision == "mixed_bfloat16", networks.Tensors.of
        self._named, self._in_keras_layout = networks.parameters_of(weights), networks.keras_layout
        network = networks.transformer(self._named, heads) if heads else networks.recurrent(self._named)
        loss = networks.summed_loss(network)
        self._summed = loss if shapes is None else _compiled(loss, shapes)
        self._optimizer = torch.optim.Adam(self._named.values(), learning_rate, eps=EPSILON, fused=True)

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
        """Run forward and backward.

        Args:
            batch: `source` and `target`; each `[rows, time]` and `[rows]`, int32.

        Returns:
            The loss in nats of a target piece on average, and the gradients by the names of the weights.
        """
        loss = self._backward(batch)
        return loss, {name: self._in_keras_layout(name, each.grad) for name, each in self._named.items()}

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss before it."""
        loss = self._backward(batch)
        self._optimizer.step()
        return loss

    def weights(self) -> Weights:
        """Copy the weights as they are now, as in `weights.weights_of`."""
        return {name: self._in_keras_layout(name, each.detach()).copy() for name, each in self._named.items()}

    def _backward(self, batch: Batch) -> float:
        """Leave the gradients at the parameters."""
        import torch

        self._optimizer.zero_grad(set_to_none=True)
        inputs = Inputs.of(batch, self._bos)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._mixed):
            summed = self._summed(self._tensors(inputs))
        loss = summed / int(inputs.real.sum())
        loss.backward()
        return loss.item()


class JaxSubject:
    """A model in JAX, float32, split in two by `jax.vjp` and compiled for each padded shape.

    The encoder's forward hands its residuals to its backward inside the function that `jax.vjp` returns. Its forward
    and backward are compiled for each source shape; the decoder, whose loss and gradients are one function, for each
    pair.

    Args:
        weights: See `weights.weights_of`.
        bos: The piece that stands before the first.
        learning_rate: Of Adam.
        heads: Of a Transformer's attention; `None` for the LSTM.
    """

    def __init__(self, weights: Weights, bos: int, learning_rate: float, heads: int | None = None):
        import jax
        import optax

        from efficiency import jax_networks as networks

        network = networks.transformer(heads) if heads else networks.recurrent()
        optimizer = optax.adam(learning_rate, eps=EPSILON)

        def loss(weights: dict, encoded: Any, lengths: Any, previous: Any, labels: Any, real: Any) -> Any:
            return networks.cross_entropy(network.decode(weights, encoded, lengths, previous), labels, real)

        def update(weights: dict, state: Any, gradients: dict) -> tuple[dict, Any]:
            updates, state = optimizer.update(gradients, state)
            return optax.apply_updates(weights, updates), state

        self._bos = bos
        self._weights = by_part({name: jax.numpy.array(each) for name, each in weights.items()})
        self._state = optimizer.init(self._weights)
        self._encode = jax.jit(lambda weights, *given: jax.vjp(lambda each: network.encode(each, *given), weights))
        self._encode_back = jax.jit(lambda back, cotangents: back(cotangents)[0])
        self._decode = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        self._update = jax.jit(update, donate_argnums=(0, 1))

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
        """See `TorchSubject`."""
        loss, gradients = self._run(batch)
        return float(loss), {name: np.asarray(each) for name, each in flat(gradients).items()}

    def step(self, batch: Batch) -> float:
        """See `TorchSubject`; done when it returns."""
        import jax

        loss, gradients = self._run(batch)
        self._weights, self._state = jax.block_until_ready(self._update(self._weights, self._state, gradients))
        return float(loss)

    def weights(self) -> Weights:
        """See `TorchSubject`."""
        return {name: np.array(each) for name, each in flat(self._weights).items()}

    def _run(self, batch: Batch) -> tuple[Any, dict]:
        source, lengths, *target = Inputs.of(batch, self._bos)
        encoded, encode_back = self._encode(self._weights["encoder"], source, lengths)
        loss, (decoder, encoded_ct) = self._decode(self._weights["decoder"], encoded, lengths, *target)
        return loss, {"encoder": self._encode_back(encode_back, encoded_ct), "decoder": decoder}


def _compiled(function: Any, shapes: str) -> Any:
    """A function as `torch.compile` makes it, for each shape of its arguments or for all."""
    import torch

    check_choice("shapes", shapes, SHAPES)
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = _SHAPES_AT_MOST
    return torch.compile(function, dynamic=shapes == "dynamic")
