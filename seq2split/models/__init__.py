"""Ready encoders and decoders."""

from seq2split.models.recurrent import Decoder, Encoded, Encoder

__all__ = ["Decoder", "Encoded", "Encoder"]
