"""The layers that the models are made of."""

from seq2split.layers.attention import AttentionMemory, BahdanauAttention, LuongAttention
from seq2split.layers.cross_entropy import projected_cross_entropy, projected_logits
from seq2split.layers.recurrent import GRU, LSTM, Recurrent

__all__ = [
    "GRU",
    "LSTM",
    "BahdanauAttention",
    "LuongAttention",
    "AttentionMemory",
    "Recurrent",
    "projected_cross_entropy",
    "projected_logits",
]
