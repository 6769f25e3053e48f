"""A Transformer encoder and decoder, as Keras layers to be made into parts.

Sources: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762; Xiong et al. (2020), https://arxiv.org/abs/2002.04745,
for normalization before each sublayer; Press and Wolf (2017), https://arxiv.org/abs/1608.05859, for tied embeddings;
Libovicky et al. (2018), https://arxiv.org/abs/1811.04716, for several encoders, which each layer of the decoder reads
one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.layers import projected_cross_entropy, projected_logits
from seq2split.layers.dropout import chosen_seed
from seq2split.layers.embeddings import Positions, own_or_shared
from seq2split.layers.multi_head_attention import KeysValues, LayerNormalization, causal_mask, padding_mask
from seq2split.layers.transformer_layer import DropoutMasks, DropoutRates, TransformerLayer
from seq2split.layers.weights import add_weight
from seq2split.split.sequences import Sequences

_unconverted = tf.autograph.experimental.do_not_convert


class Losses(NamedTuple):
    """The summed loss, and the negative log-likelihood."""

    loss: tf.Tensor
    nll: tf.Tensor


class Encoded(NamedTuple):
    """What the encoder hands to the decoder.

    Attributes:
        memory: The outputs of its last layer, `[rows, time, units]`, and the source lengths.
    """

    memory: Sequences


class CrossAttentionCache(NamedTuple):
    """What a decoder's layers read of one encoder, prepared once for all steps of a search.

    Attributes:
        layers: The keys and values of each layer.
        mask: `[rows, 1, 1, time]`.
    """

    layers: tuple[KeysValues, ...]
    mask: tf.Tensor


class TransformerEncoder(keras.Layer):
    """Embeds source pieces and lets each attend to all of its sentence.

    Args:
        vocabulary: Number of source pieces.
        units: Size of the embeddings and of what crosses between sublayers.
        layers: Number of layers.
        heads: Heads of each attention.
        feedforward: Inner size of the feed-forward layers.
        norm: `pre` normalizes what enters a sublayer, `post` the sum with what leaves it.
        positions: `sinusoidal`, or `learned` for up to `longest`.
        longest: The most positions that can be learned.
        rates: Of dropout.
        embeddings: Of another layer, to be shared; by default it has its own.
        seed: Of the dropout.
        **options: Of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: The units cannot be divided among the heads, there is no such `norm` or `positions`, or the shared
            embeddings have another shape.

    Example:
        >>> import tensorflow as tf
        >>> encoder = TransformerEncoder(vocabulary=50, units=8, layers=2, heads=2, feedforward=16)
        >>> encoded = encoder(Sequences(tf.constant([[7, 8, 9], [5, 0, 0]]), tf.constant([3, 1])))
        >>> encoded.memory.values.shape.as_list()
        [2, 3, 8]
    """

    def __init__(
        self,
        vocabulary: int,
        units: int = 256,
        layers: int = 3,
        heads: int = 4,
        feedforward: int = 1024,
        *,
        norm: str = "pre",
        positions: str = "sinusoidal",
        longest: int = 512,
        rates: DropoutRates = DropoutRates(),  # noqa: B008 it is immutable
        embeddings: keras.Variable | None = None,
        seed: int | None = None,
        **options,
    ):
        super().__init__(autocast=False, **options)
        self.rates, self.seed = rates, chosen_seed(seed)
        self.embeddings = own_or_shared(self, vocabulary, units, embeddings)
        self.positions = Positions.of(self, positions, longest, units)
        self.levels = [
            TransformerLayer(units, heads, feedforward, [], norm, dtype=self.dtype_policy, name=f"level_{depth}")
            for depth in range(layers)
        ]
        _build(self, self.levels, units)
        self.last = _last_norm(self, norm, units)

    @_unconverted
    def call(self, source: Sequences, training: bool = False) -> Encoded:
        """Encodes a batch.

        Args:
            source: Pieces `[rows, time]` and lengths `[rows]`, integers.
            training: Whether to drop.

        Returns:
            What the decoder reads.
        """
        time = source.values.shape[1] or tf.shape(source.values)[1]
        drops = DropoutMasks(self.rates, training, self.seed, source.values, self.levels[0].inner.bias.value)
        values = self.positions.embed(self.embeddings.value, source.values, tf.range(time))
        values = drops.residual(values)
        mask = padding_mask(source.lengths, time, self.variable_dtype)
        for level in self.levels:
            values, _ = level(values, mask, (), drops=drops)
        return Encoded(Sequences(values if self.last is None else self.last(values), source.lengths))


class TransformerDecoder(keras.Layer):
    """Predicts target pieces; each attends to those before it and to what the encoders hand over.

    Args:
        vocabulary: Number of target pieces.
        memory: Size of the encoder's outputs; of several encoders a list of theirs.
        bos: The piece that stands before the first.
        units: Size of the embeddings and of what crosses between sublayers.
        layers: Number of layers.
        heads: Heads of each attention.
        feedforward: Inner size of the feed-forward layers.
        norm: As of the encoder.
        positions: As of the encoder.
        longest: As of the encoder.
        rates: As of the encoder.
        tied_embeddings: Whether the embeddings are also the output projection.
        embeddings: Of another layer, to be shared; by default it has its own.
        label_smoothing: As of `projected_cross_entropy`; in training only.
        seed: Of the dropout.
        **options: Of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: As of the encoder.

    Example:
        >>> import tensorflow as tf
        >>> decoder = TransformerDecoder(50, memory=8, bos=2, units=8, layers=2, heads=2, feedforward=16)
        >>> memory = Sequences(tf.ones([2, 3, 8]), tf.constant([3, 1]))
        >>> target = Sequences(tf.constant([[7, 8, 3], [5, 3, 0]]), tf.constant([3, 2]))
        >>> loss, nll = decoder(Encoded(memory), target)
        >>> loss.shape.rank, nll.shape.rank
        (0, 0)
    """

    def __init__(
        self,
        vocabulary: int,
        memory: int | Sequence[int],
        bos: int,
        units: int = 256,
        layers: int = 3,
        heads: int = 4,
        feedforward: int = 1024,
        *,
        norm: str = "pre",
        positions: str = "sinusoidal",
        longest: int = 512,
        rates: DropoutRates = DropoutRates(),  # noqa: B008 it is immutable
        tied_embeddings: bool = False,
        embeddings: keras.Variable | None = None,
        label_smoothing: float = 0.0,
        seed: int | None = None,
        **options,
    ):
        super().__init__(autocast=False, **options)
        self.bos, self.label_smoothing = bos, label_smoothing
        self.rates, self.seed = rates, chosen_seed(seed)
        self.embeddings = own_or_shared(self, vocabulary, units, embeddings)
        self.positions = Positions.of(self, positions, longest, units)
        memories = [memory] if isinstance(memory, int) else list(memory)
        self.levels = [
            TransformerLayer(units, heads, feedforward, memories, norm, dtype=self.dtype_policy, name=f"level_{depth}")
            for depth in range(layers)
        ]
        _build(self, self.levels, units)
        self.last = _last_norm(self, norm, units)
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
        drops = DropoutMasks(self.rates, training, self.seed, target.values, self.output_bias.value)
        features = self._decode(encoded, target, drops)
        losses = projected_cross_entropy(
            tf.reshape(features, [-1, features.shape[-1]]),
            self._projection(),
            self.output_bias.value,
            tf.reshape(target.values, [-1]),
            smoothing=self.label_smoothing if training else 0.0,
            compute_dtype=self.compute_dtype,
        )
        time = target.values.shape[1] or tf.shape(target.values)[1]
        real = tf.reshape(tf.sequence_mask(target.lengths, time, features.dtype), [-1])
        return Losses(*(tf.reduce_sum(loss * real) for loss in losses))

    @_unconverted
    def align(self, *inputs: Encoded | Sequences) -> list[tf.Tensor]:
        """The attention weights of the last layer, the mean of its heads, with which each piece is predicted.

        Args:
            *inputs: As of `call`.

        Returns:
            For each encoder the weights of its outputs, `[rows, target time, source time]`; they add up to one over the
            real source positions.
        """
        *encoded, target = inputs
        drops = DropoutMasks(DropoutRates(), False, 0, target.values, self.output_bias.value)
        self._decode(encoded, target, drops)
        return [tf.reduce_mean(each, 1) for each in drops.weights[-len(encoded) :]]

    def _decode(self, encoded: Sequence[Encoded], target: Sequences, drops: DropoutMasks) -> tf.Tensor:
        """The features `[rows, time, units]` that predict each piece of a target."""
        time = target.values.shape[1] or tf.shape(target.values)[1]
        first = tf.fill(tf.shape(target.values[:, :1]), tf.cast(self.bos, target.values.dtype))
        previous = tf.concat([first, target.values[:, :-1]], 1)
        values = drops.residual(self.positions.embed(self.embeddings.value, previous, tf.range(time)))
        memories, mask = self._memories(encoded), causal_mask(time, self.variable_dtype)
        for depth, level in enumerate(self.levels):
            values, _ = level(values, mask, _of_level(memories, depth), drops=drops)
        return values if self.last is None else self.last(values)

    @_unconverted
    def start(self, *encoded: Encoded) -> tuple[tuple[CrossAttentionCache, ...], tuple[KeysValues, ...]]:
        """What `step` begins with: the prepared memory of each encoder, and the empty cache of each layer."""
        rows = tf.shape(encoded[0].memory.lengths)[0]
        none = rows - rows  # no static 0: the cache grows
        empty = tf.zeros([rows, self.levels[0].own.heads, none, self._head_units], self.compute_dtype)
        return self._memories(encoded), tuple(KeysValues(empty, empty) for _ in self.levels)

    @_unconverted
    def step(
        self, memories: tuple[CrossAttentionCache, ...], state: tuple[KeysValues, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[KeysValues, ...]]:
        """One step of a search.

        Several hypotheses may share the memory of their sentence: then those of the first sentence stand first, and
        every sentence has as many.

        Args:
            memories: As of `start`, `[sentences, ...]`.
            state: As of `start`, or of the step before: keys and values of all pieces so far, `[rows, ...]`.
            pieces: The last piece of each row, `[rows]`, integers; `bos` at first.

        Returns:
            The logits of the next piece, `[rows, vocabulary]`, and the next state.
        """
        logits, state, _ = self.step_with_weights(memories, state, pieces)
        return logits, state

    @_unconverted
    def step_with_weights(
        self, memories: tuple[CrossAttentionCache, ...], state: tuple[KeysValues, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[KeysValues, ...], tuple[tf.Tensor, ...]]:
        """What `step` returns, and for each memory the attention weights of the last layer, the mean of its heads.

        Args:
            memories: As of `step`.
            state: As of `step`.
            pieces: As of `step`.

        Returns:
            The logits, the next state, and for each memory `[rows, time]`, zero at padding.
        """
        place = tf.shape(state[0].keys)[2]
        values = self.positions.embed(self.embeddings.value, pieces[:, None], place[None])
        after, drops = [], DropoutMasks(DropoutRates(), False, 0, pieces, self.output_bias.value)
        for depth, level in enumerate(self.levels):
            values, seen = level(values, None, _of_level(memories, depth), state[depth], drops=drops)
            after.append(seen)
        features = (values if self.last is None else self.last(values))[:, 0]
        logits = projected_logits(features, self._projection(), self.output_bias.value, self.compute_dtype)
        weights = [tf.reduce_mean(each, 1) for each in drops.weights[-len(memories) :]]  # [sentences, width, time]
        flat = tuple(tf.reshape(each, [-1, tf.shape(each)[2]]) for each in weights)
        return logits, tuple(after), flat

    @property
    def _head_units(self) -> int:
        return self.levels[0].own.units // self.levels[0].own.heads

    def _memories(self, encoded: Sequence[Encoded]) -> tuple[CrossAttentionCache, ...]:
        return tuple(
            CrossAttentionCache(
                tuple(level.others[place].project_memory(memory.values) for level in self.levels),
                padding_mask(memory.lengths, tf.shape(memory.values)[1], self.variable_dtype),
            )
            for place, (memory,) in enumerate(encoded)
        )

    def _projection(self) -> tf.Tensor:
        return (self.embeddings if self.projection is None else self.projection).value


def _of_level(memories: Sequence[CrossAttentionCache], depth: int) -> list[tuple[KeysValues, tf.Tensor]]:
    return [(memory.layers[depth], memory.mask) for memory in memories]


def _build(layer: keras.Layer, levels: Sequence[TransformerLayer], units: int) -> None:
    """Builds the levels, their variables named after `layer`."""
    for level in levels:
        with keras.name_scope(layer.name), keras.name_scope(level.name):
            level.build((None, None, units))


def _last_norm(layer: keras.Layer, norm: str, units: int) -> LayerNormalization | None:
    """What normalizes the outputs of the last level, where no sublayer does."""
    if norm == "post":
        return None
    last = LayerNormalization(dtype=layer.dtype_policy, name="last_norm")
    with keras.name_scope(layer.name), keras.name_scope(last.name):
        last.build((None, None, units))
    return last
