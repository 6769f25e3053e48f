"""A Transformer's encoder.

Sources: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762; Xiong et al. (2020), https://arxiv.org/abs/2002.04745,
for normalization before each sublayer.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from seq2split.layers import NO_DROPOUT, DropoutRates, LayerNormalization, TransformerLayer, dropout_masks
from seq2split.layers.configuration import constructor_arguments
from seq2split.layers.dropout import chosen_seed
from seq2split.layers.embeddings import check_own, own_or_shared
from seq2split.layers.masks import padding_mask
from seq2split.layers.positional_encoding import PositionalEncoding
from seq2split.split.sequences import Sequences

_unconverted = tf.autograph.experimental.do_not_convert


@keras.saving.register_keras_serializable(package="seq2split")
class TransformerEncoder(keras.Layer):
    """Embeds source pieces and lets each attend to all of its sentence.

    Args:
        vocabulary: The number of source pieces.
        units: The size of the embeddings, and of what crosses between sublayers.
        layers: The number of layers.
        heads: The number of heads of each attention.
        feedforward: The size of the feed-forward layers' activations.
        norm: `pre` normalizes what enters a sublayer, `post` the sum with what leaves it.
        positions: `sinusoidal`, or `learned` for up to `max_length`.
        max_length: The number of positions that can be learned.
        rates: The rates of dropout.
        embeddings: The embeddings of another layer, to be shared; by default it has its own.
        seed: The seed of the dropout; by default one that `random.seed` repeats.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: The units cannot be divided among the heads, there is no such `norm` or `positions`, or the shared
            embeddings have another shape.

    Example:
        >>> import tensorflow as tf
        >>> encoder = TransformerEncoder(vocabulary=50, units=8, layers=2, heads=2, feedforward=16)
        >>> encoded = encoder(Sequences(tf.constant([[7, 8, 9], [5, 0, 0]]), tf.constant([3, 1])))
        >>> encoded.values.shape.as_list(), encoded.lengths.numpy().tolist()
        ([2, 3, 8], [3, 1])
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
        max_length: int = 512,
        rates: DropoutRates = DropoutRates(),  # noqa: B008 it is immutable
        embeddings: keras.Variable | None = None,
        seed: int | None = None,
        **options,
    ):
        super().__init__(autocast=False, **options)
        self.vocabulary, self.units, self.layers, self.heads = vocabulary, units, layers, heads
        self.feedforward, self.norm, self.positions, self.max_length = feedforward, norm, positions, max_length
        self.rates, self.seed = DropoutRates(*rates), chosen_seed(seed)  # a saved configuration has them as a list
        self.shares_embeddings = embeddings is not None
        self.embeddings = own_or_shared(self, vocabulary, units, embeddings)
        self.positional_encoding = PositionalEncoding.of(self, positions, max_length, units)
        self.stack, self.final_norm = transformer_stack(self, ())

    @_unconverted
    def call(self, source: Sequences, training: bool = False) -> Sequences:
        """Encode a batch.

        Args:
            source: Pieces `[rows, time]` and lengths `[rows]`, integers.
            training: Whether to drop.

        Returns:
            The outputs of the last layer, `[rows, time, units]`, and the lengths.
        """
        time = source.values.shape[1] or tf.shape(source.values)[1]
        masks = NO_DROPOUT
        if training:
            masks = dropout_masks(self.rates, self.seed, source.values, self.stack[0].feedforward_in.bias.value)
        values = self.positional_encoding.embed(self.embeddings.value, source.values, tf.range(time))
        values = masks.residual(values)
        mask = padding_mask(source.lengths, time, self.variable_dtype)
        for layer in self.stack:
            values = layer(values, mask, masks=masks).values
        return Sequences(values if self.final_norm is None else self.final_norm(values), source.lengths)

    def get_config(self) -> dict:
        """Return what the encoder was made with; embeddings of another layer can't be told, and are an error."""
        check_own(self, self.shares_embeddings)
        return super().get_config() | constructor_arguments(self, "embeddings")


def transformer_stack(
    model: keras.Layer, encoded_dims: Sequence[int]
) -> tuple[list[TransformerLayer], LayerNormalization | None]:
    """Make the layers of an encoder or a decoder, their variables named after both.

    Args:
        model: The encoder or decoder, with the sizes of its layers as attributes.
        encoded_dims: The size of each encoder's outputs that the layers attend to.

    Returns:
        The layers, and what normalizes the outputs of the last where no sublayer does, both built.
    """
    sizes = model.units, model.heads, model.feedforward, encoded_dims, model.norm
    stack = [TransformerLayer(*sizes, dtype=model.dtype_policy, name=f"layer_{depth}") for depth in range(model.layers)]
    with keras.name_scope(model.name):
        for layer in stack:
            layer.build((None, None, model.units))
        if model.norm == "post":
            return stack, None
        final_norm = LayerNormalization(dtype=model.dtype_policy, name="final_norm")
        final_norm.build((None, None, model.units))
    return stack, final_norm
