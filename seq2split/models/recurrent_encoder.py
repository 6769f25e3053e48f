"""A recurrent encoder, a static graph for each bucket."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from seq2split.common.choices import check_choice
from seq2split.layers import GRU, LSTM, Recurrent
from seq2split.layers.configuration import constructor_arguments
from seq2split.layers.dropout import chosen_seed, dropout
from seq2split.layers.embeddings import check_own, own_or_shared
from seq2split.layers.steps import Unroll
from seq2split.split.sequences import Sequences

CELLS = {"lstm": LSTM, "gru": GRU}
_unconverted = tf.autograph.experimental.do_not_convert


class Encoded(NamedTuple):
    """What a recurrent encoder returns.

    Attributes:
        outputs: The outputs of its last layer, `[rows, time, units]`, and the source lengths.
        summary: Its final outputs, `[rows, units]`.
    """

    outputs: Sequences
    summary: tf.Tensor


@keras.saving.register_keras_serializable(package="seq2split")
class RecurrentEncoder(keras.Layer):
    """Embeds source pieces and runs recurrent layers over them.

    Args:
        vocabulary: The number of source pieces.
        embedding: The size of a piece's embedding.
        units: The size of a layer's output in all; a bidirectional layer gives half of it to each direction.
        layers: The number of recurrent layers.
        cell: `lstm` or `gru`.
        bidirectional: Whether each layer runs both ways.
        dropout: The share of the embeddings and of each layer's outputs that is dropped in training.
        unroll: Whether the steps of a layer are unrolled in the graph, or in a loop; see `layers.Recurrent`.
        embeddings: The embeddings of another layer, to be shared; by default it has its own.
        seed: The seed of the dropout; by default one that `random.seed` repeats.
        **options: Arguments of `keras.Layer`, such as `dtype` and `name`.

    Raises:
        ValueError: There is no such cell, or way to unroll; the units cannot be halved; or the shared embeddings have
            another shape.

    Example:
        >>> import tensorflow as tf
        >>> encoder = RecurrentEncoder(vocabulary=50, embedding=4, units=8)
        >>> source = Sequences(tf.constant([[7, 8, 9], [5, 0, 0]]), tf.constant([3, 1]))
        >>> encoded = encoder(source)
        >>> encoded.outputs.values.shape.as_list(), encoded.summary.shape.as_list()
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
        unroll: Unroll = "auto",
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
        self.vocabulary, self.embedding, self.units, self.layers = vocabulary, embedding, units, layers
        self.cell, self.bidirectional, self.unroll = cell, bidirectional, unroll
        self.shares_embeddings = embeddings is not None
        self.embeddings = own_or_shared(self, vocabulary, embedding, embeddings)
        self.dropout, self.seed = dropout, chosen_seed(seed)
        self.stack = [
            [
                recurrent_layer(self, cell, units // len(directions), units if depth else embedding, depth, reverse)
                for reverse in directions
            ]
            for depth in range(layers)
        ]

    @_unconverted
    def call(self, source: Sequences, training: bool = False) -> Encoded:
        """Encode a batch.

        Args:
            source: Pieces `[rows, time]` and lengths `[rows]`, integers.
            training: Whether to drop.

        Returns:
            What the decoder reads.
        """
        drop = dropout(self.dropout * training, self.seed, source.values, self.stack[0][0].bias.value)
        values = drop(tf.gather(self.embeddings.value, tf.transpose(source.values)), 0)
        for depth, directions in enumerate(self.stack):
            runs = [layer(values, source.lengths) for layer in directions]
            values = drop(tf.concat([outputs for outputs, _ in runs], -1), depth + 1)
        summary = tf.concat([state[0] for _, state in runs], -1)
        return Encoded(Sequences(tf.transpose(values, [1, 0, 2]), source.lengths), summary)

    def get_config(self) -> dict:
        """Return what the encoder was made with; embeddings of another layer can't be told, and are an error."""
        check_own(self, self.shares_embeddings)
        return super().get_config() | constructor_arguments(self, "embeddings")


def recurrent_layer(
    model: keras.Layer, cell: str, units: int, inputs: int, depth: int, reverse: bool = False
) -> Recurrent:
    """Make a recurrent layer of an encoder or a decoder, its variables named after both.

    Args:
        model: The encoder or decoder, which says whether to unroll.
        cell: `lstm` or `gru`.
        units: The size of the state.
        inputs: The size of the inputs.
        depth: The number of layers below it.
        reverse: Whether it runs from the last step to the first.

    Returns:
        The layer, built.

    Raises:
        ValueError: There is no such cell, or way to unroll.
    """
    check_choice(f"{type(model).__name__}: cell", cell, CELLS)
    name = f"{cell}_{depth}{'_reverse' if reverse else ''}"
    layer = CELLS[cell](units, reverse=reverse, unroll=model.unroll, dtype=model.dtype_policy, name=name)
    return built(model, layer, inputs)


def built(model: keras.Layer, layer: keras.Layer, inputs: int) -> keras.Layer:
    """Build a layer of a model for inputs `[..., inputs]`, its variables named after both, and return it."""
    with keras.name_scope(model.name):
        layer.build((None, None, inputs))
    return layer
