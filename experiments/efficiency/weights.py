"""The variables of the measured models, by the names that the frameworks share."""

from __future__ import annotations

import keras
import numpy as np

from efficiency.naming import Weights, flat, recurrent_names, transformer_names
from seq2split.models import TransformerEncoder


def variables_of(encoder: keras.Layer, decoder: keras.Layer) -> dict[str, keras.Variable]:
    """Name the variables of a measured model as the peers do.

    Args:
        encoder: An encoder of one LSTM layer in one direction; or a Transformer's.
        decoder: A decoder of one LSTM layer, with Luong's attention and embeddings of its own; or a Transformer's.

    Returns:
        Every trainable variable by its name.

    Raises:
        ValueError: They are of another kind.
    """
    parts = {"encoder": encoder, "decoder": decoder}
    named = {
        f"{part}/{variable.path.split('/', 1)[1]}": variable
        for part, layer in parts.items()
        for variable in layer.trainable_variables
    }
    known = transformer_names(encoder.layers) if isinstance(encoder, TransformerEncoder) else recurrent_names()
    if named.keys() != set(flat(known)):
        raise ValueError(
            f"the peers have the variables {sorted(flat(known))}, but the layers have {sorted(named)}. Give "
            "RecurrentEncoder(..., bidirectional=False) and RecurrentDecoder(...), with one layer, cell='lstm', "
            "attention='luong' and tied_embeddings=False; or TransformerEncoder(...) and TransformerDecoder(...), with "
            "norm='pre', positions='sinusoidal' and tied_embeddings=False."
        )
    return named


def weights_of(encoder: keras.Layer, decoder: keras.Layer) -> Weights:
    """Copy the weights of a measured model.

    Args:
        encoder: See `variables_of`.
        decoder: See `variables_of`.

    Returns:
        Every weight by its name, float32, in Keras's layout: a kernel is `[inputs, outputs]`, gates come in the order
        input, forget, candidate, output, queries come before keys and these before values, and the projection is
        `[vocabulary, units]`.

    Raises:
        ValueError: They are of another kind.

    Example:
        >>> from seq2split.models import RecurrentDecoder, RecurrentEncoder
        >>> encoder = RecurrentEncoder(50, 4, 8, bidirectional=False, name="encoder")
        >>> weights = weights_of(encoder, RecurrentDecoder(60, 8, 2, 4, 8, name="decoder"))
        >>> weights["encoder/lstm_0/recurrent_kernel"].shape, weights["decoder/output_projection"].shape
        ((8, 32), (60, 8))
    """
    return {name: variable.numpy().astype(np.float32) for name, variable in variables_of(encoder, decoder).items()}
