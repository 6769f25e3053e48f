"""A Transformer's decoder.

Sources: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762; Xiong et al. (2020), https://arxiv.org/abs/2002.04745,
for normalization before each sublayer; Libovicky et al. (2018), https://arxiv.org/abs/1811.04716, for several encoders,
to which each layer attends one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.layers import NO_DROPOUT, DropoutRates, KeysValues, dropout_masks
from seq2split.layers.configuration import constructor_arguments
from seq2split.layers.dropout import chosen_seed
from seq2split.layers.embeddings import check_own, own_or_shared
from seq2split.layers.masks import causal_mask, padding_mask
from seq2split.layers.positional_encoding import PositionalEncoding
from seq2split.models.output_projection import Losses, OutputProjection, shifted
from seq2split.models.transformer_encoder import transformer_stack
from seq2split.split.sequences import Sequences

_unconverted = tf.autograph.experimental.do_not_convert


class CrossAttentionCache(NamedTuple):
    """An encoder's outputs, prepared once for all steps of a search.

    Attributes:
        layers: The keys and values of each layer.
        mask: The mask of its padding, `[sentences, 1, 1, time]`.
    """

    layers: tuple[KeysValues, ...]
    mask: tf.Tensor


Context = tuple[CrossAttentionCache, ...]
"""What a search reads of each encoder."""


@keras.saving.register_keras_serializable(package="seq2split")
class TransformerDecoder(keras.Layer):
    """Predicts target pieces; each attends to those before it and to what the encoders returned.

    Args:
        vocabulary: The number of target pieces.
        encoded_dim: The size of the encoder's outputs; of several encoders a list of theirs.
        bos: The piece that stands before the first.
        units: The size of the embeddings, and of what crosses between sublayers.
        layers: The number of layers.
        heads: The number of heads of each attention.
        feedforward: The size of the feed-forward layers' activations.
        norm: `pre` normalizes what enters a sublayer, `post` the sum with what leaves it.
        positions: `sinusoidal`, or `learned` for up to `max_length`.
        max_length: The number of positions that can be learned.
        rates: The rates of dropout.
        tied_embeddings: Whether the embeddings are also the output projection.
        embeddings: The embeddings of another layer, to be shared; by default it has its own.
        label_smoothing: The probability that is spread over all pieces, in training only.
        seed: The seed of the dropout; by default one that `random.seed` repeats.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: The units cannot be divided among the heads, there is no such `norm` or `positions`, or the shared
            embeddings have another shape.

    Example:
        >>> import tensorflow as tf
        >>> decoder = TransformerDecoder(50, encoded_dim=8, bos=2, units=8, layers=2, heads=2, feedforward=16)
        >>> encoded = Sequences(tf.ones([2, 3, 8]), tf.constant([3, 1]))
        >>> target = Sequences(tf.constant([[7, 8, 3], [5, 3, 0]]), tf.constant([3, 2]))
        >>> losses = decoder(encoded, target)
        >>> losses.loss.shape.rank, losses.nll.shape.rank
        (0, 0)
    """

    def __init__(
        self,
        vocabulary: int,
        encoded_dim: int | Sequence[int],
        bos: int,
        units: int = 256,
        layers: int = 3,
        heads: int = 4,
        feedforward: int = 1024,
        *,
        norm: str = "pre",
        positions: str = "sinusoidal",
        max_length: int = 512,
        rates: DropoutRates = DropoutRates(),  # noqa: B008 it is immutable
        tied_embeddings: bool = False,
        embeddings: keras.Variable | None = None,
        label_smoothing: float = 0.0,
        seed: int | None = None,
        **options,
    ):
        super().__init__(autocast=False, **options)
        self.vocabulary, self.units, self.layers, self.heads = vocabulary, units, layers, heads
        self.feedforward, self.norm, self.positions, self.max_length = feedforward, norm, positions, max_length
        self.encoded_dim = (encoded_dim,) if isinstance(encoded_dim, int) else tuple(encoded_dim)
        self.bos, self.tied_embeddings, self.label_smoothing = bos, tied_embeddings, label_smoothing
        self.rates, self.seed = DropoutRates(*rates), chosen_seed(seed)  # a saved configuration has them as a list
        self.shares_embeddings = embeddings is not None
        self.embeddings = own_or_shared(self, vocabulary, units, embeddings)
        self.positional_encoding = PositionalEncoding.of(self, positions, max_length, units)
        self.stack, self.final_norm = transformer_stack(self, self.encoded_dim)
        self.output_projection = OutputProjection(
            self, self.embeddings, units, tied=tied_embeddings, label_smoothing=label_smoothing
        )

    @_unconverted
    def call(self, *inputs: Sequences, training: bool = False) -> Losses:
        """Return the losses of a batch, each piece predicted from those before it.

        Args:
            *inputs: What each encoder returned, and last the target: pieces `[rows, time]`, each row ending in the
                end-of-sentence piece, and lengths `[rows]`, integers.
            training: Whether to drop, and to smooth labels.

        Returns:
            The losses, summed over the real target positions.
        """
        *encoded, target = inputs
        time = target.values.shape[1] or tf.shape(target.values)[1]
        masks = NO_DROPOUT
        if training:
            masks = dropout_masks(self.rates, self.seed, target.values, self.output_projection.bias.value)
        previous = shifted(target.values, self.bos, axis=1)
        values = self.positional_encoding.embed(self.embeddings.value, previous, tf.range(time))
        values = masks.residual(values)
        context, mask = self._prepare(encoded), causal_mask(time, self.variable_dtype)
        for depth, layer in enumerate(self.stack):
            values = layer(values, mask, _of_layer(context, depth), masks=masks).values
        real = tf.sequence_mask(target.lengths, time)
        return self.output_projection.losses(self._features(values), target.values, real, training)

    @_unconverted
    def start(self, *encoded: Sequences) -> tuple[Context, tuple[KeysValues, ...]]:
        """Return what `step` begins with.

        Args:
            *encoded: What each encoder returned.

        Returns:
            The outputs of each encoder, prepared for attention, and for each layer the keys and values of the pieces so
            far: none.
        """
        rows = tf.shape(encoded[0].lengths)[0]
        none = rows - rows  # no static 0: the cache grows
        empty = tf.zeros([rows, self.heads, none, self.units // self.heads], self.compute_dtype)
        return self._prepare(encoded), tuple(KeysValues(empty, empty) for _ in self.stack)

    @_unconverted
    def step(
        self, context: Context, state: tuple[KeysValues, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[KeysValues, ...]]:
        """Return the logits of the next piece, and the next state; see `protocol.StepDecoder`."""
        return self.step_with_weights(context, state, pieces)[:2]

    @_unconverted
    def step_with_weights(
        self, context: Context, state: tuple[KeysValues, ...], pieces: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[KeysValues, ...], tuple[tf.Tensor, ...]]:
        """Return what `step` returns, and the attention weights; see `protocol.AttentiveDecoder`.

        The weights are those of the last layer, the mean of its heads.
        """
        position = tf.shape(state[0].keys)[2]
        values = self.positional_encoding.embed(self.embeddings.value, pieces[:, None], position[None])
        after = []
        for depth, layer in enumerate(self.stack):
            values, keys_values, weights = layer(values, None, _of_layer(context, depth), state[depth])
            after.append(keys_values)
        means = [tf.reduce_mean(each, 1) for each in weights]  # [sentences, width, time]
        by_row = tuple(tf.reshape(each, [-1, tf.shape(each)[2]]) for each in means)
        return self.output_projection.logits(self._features(values)[:, 0]), tuple(after), by_row

    def get_config(self) -> dict:
        """Return what the decoder was made with; embeddings of another layer can't be told, and are an error."""
        check_own(self, self.shares_embeddings)
        return super().get_config() | constructor_arguments(self, "embeddings")

    def _prepare(self, encoded: Sequence[Sequences]) -> Context:
        return tuple(
            CrossAttentionCache(
                tuple(layer.cross_attentions[place].project_encoded(outputs.values) for layer in self.stack),
                padding_mask(outputs.lengths, tf.shape(outputs.values)[1], self.variable_dtype),
            )
            for place, outputs in enumerate(encoded)
        )

    def _features(self, values: tf.Tensor) -> tf.Tensor:
        return values if self.final_norm is None else self.final_norm(values)


def _of_layer(context: Context, depth: int) -> list[tuple[KeysValues, tf.Tensor]]:
    return [(cache.layers[depth], cache.mask) for cache in context]
