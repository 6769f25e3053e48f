"""The layers that the models are made of."""

from seq2split.layers.attention import AttentionMemory, BahdanauAttention, LuongAttention
from seq2split.layers.cross_entropy import projected_cross_entropy, projected_logits
from seq2split.layers.dropout import NO_DROPOUT, DropoutMasks, DropoutRates, dropout_masks
from seq2split.layers.layer_normalization import LayerNormalization
from seq2split.layers.multi_head_attention import KeysValues, MultiHeadAttention
from seq2split.layers.recurrent import GRU, LSTM, Recurrent
from seq2split.layers.transformer_layer import TransformerLayer

__all__ = [
    # recurrent layers
    "GRU",
    "LSTM",
    "Recurrent",
    # attention of a recurrent decoder
    "AttentionMemory",
    "BahdanauAttention",
    "LuongAttention",
    # Transformers
    "KeysValues",
    "LayerNormalization",
    "MultiHeadAttention",
    "TransformerLayer",
    # dropout
    "NO_DROPOUT",
    "DropoutMasks",
    "DropoutRates",
    "dropout_masks",
    # the loss
    "projected_cross_entropy",
    "projected_logits",
]
