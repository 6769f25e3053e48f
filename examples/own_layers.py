"""An encoder and a decoder of stock Keras layers, for `own_model.py` and `command_line.py`.

All that the package asks of them: what has a time axis crosses as `Sequences`; positions at and after a row's length
change nothing; the decoder returns its loss as a sum. `start` and `step` are for beam search alone.
"""

from __future__ import annotations

import keras
import tensorflow as tf

import seq2split as s2s


class ConvolutionalEncoder(keras.Layer):
    """Embeds pieces and convolves them; padding is kept at zero."""

    def __init__(self, pieces: int, units: int, **options):
        super().__init__(**options)
        self.embed = keras.layers.Embedding(pieces, units)
        self.convolutions = [keras.layers.Conv1D(units, 5, padding="same", activation="gelu") for _ in range(2)]

    def call(self, source):
        mask = real_positions(source, self.compute_dtype)[:, :, None]
        values = self.embed(source.values) * mask
        for convolution in self.convolutions:
            values += convolution(values) * mask
        return s2s.Sequences(values, source.lengths)


class GRUDecoder(keras.Layer):
    """Predicts each piece from those before it, by a GRU that attends over the encoder's outputs."""

    def __init__(self, pieces: int, bos: int, units: int, **options):
        super().__init__(**options)
        self.bos, self.units = bos, units
        self.embed = keras.layers.Embedding(pieces, units)
        self.recurrent = keras.layers.GRU(units, return_sequences=True)
        self.attention = keras.layers.MultiHeadAttention(4, units // 4)
        self.predict = keras.layers.Dense(pieces, dtype="float32")

    def call(self, encoded, target):
        """Return the summed loss, and the number of pieces that are predicted right."""
        previous = tf.pad(target.values[:, :-1], [[0, 0], [1, 0]], constant_values=self.bos)
        logits = self.attend(encoded, self.recurrent(self.embed(previous)))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target.values, logits)
        real = real_positions(target, tf.float32)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == target.values, tf.float32)
        return tf.reduce_sum(losses * real), {
            "nll": tf.reduce_sum(losses * real),
            "accuracy": tf.reduce_sum(right * real),
        }

    def attend(self, encoded, states):
        """Return the logits `[rows, queries, pieces]` of states `[rows, queries, units]`."""
        seen = real_positions(encoded, tf.bool)[:, None]
        contexts = self.attention(states, encoded.values, attention_mask=seen)
        return self.predict(tf.concat([states, contexts], -1))

    def start(self, encoded):
        """Return what every step reads, and the first state of each sentence."""
        return encoded, tf.zeros([tf.shape(encoded.lengths)[0], self.units], self.compute_dtype)

    def step(self, encoded, state, pieces):
        """Return the logits of the next piece of each hypothesis, and the next state; a sentence has several."""
        output, _ = self.recurrent.cell(self.embed(pieces), [state])
        queries = tf.reshape(output, [tf.shape(encoded.lengths)[0], -1, self.units])
        logits = self.attend(encoded, queries)
        return tf.reshape(logits, [-1, logits.shape[-1]]), output


def real_positions(sequences, dtype):
    """Return one, or true, at each real position, `[rows, time]`."""
    return tf.sequence_mask(sequences.lengths, tf.shape(sequences.values)[1], dtype)


def make(request, units: int = 64):
    """Make the layers for the command line: `architecture = "own_layers.py:make"`, `[model.options] units = 64`."""
    options = {"dtype": request.precision}
    encoders = {side: ConvolutionalEncoder(request.sizes[side], units, **options) for side in request.sources}
    return encoders, GRUDecoder(request.sizes["target"], request.bos, units, **options)
