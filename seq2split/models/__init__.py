"""Ready encoders and decoders."""

from seq2split.models.recurrent import Decoder, Encoded, Encoder
from seq2split.models.transformer import Rates, TransformerDecoder, TransformerEncoder

__all__ = ["Decoder", "Encoded", "Encoder", "Rates", "TransformerDecoder", "TransformerEncoder"]
