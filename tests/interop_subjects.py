"""The subjects of test_interop.py: encoder-decoders that nobody here wrote, whole and cut into two parts, a row each.

A new row gets every property by standing here. No code of a package is changed: the parts are Keras models cut out of
the whole one at a tensor between its layers, or functions that call its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seq2split.split.sequences import Sequences

try:
    import keras_hub

    NO_HUB = None
except ImportError as error:
    NO_HUB = f"KerasHub can't be imported ({error}); pip install -e '.[interop]'"

VOCABULARY, BOS = 11, 1
WIDTH, SIDE = 8, 32


@dataclass
class Case:
    """A fresh model, whole and as two parts; losses are summed over the real positions of the target.

    Attributes:
        whole: Takes source, target and `training`; returns the loss and what `encode` returns, padding included.
        encode: The first part: takes source and `training`.
        decode: The last part: takes what `encode` returns, target and `training`; returns the loss.
        encoder: What holds the variables of the first part.
        decoder: What holds the variables of the last part.
    """

    whole: Callable
    encode: Callable
    decode: Callable
    encoder: Any
    decoder: Any


@dataclass(frozen=True)
class Subject:
    """A row of the table.

    Attributes:
        name: Its name.
        make: Makes a fresh case with a rate of dropout.
        missing: Why it can't be made here.
        sources: The source buckets.
        targets: The target buckets.
        images: Whether the source is an image, whose rows of pixels are the positions, in one bucket.
        shared: How many variables stand in both parts.
        zero: A pattern of the variables whose gradient is zero in exact arithmetic.
        noise: What is added to every variable, so that no bias hides behind zeros.
    """

    name: str
    make: Callable[[float], Case]
    missing: str | None = None
    sources: tuple[int, ...] = (4, 8)
    targets: tuple[int, ...] = (2, 4, 6)
    images: bool = False
    shared: int = 0
    zero: str = "key/bias"  # added to all keys of an attention, it moves no softmax
    noise: float = 0.3

    @property
    def buckets(self) -> dict[str, tuple[int, ...]]:
        """The bucket boundaries of either part."""
        return {"encoder": self.sources, "decoder": self.targets}

    @property
    def position(self) -> tf.TensorSpec:
        """One position of the source, in the precision of the time."""
        return tf.TensorSpec([SIDE, 3], keras.config.floatx()) if self.images else tf.TensorSpec([], tf.int32)


SUBJECTS: dict[str, Subject] = {}


def subject(**properties: Any) -> Callable:
    """Make a row of a function that makes a case."""

    def register(make: Callable[[float], Case]) -> Callable[[float], Case]:
        SUBJECTS[make.__name__] = Subject(make.__name__, make, **properties)
        return make

    return register


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Make layers of a dtype where a package takes none."""
    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)


def real(padded: Sequences) -> tf.Tensor:
    """The padding mask, `[rows, time]`, as the packages take it."""
    return tf.sequence_mask(padded.lengths, tf.shape(padded.values)[1], tf.int32)


def previous(target: Sequences) -> tf.Tensor:
    """What a decoder reads: the target, one position late."""
    return tf.pad(target.values[:, :-1], [[0, 0], [1, 0]], constant_values=BOS)


def cross_entropy(scores: tf.Tensor, target: Sequences) -> tf.Tensor:
    """The sum over the real positions."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target.values, scores)
    return tf.reduce_sum(losses * tf.cast(real(target), losses.dtype))


# KerasHub: backbones, cut at the output of the encoder


def cut_backbone(backbone: keras.Model) -> Case:
    """The functional model of a KerasHub backbone, and two models cut out of it; both own its embeddings."""
    source, source_mask, tokens, tokens_mask = (
        backbone.input[f"{side}_{kind}"] for side in ("encoder", "decoder") for kind in ("token_ids", "padding_mask")
    )
    memory = backbone.output["encoder_sequence_output"]
    encoder = keras.Model([source, source_mask], memory)
    decoder = keras.Model([memory, source_mask, tokens, tokens_mask], backbone.output["decoder_sequence_output"])

    def loss(hidden, target):
        return cross_entropy(backbone.token_embedding(hidden, reverse=True), target)

    def whole(source, target, training):
        fields = {"encoder_token_ids": source.values, "encoder_padding_mask": real(source)}
        fields |= {"decoder_token_ids": previous(target), "decoder_padding_mask": real(target)}
        outputs = backbone(fields, training=training)
        encoded = Sequences(outputs["encoder_sequence_output"], source.lengths)
        return loss(outputs["decoder_sequence_output"], target), encoded

    def encode(source, training):
        return Sequences(encoder([source.values, real(source)], training=training), source.lengths)

    def decode(encoded, target, training):
        fields = [encoded.values, real(encoded), previous(target), real(target)]
        return loss(decoder(fields, training=training), target)

    return Case(whole, encode, decode, encoder, decoder)


@subject(missing=NO_HUB, shared=1)
def bart(dropout):
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": WIDTH, "intermediate_dim": 12, "max_sequence_length": 8}
    return cut_backbone(keras_hub.models.BartBackbone(VOCABULARY, dropout=dropout, **sizes))


@subject(missing=NO_HUB, shared=1)
def t5(dropout):
    # Two layers: the first computes the relative positions for both.
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": WIDTH, "intermediate_dim": 12}
    return cut_backbone(keras_hub.models.T5Backbone(VOCABULARY, dropout=dropout, **sizes))


# KerasHub: layers, called by functions


@subject(missing=NO_HUB, sources=(2, 5, 8))
def transformer(dropout):
    """A functional model of KerasHub's layers; the parts are functions that call them."""
    layers = {
        side: [
            keras_hub.layers.TokenAndPositionEmbedding(VOCABULARY, 8, WIDTH),
            layer(12, 2, dropout=dropout, normalize_first=side == "decoder"),
        ]
        for side, layer in {
            "encoder": keras_hub.layers.TransformerEncoder,
            "decoder": keras_hub.layers.TransformerDecoder,
        }.items()
    }
    scorer = keras.layers.Dense(VOCABULARY)

    def read(tokens, mask, training=None):
        embed, *blocks = layers["encoder"]
        hidden = embed(tokens)
        for block in blocks:
            hidden = block(hidden, padding_mask=mask, training=training)
        return hidden

    def write(memory, mask, tokens, training=None):
        embed, *blocks = layers["decoder"]
        hidden = embed(tokens)
        for block in blocks:
            hidden = block(hidden, memory, encoder_padding_mask=mask, training=training)
        return scorer(hidden)

    tokens, mask, earlier = (keras.Input([None], dtype="int32") for _ in range(3))
    memory = read(tokens, mask)
    model = keras.Model([tokens, mask, earlier], [write(memory, mask, earlier), memory])

    def whole(source, target, training):
        scores, memory = model([source.values, real(source), previous(target)], training=training)
        return cross_entropy(scores, target), Sequences(memory, source.lengths)

    def encode(source, training):
        return Sequences(read(source.values, real(source), training), source.lengths)

    def decode(encoded, target, training):
        return cross_entropy(write(encoded.values, real(encoded), previous(target), training), target)

    return Case(whole, encode, decode, layers["encoder"], [*layers["decoder"], scorer])


# Keras applications: captions of images


def caption(application: keras.Model, cut: str, dropout: float) -> Case:
    """A captioner: an application up to one of its layers, and a decoder that attends to its patches."""
    features = application.get_layer(cut).output
    patches = keras.layers.Reshape([-1, features.shape[-1]])(features)
    earlier = keras.Input([None], dtype="int32")
    hidden = keras.layers.Embedding(VOCABULARY, WIDTH)(earlier)
    hidden = keras.layers.GRU(WIDTH, return_sequences=True)(hidden)
    seen = keras.layers.MultiHeadAttention(2, 4)(hidden, patches)
    joined = keras.layers.Dropout(dropout)(keras.layers.Concatenate()([hidden, seen]))
    scores = keras.layers.Dense(VOCABULARY)(joined)
    model = keras.Model([application.input, earlier], [scores, patches])
    encoder, decoder = keras.Model(application.input, patches), keras.Model([patches, earlier], scores)

    def whole(image, target, training):
        scores, patches = model([image.values, previous(target)], training=training)
        return cross_entropy(scores, target), patches

    def encode(image, training):
        return encoder(image.values, training=training)

    def decode(patches, target, training):
        return cross_entropy(decoder([patches, previous(target)], training=training), target)

    return Case(whole, encode, decode, encoder, decoder)


# A shift before a batch normalization is none after it.
@subject(images=True, sources=(SIDE,), zero="key/bias|project_BN/beta", noise=0.1)
def mobilenet_captioner(dropout):
    """MobileNetV2 to the last layer that still sees 4 × 4 patches."""
    sizes = {"input_shape": (SIDE, SIDE, 3), "alpha": 0.35, "include_top": False, "weights": None}
    return caption(keras.applications.MobileNetV2(**sizes), "block_6_expand_relu", dropout)


def variables_of(owner: Any, kind: str = "variables") -> list:
    """The variables of a Keras layer or of several."""
    owners = owner if isinstance(owner, list) else [owner]
    return [variable for each in owners for variable in getattr(each, kind)]


def randomize(variables: list, noise: float) -> None:
    """Add repeatable noise to floating variables."""
    rng = np.random.default_rng(1)
    for variable in variables:
        if "float" in variable.dtype:
            change = rng.normal(size=variable.shape) * noise
            variable.assign_add(np.abs(change) if "variance" in variable.path else change)
