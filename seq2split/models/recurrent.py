"""A recurrent encoder and an attention decoder, as Keras layers to be made into two parts.

They are unrolled, so that each bucket has its own static graph. Sources: Bahdanau et al. (2015),
https://arxiv.org/abs/1409.0473 and Luong et al. (2015), https://arxiv.org/abs/1508.04025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.layers import (
    GRU,
    LSTM,
    AttentionMemory,
    BahdanauAttention,
    LuongAttention,
    projected_cross_entropy,
    projected_logits,
)
from seq2split.layers.attention import Attention
from seq2split.layers.dropout import chosen_seed, dropout
from seq2split.layers.embeddings import own_or_shared
from seq2split.layers.recurrent import State
from seq2split.layers.weights import add_weight
from seq2split.split.sequences import Sequences

CELLS = {"lstm": LSTM, "gru": GRU}
ATTENTIONS = {"luong": LuongAttention, "bahdanau": BahdanauAttention}
Memories = tuple[AttentionMemory, ...]
Attend = Callable[[tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]]
_unconverted = tf.autograph.experimental.do_not_convert


class Losses(NamedTuple):
    """The summed loss, and the negative log-likelihood."""

    loss: tf.Tensor
    nll: tf.Tensor


class Encoded(NamedTuple):
    """What the encoder hands to the decoder.

    Attributes:
        memory: The outputs of its last layer, `[rows, time, features]`, and the source lengths.
        summary: Its final outputs, `[rows, features]`.
    """

    memory: Sequences
    summary: tf.Tensor


class RecurrentEncoder(keras.Layer):
    """Embeds source pieces and runs recurrent layers over them.

    Args:
        vocabulary: Number of source pieces.
        embedding: Size of a piece's embedding.
        units: Size of a layer's output in all; a bidirectional layer gives half of it to each direction.
        layers: Number of recurrent layers.
        cell: `lstm` or `gru`.
        bidirectional: Whether each layer runs both ways.
        dropout: Share of the embeddings and of each layer's outputs that is dropped in training.
        embeddings: Of another layer, to be shared; by default it has its own.
        seed: Of the dropout.
        **options: Of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: There is no such cell, the units cannot be halved, or the shared embeddings have another shape.

    Example:
        >>> import tensorflow as tf
        >>> encoder = RecurrentEncoder(vocabulary=50, embedding=4, units=8)
        >>> source = Sequences(tf.constant([[7, 8, 9], [5, 0, 0]]), tf.constant([3, 1]))
        >>> encoded = encoder(source)
        >>> encoded.memory.values.shape.as_list(), encoded.summary.shape.as_list()
        ([2, 3, 8], [2, 8])
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 256,
        units: int = 256,
        layers: int = 1,
        *,
        cell: str = "lstm",
        bidirectional: bool = True,
        dropout: float = 0.0,
        embeddings: keras.Variable | None = None,
        seed: int | None = None,
        **options,
    ):
        super().__init__(autocast=False, **options)
        directions = (False, True) if bidirectional else (False,)
        if units % len(directions):
            raise ValueError(
                f"RecurrentEncoder: units = {units} cannot be halved between two directions; make it even."
            )
        self.embeddings = own_or_shared(self, vocabulary, embedding, embeddings)
        self.dropout, self.seed = dropout, chosen_seed(seed)
        self.levels = [
            [
                _recurrent(self, cell, units // len(directions), units if depth else embedding, depth, reverse)
                for reverse in directions
            ]
            for depth in range(layers)
        ]

    @_unconverted
    def call(self, source: Sequences, training: bool = False) -> Encoded:
        """Encodes a batch.

        Args:
            source: Pieces `[rows, time]` and lengths `[rows]`, integers.
            training: Whether to drop.

        Returns:
            What the decoder reads.
        """
        drop = dropout(self.dropout * training, self.seed, source.values, self.levels[0][0].bias.value)
        values = drop(tf.gather(self.embeddings.value, tf.transpose(source.values)), 0)
        for depth, level in enumerate(self.levels):
            runs = [layer(values, source.lengths) for layer in level]
            values = drop(tf.concat([outputs for outputs, _ in runs], -1), depth + 1)
        summary = tf.concat([state[0] for _, state in runs], -1)
        return Encoded(Sequences(tf.transpose(values, [1, 0, 2]), source.lengths), summary)


class RecurrentDecoder(keras.Layer):
    """Predicts target pieces with recurrent layers that attend over the encoder's memory.

    With Luong's attention the recurrence runs first and attention reads the memory for all steps at once. With
    Bahdanau's each step reads it before the first layer moves, and the context enters that layer. Of several encoders
    each has an attention of its own; their contexts, and their summaries, are concatenated (Zoph and Knight, 2016,
    https://arxiv.org/abs/1601.00710).

    Args:
        vocabulary: Number of target pieces.
        memory: Size of the encoder's outputs; of several encoders a list of theirs.
        bos: The piece that stands before the first.
        embedding: Size of a piece's embedding.
        units: Size of a layer's output, and of the features that predict a piece.
        layers: Number of recurrent layers.
        cell: `lstm` or `gru`.
        attention: `luong` or `bahdanau`.
        dropout: Share of the embeddings, of each layer's outputs and of the features that is dropped in training.
        tied_embeddings: Whether the embeddings are also the output projection; then `embedding` must equal `units`.
        embeddings: Of another layer, to be shared; by default it has its own.
        label_smoothing: As of `projected_cross_entropy`; in training only.
        seed: Of the dropout.
        **options: Of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: There is no such cell or attention; embeddings are tied, but differ in size from the features; or
            the shared ones have another shape.

    Example:
        >>> import tensorflow as tf
        >>> decoder = RecurrentDecoder(vocabulary=50, memory=8, bos=2, embedding=4, units=8)
        >>> memory = Sequences(tf.ones([2, 3, 8]), tf.constant([3, 1]))
        >>> target = Sequences(tf.constant([[7, 8, 3], [5, 3, 0]]), tf.constant([3, 2]))
        >>> loss, nll = decoder(Encoded(memory, tf.ones([2, 8])), target)
        >>> loss.shape.rank, nll.shape.rank
        (0, 0)
    """

    def __init__(
        self,
        vocabulary: int,
        memory: int | Sequence[int],
        bos: int,
        embedding: int = 256,
        units: int = 256,
        layers: int = 1,
        *,
        cell: str = "lstm",
        attention: str = "luong",
        dropout: float = 0.0,
        tied_embeddings: bool = False,
        embeddings: keras.Variable | None = None,
        label_smoothing: float = 0.0,
        seed: int | None = None,
        **options,
    ):
        super().__init__(autocast=False, **options)
        if tied_embeddings and embedding != units:
            raise ValueError(
                f"RecurrentDecoder: tied embeddings are also the output projection of the features, but embedding = {embedding} "
                f"differs from units = {units}; make them equal, or untie them."
            )
        self.bos, self.label_smoothing = bos, label_smoothing
        self.attends_first = attention == "bahdanau"
        self.embeddings = own_or_shared(self, vocabulary, embedding, embeddings)
        self.dropout, self.seed = dropout, chosen_seed(seed)
        memories = [memory] if isinstance(memory, int) else list(memory)
        first = embedding + sum(memories) if self.attends_first else embedding
        self.levels = [_recurrent(self, cell, units, units if depth else first, depth) for depth in range(layers)]
        self.attentions = [_attention(self, attention, units, each, at) for at, each in enumerate(memories)]
        self.bridge = _dense(self, sum(memories), units * layers, "bridge")
        self.combine = _dense(self, units + sum(memories), units, "combine")
        self.projection = None if tied_embeddings else add_weight(self, "projection", (vocabulary, units))
        self.output_bias = add_weight(self, "output_bias", (vocabulary,), "zeros")

    @_unconverted
    def call(self, *inputs: Encoded | Sequences, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of a batch, each piece predicted from those before it.

        Args:
            *inputs: What each encoder handed over, and last the target: pieces `[rows, time]`, ending in the
                end-of-sentence piece, and lengths `[rows]`, integers.
            training: Whether to drop, and to smooth labels.

        Returns:
            The loss and the negative log-likelihood in nats, each summed over the real target positions.
        """
        *encoded, target = inputs
        labels = tf.transpose(target.values)
        previous = self._previous(labels)
        drop = dropout(self.dropout * training, self.seed, labels, self.output_bias.value)
        attend = partial(self._attend, self._memories(encoded))
        features, _, _ = self._decode(previous, self._start(encoded), attend, drop)
        losses = projected_cross_entropy(
            tf.reshape(features, [-1, features.shape[-1]]),
            self._projection(),
            self.output_bias.value,
            tf.reshape(labels, [-1]),
            smoothing=self.label_smoothing if training else 0.0,
            compute_dtype=self.compute_dtype,
        )
        time = target.values.shape[1] or tf.shape(target.values)[1]
        real = tf.transpose(tf.sequence_mask(target.lengths, time, features.dtype))
        return Losses(*(tf.reduce_sum(loss * tf.reshape(real, [-1])) for loss in losses))

    @_unconverted
    def align(self, *inputs: Encoded | Sequences) -> list[tf.Tensor]:
        """The attention weights with which each piece of a target is predicted, nothing dropped.

        Args:
            *inputs: As of `call`.

        Returns:
            For each encoder the weights of its outputs, `[rows, target time, source time]`; they add up to one over the
            real source positions.
        """
        *encoded, target = inputs
        memories, read = self._memories(encoded), []

        def attend(queries: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            contexts, weights = self._attend(memories, queries)
            read.append(weights)
            return contexts, weights

        previous = self._previous(tf.transpose(target.values))
        self._decode(previous, self._start(encoded), attend, drop=lambda values, _: values)
        return [tf.concat(each, 1) for each in zip(*read, strict=True)]

    @_unconverted
    def start(self, *encoded: Encoded) -> tuple[Memories, tuple[State, ...]]:
        """What `step` begins with: the prepared memory of each encoder, and the first state of each layer."""
        return self._memories(encoded), self._start(encoded)

    @_unconverted
    def step(
        self, memories: Memories, state: tuple[State, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[State, ...]]:
        """One step of a search.

        Several hypotheses may share the memory of their sentence: then those of the first sentence stand first, and
        every sentence has as many.

        Args:
            memories: As of `start`, `[sentences, ...]`.
            state: As of `start`, or of the step before, `[rows, ...]`.
            pieces: The last piece of each row, `[rows]`, integers; `bos` at first.

        Returns:
            The logits of the next piece, `[rows, vocabulary]`, and the next state.
        """
        logits, state, _ = self.step_with_weights(memories, state, pieces)
        return logits, state

    @_unconverted
    def step_with_weights(
        self, memories: Memories, state: tuple[State, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[State, ...], tuple[tf.Tensor, ...]]:
        """What `step` returns, and for each memory the attention weights of the step.

        Args:
            memories: As of `step`.
            state: As of `step`.
            pieces: As of `step`.

        Returns:
            The logits, the next state, and for each memory `[rows, time]`, zero at padding.
        """
        attend = partial(self._attend_together, memories)
        features, weights, state = self._decode(pieces[None], state, attend, drop=lambda values, _: values)
        logits = projected_logits(features[0], self._projection(), self.output_bias.value, self.compute_dtype)
        return logits, state, tuple(each[:, 0] for each in weights)

    def _previous(self, labels: tf.Tensor) -> tf.Tensor:
        """What stands before each of `labels [time, rows]`."""
        return tf.concat([tf.fill(tf.shape(labels[:1]), tf.cast(self.bos, labels.dtype)), labels[:-1]], 0)

    def _memories(self, encoded: Sequence[Encoded]) -> Memories:
        pairs = zip(self.attentions, encoded, strict=True)
        return tuple(attention.prepare(*each.memory) for attention, each in pairs)

    def _start(self, encoded: Sequence[Encoded]) -> tuple[State, ...]:
        summary = tf.concat([each.summary for each in encoded], -1)
        outputs = tf.split(tf.cast(self.bridge(summary), self.variable_dtype), len(self.levels), axis=1)
        return tuple(
            (output, *layer.zero_state(tf.shape(output)[0])[1:])
            for layer, output in zip(self.levels, outputs, strict=True)
        )

    def _decode(
        self,
        pieces: tf.Tensor,
        state: tuple[State, ...],
        attend: Attend,
        drop: Callable[[tf.Tensor, int], tf.Tensor],
    ) -> tuple[tf.Tensor, list[tf.Tensor], tuple[State, ...]]:
        """The features `[time, rows, units]` that predict what follows each of `pieces [time, rows]`.

        And the attention weights of the last positions: of all with Luong's attention, of one with Bahdanau's.
        """
        values = drop(tf.gather(self.embeddings.value, pieces), 0)
        contexts, after = None, []
        for depth, layer in enumerate(self.levels):
            if depth == 0 and self.attends_first:
                values, contexts, weights, final = self._attend_and_step(layer, values, state[0], attend)
            else:
                values, final = layer(values, None, state[depth])
            values = drop(values, depth + 1)
            after.append(final)
        if contexts is None:
            contexts, weights = attend(tf.transpose(values, [1, 0, 2]))
            contexts = tf.transpose(contexts, [1, 0, 2])
        features = self.combine(tf.concat([values, contexts], -1))
        return drop(tf.cast(features, self.variable_dtype), len(self.levels) + 1), weights, tuple(after)

    def _attend(self, memories: Memories, queries: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The contexts `[rows, queries, ...]` of queries, those of all memories side by side, and their weights."""
        pairs = zip(self.attentions, memories, strict=True)
        read = [attention(queries, memory) for attention, memory in pairs]
        return tf.concat([contexts for contexts, _ in read], -1), [weights for _, weights in read]

    def _attend_together(self, memories: Memories, queries: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """As `_attend`, of one query a row, where several rows share a memory: they become its queries.

        So memories are read once for all hypotheses of a sentence, and never repeated.
        """
        sentences = tf.shape(memories[0].keys)[0]
        found = self._attend(memories, tf.reshape(queries, [sentences, -1, queries.shape[-1]]))
        return tf.nest.map_structure(lambda each: tf.reshape(each, [-1, 1, _last(each)]), found)

    def _attend_and_step(
        self, layer: LSTM | GRU, values: tf.Tensor, state: State, attend: Attend
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], State]:
        """Outputs and contexts `[time, rows, ...]` of a layer whose every step reads the memories first.

        The embeddings' share of the layer's kernel is applied to all steps at once, the context's at each step. The
        attention weights are those of the last step.
        """
        embeddings, contexts = tf.split(layer.kernel.value, [values.shape[-1], -1])
        projected = layer.product(values, embeddings) + layer.bias.value
        recurrent = tf.cast(layer.recurrent_kernel.value, self.compute_dtype)
        contexts = tf.cast(contexts, self.compute_dtype)
        outputs, read = [], []
        for step in tf.unstack(projected):
            context, weights = attend(state[0][:, None])
            read.append(context[:, 0])
            state = layer.step(step + layer.product(read[-1], contexts), state, recurrent)
            outputs.append(state[0])
        return tf.stack(outputs), tf.stack(read), weights, state

    def _projection(self) -> tf.Tensor:
        return (self.embeddings if self.projection is None else self.projection).value


def _last(tensor: tf.Tensor) -> int | tf.Tensor:
    """The size of the last axis, as it is known."""
    return tf.shape(tensor)[-1] if tensor.shape[-1] is None else tensor.shape[-1]


def _recurrent(layer: keras.Layer, cell: str, units: int, inputs: int, depth: int, reverse: bool = False) -> LSTM | GRU:
    check_choice(f"{type(layer).__name__}: cell", cell, CELLS)
    name = f"{cell}_{depth}{'_reverse' if reverse else ''}"
    recurrent = CELLS[cell](units, reverse=reverse, dtype=layer.dtype_policy, name=name)
    return _built(layer, recurrent, inputs)


def _attention(layer: keras.Layer, kind: str, units: int, memory: int, place: int) -> Attention:
    check_choice(f"{type(layer).__name__}: attention", kind, ATTENTIONS)
    attend = ATTENTIONS[kind](units, dtype=layer.dtype_policy, name=f"attention{place + 1 if place else ''}")
    return _built(layer, attend, memory)


def _dense(layer: keras.Layer, inputs: int, units: int, name: str) -> keras.layers.Dense:
    return _built(layer, keras.layers.Dense(units, "tanh", dtype=layer.dtype_policy, name=name), inputs)


def _built(layer: keras.Layer, inner: keras.Layer, inputs: int) -> keras.Layer:
    """Builds `inner` for inputs `[..., inputs]`, its variables named after `layer`."""
    with keras.name_scope(layer.name):
        inner.build((None, None, inputs))
    return inner
