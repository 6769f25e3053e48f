"""Ready encoders and decoders."""

from seq2split.models.recurrent import Encoded, RecurrentDecoder, RecurrentEncoder
from seq2split.models.transformer import DropoutRates, TransformerDecoder, TransformerEncoder

__all__ = [
    "RecurrentDecoder",
    "Encoded",
    "RecurrentEncoder",
    "DropoutRates",
    "TransformerDecoder",
    "TransformerEncoder",
]
