"""A recurrent decoder with attention, a static graph for each bucket.

Sources: Bahdanau et al. (2015), https://arxiv.org/abs/1409.0473; Luong et al. (2015), https://arxiv.org/abs/1508.04025;
Zoph and Knight (2016), https://arxiv.org/abs/1601.00710, for several encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.layers import AttentionMemory, BahdanauAttention, LuongAttention, Recurrent
from seq2split.layers.configuration import constructor_arguments
from seq2split.layers.dropout import Drop, chosen_seed, dropout
from seq2split.layers.embeddings import check_own, own_or_shared
from seq2split.layers.recurrence import State
from seq2split.layers.steps import Unroll, stacked, take_steps
from seq2split.models.output_projection import Losses, OutputProjection, shifted
from seq2split.models.recurrent_encoder import Encoded, built, recurrent_layer
from seq2split.split.sequences import Sequences

ATTENTIONS = {"luong": LuongAttention, "bahdanau": BahdanauAttention}
Context = tuple[AttentionMemory, ...]
"""What a search reads of each encoder, prepared once."""
Attend = Callable[[tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]]
"""Takes queries `[rows, queries, units]`; returns their contexts, and the attention weights over each encoder."""
_unconverted = tf.autograph.experimental.do_not_convert


@keras.saving.register_keras_serializable(package="seq2split")
class RecurrentDecoder(keras.Layer):
    """Predicts target pieces with recurrent layers that attend to what the encoders returned.

    With Luong's attention the recurrence runs first, and all steps attend at once. With Bahdanau's each step attends
    before the first layer moves, and the context enters that layer. Each of several encoders has an attention of its
    own; their contexts, and their summaries, are concatenated.

    Args:
        vocabulary: The number of target pieces.
        encoded_dim: The size of the encoder's outputs; of several encoders a list of theirs.
        bos: The piece that stands before the first.
        embedding: The size of a piece's embedding.
        units: The size of a layer's output, and of the features that predict a piece.
        layers: The number of recurrent layers.
        cell: `lstm` or `gru`.
        attention: `luong` or `bahdanau`.
        dropout: The share of the embeddings, of each layer's outputs and of the features that is dropped in training.
        tied_embeddings: Whether the embeddings are also the output projection; then `embedding` must equal `units`.
        unroll: Whether the steps of a layer are unrolled in the graph, or in a loop; see `layers.Recurrent`.
        embeddings: The embeddings of another layer, to be shared; by default it has its own.
        label_smoothing: The probability that is spread over all pieces, in training only.
        seed: The seed of the dropout; by default one that `random.seed` repeats.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: There is no such cell, attention or way to unroll; embeddings are tied, but differ in size from the
            features; or the shared ones have another shape.

    Example:
        >>> import tensorflow as tf
        >>> decoder = RecurrentDecoder(vocabulary=50, encoded_dim=8, bos=2, embedding=4, units=8)
        >>> outputs = Sequences(tf.ones([2, 3, 8]), tf.constant([3, 1]))
        >>> target = Sequences(tf.constant([[7, 8, 3], [5, 3, 0]]), tf.constant([3, 2]))
        >>> losses = decoder(Encoded(outputs, summary=tf.ones([2, 8])), target)
        >>> losses.loss.shape.rank, losses.nll.shape.rank
        (0, 0)
    """

    def __init__(
        self,
        vocabulary: int,
        encoded_dim: int | Sequence[int],
        bos: int,
        embedding: int = 256,
        units: int = 256,
        layers: int = 1,
        *,
        cell: str = "lstm",
        attention: str = "luong",
        dropout: float = 0.0,
        tied_embeddings: bool = False,
        unroll: Unroll = "auto",
        embeddings: keras.Variable | None = None,
        label_smoothing: float = 0.0,
        seed: int | None = None,
        **options,
    ):
        super().__init__(autocast=False, **options)
        if tied_embeddings and embedding != units:
            raise ValueError(
                f"RecurrentDecoder: tied embeddings are also the output projection of the features, but embedding = "
                f"{embedding} differs from units = {units}; make them equal, or untie them."
            )
        self.vocabulary, self.embedding, self.units, self.layers = vocabulary, embedding, units, layers
        self.encoded_dim = (encoded_dim,) if isinstance(encoded_dim, int) else tuple(encoded_dim)
        self.bos, self.cell, self.attention, self.unroll = bos, cell, attention, unroll
        self.tied_embeddings, self.label_smoothing = tied_embeddings, label_smoothing
        self.shares_embeddings = embeddings is not None
        self.embeddings = own_or_shared(self, vocabulary, embedding, embeddings)
        self.dropout, self.seed = dropout, chosen_seed(seed)
        first = embedding + sum(self.encoded_dim) if self._attends_first else embedding
        self.stack = [recurrent_layer(self, cell, units, units if depth else first, depth) for depth in range(layers)]
        self.attentions = [_attention(self, attention, units, size, at) for at, size in enumerate(self.encoded_dim)]
        self.bridge = _dense(self, sum(self.encoded_dim), units * layers, "bridge")
        self.combine = _dense(self, units + sum(self.encoded_dim), units, "combine")
        self.output_projection = OutputProjection(
            self, self.embeddings, units, tied=tied_embeddings, label_smoothing=label_smoothing
        )

    @_unconverted
    def call(self, *inputs: Encoded | Sequences, training: bool = False) -> Losses:
        """Return the losses of a batch, each piece predicted from those before it.

        Args:
            *inputs: What each encoder returned, and last the target: pieces `[rows, time]`, each row ending in the
                end-of-sentence piece, and lengths `[rows]`, integers.
            training: Whether to drop, and to smooth labels.

        Returns:
            The losses, summed over the real target positions.
        """
        *encoded, target = inputs
        labels = tf.transpose(target.values)
        drop = dropout(self.dropout * training, self.seed, labels, self.output_projection.bias.value)
        context, state = self.start(*encoded)
        features, _, _ = self._decode(shifted(labels, self.bos, axis=0), state, self._attending(context), drop)
        time = target.values.shape[1] or tf.shape(target.values)[1]
        real = tf.transpose(tf.sequence_mask(target.lengths, time))
        return self.output_projection.losses(features, labels, real, training)

    @_unconverted
    def start(self, *encoded: Encoded) -> tuple[Context, tuple[State, ...]]:
        """Return what `step` begins with.

        Args:
            *encoded: What each encoder returned.

        Returns:
            The outputs of each encoder, prepared for attention, and the first state of each layer.
        """
        pairs = zip(self.attentions, encoded, strict=True)
        context = tuple(attention.prepare(*each.outputs) for attention, each in pairs)
        summary = tf.concat([each.summary for each in encoded], -1)
        outputs = tf.split(tf.cast(self.bridge(summary), self.variable_dtype), len(self.stack), axis=1)
        state = tuple(
            (output, *layer.zero_state(tf.shape(output)[0])[1:])
            for layer, output in zip(self.stack, outputs, strict=True)
        )
        return context, state

    @_unconverted
    def step(
        self, context: Context, state: tuple[State, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[State, ...]]:
        """Return the logits of the next piece, and the next state; see `protocol.StepDecoder`."""
        return self.step_with_weights(context, state, pieces)[:2]

    @_unconverted
    def step_with_weights(
        self, context: Context, state: tuple[State, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[State, ...], tuple[tf.Tensor, ...]]:
        """Return what `step` returns, and the attention weights; see `protocol.AttentiveDecoder`."""
        attend = partial(self._attend_together, context)
        features, weights, state = self._decode(pieces[None], state, attend, drop=lambda values, _: values)
        return self.output_projection.logits(features[0]), state, tuple(each[:, 0] for each in weights)

    def get_config(self) -> dict:
        """Return what the decoder was made with; embeddings of another layer can't be told, and are an error."""
        check_own(self, self.shares_embeddings)
        return super().get_config() | constructor_arguments(self, "embeddings")

    @property
    def _attends_first(self) -> bool:
        return self.attention == "bahdanau"

    def _decode(
        self, pieces: tf.Tensor, state: tuple[State, ...], attend: Attend, drop: Drop
    ) -> tuple[tf.Tensor, list[tf.Tensor], tuple[State, ...]]:
        """Run all steps.

        Args:
            pieces: `[time, rows]`.
            state: The state of each layer before the first step.
            attend: The attention.
            drop: The dropout.

        Returns:
            The features that predict what follows each piece, `[time, rows, units]`; the attention weights over each
            encoder, `[rows, time, source time]` with Luong's attention, those of the last step alone with Bahdanau's;
            and the state after the last step.
        """
        values = drop(tf.gather(self.embeddings.value, pieces), 0)
        contexts, after = None, []
        for depth, layer in enumerate(self.stack):
            if depth == 0 and self._attends_first:
                values, contexts, weights, final = self._attend_and_step(layer, values, state[0], attend)
            else:
                values, final = layer(values, None, state[depth])
            values = drop(values, depth + 1)
            after.append(final)
        if contexts is None:
            contexts, weights = attend(tf.transpose(values, [1, 0, 2]))
            contexts = tf.transpose(contexts, [1, 0, 2])
        features = self.combine(tf.concat([values, contexts], -1))
        return drop(tf.cast(features, self.variable_dtype), len(self.stack) + 1), weights, tuple(after)

    def _attending(self, context: Context) -> Attend:
        """Return the attention to all encoders, whose contexts are put side by side. Its weights are read here."""
        attended = [(each.score_weights(), memory) for each, memory in zip(self.attentions, context, strict=True)]

        def attend(queries: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            read = [
                attention(queries, memory, score_weights)
                for attention, (score_weights, memory) in zip(self.attentions, attended, strict=True)
            ]
            return tf.concat([contexts for contexts, _ in read], -1), [weights for _, weights in read]

        return attend

    def _attend_together(self, context: Context, queries: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Attend with one query a row, several rows to a sentence: they become its queries.

        So an encoder's outputs are read once for all hypotheses of a sentence, and never repeated.
        """
        sentences = tf.shape(context[0].keys)[0]
        found = self._attending(context)(tf.reshape(queries, [sentences, -1, queries.shape[-1]]))
        return tf.nest.map_structure(lambda each: tf.reshape(each, [-1, 1, _last_size(each)]), found)

    def _attend_and_step(
        self, layer: Recurrent, values: tf.Tensor, state: State, attend: Attend
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], State]:
        """Run a layer whose every step attends first.

        The embeddings' share of the layer's kernel is applied to all steps at once, the context's at each step.

        Returns:
            The outputs and the contexts, `[time, rows, ...]`; the attention weights, and the state, of the last step.
        """
        embeddings, contexts = tf.split(layer.kernel.value, [values.shape[-1], -1])
        projected = layer.product(values, embeddings) + layer.bias.value
        recurrent = layer.recurrent_weights()
        contexts = tf.cast(contexts, self.compute_dtype)

        def step(state: State, projected: tf.Tensor) -> tuple[State, tuple[tf.Tensor, ...]]:
            context, weights = attend(state[0][:, None])
            context = context[:, 0]
            state = layer.step(projected + layer.product(context, contexts), state, recurrent)
            return state, (state[0], context, *weights)

        order = range(values.shape[0])
        state, (outputs, read, *weights) = take_steps(step, state, [projected], order, self.unroll)
        return stacked(outputs), stacked(read), [each[-1] for each in weights], state


def _last_size(tensor: tf.Tensor) -> int | tf.Tensor:
    """Return the size of the last axis, static where it is known."""
    return tf.shape(tensor)[-1] if tensor.shape[-1] is None else tensor.shape[-1]


def _attention(
    decoder: RecurrentDecoder, kind: str, units: int, encoded_dim: int, place: int
) -> LuongAttention | BahdanauAttention:
    check_choice(f"{type(decoder).__name__}: attention", kind, ATTENTIONS)
    name = f"attention{place + 1 if place else ''}"
    return built(decoder, ATTENTIONS[kind](units, dtype=decoder.dtype_policy, name=name), encoded_dim)


def _dense(decoder: RecurrentDecoder, inputs: int, units: int, name: str) -> keras.layers.Dense:
    return built(decoder, keras.layers.Dense(units, "tanh", dtype=decoder.dtype_policy, name=name), inputs)
