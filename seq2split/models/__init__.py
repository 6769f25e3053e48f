"""Ready encoders and decoders, and the protocols that one's own must meet."""

from seq2split.layers.dropout import DropoutRates
from seq2split.models.output_projection import Losses
from seq2split.models.protocol import AttentiveDecoder, Decoder, Encoder, StepDecoder, attended_positions, require
from seq2split.models.recurrent_decoder import RecurrentDecoder
from seq2split.models.recurrent_encoder import Encoded, RecurrentEncoder
from seq2split.models.transformer_decoder import TransformerDecoder
from seq2split.models.transformer_encoder import TransformerEncoder

__all__ = [
    # recurrent
    "Encoded",
    "RecurrentDecoder",
    "RecurrentEncoder",
    # Transformer
    "DropoutRates",
    "TransformerDecoder",
    "TransformerEncoder",
    # what a decoder returns
    "Losses",
    # what one's own must meet
    "AttentiveDecoder",
    "Decoder",
    "Encoder",
    "StepDecoder",
    "attended_positions",
    "require",
]
