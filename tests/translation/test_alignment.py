"""Attention weights of a sentence: those with which the decoder attends, over the pieces of the sentence."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from corpora import configure, write_experiment

from seq2split.buckets import OverlongError
from seq2split.models import Encoded, RecurrentDecoder
from seq2split.split.sequences import Sequences
from seq2split.translation.alignment import Alignment, align, forced_weights
from seq2split.translation.experiment import Experiment

LENGTHS = [3, 2]


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_the_decoder_reads_with_these_weights(attention):
    """Applied to the encoders' outputs they give the contexts from which the loss is computed."""
    keras.utils.set_random_seed(1)
    decoder = RecurrentDecoder(9, [4, 6], 2, 5, 5, attention=attention, dtype="float64")
    outputs = [Sequences(tf.random.normal([2, 3, size], dtype="float64"), tf.constant(LENGTHS)) for size in (4, 6)]
    encoded = [Encoded(each, each.values[:, 0]) for each in outputs]
    target = Sequences(tf.constant([[5, 6, 3], [7, 3, 0]]), tf.constant([3, 2]))
    weights = forced_weights(decoder, encoded, target.values.numpy())
    assert [each.shape.as_list() for each in weights] == [[2, 3, 3]] * 2
    for each in weights:
        np.testing.assert_allclose(tf.reduce_sum(each, -1), np.ones([2, 3]), rtol=1e-12)
        assert not np.any(each[1, :, 2]), "padding"
    contexts = []
    attending = decoder._attending

    def attending_with_notes(context):
        attend = attending(context)

        def attend_and_note(queries):
            read, weights_read = attend(queries)
            contexts.append(read)
            return read, weights_read

        return attend_and_note

    decoder._attending = attending_with_notes
    decoder(*encoded, target)
    expected = tf.concat([each @ values for each, (values, _) in zip(weights, outputs, strict=True)], -1)
    np.testing.assert_allclose(tf.concat(contexts, 1), expected, rtol=1e-10)


def test_a_decoder_of_ones_own():
    """It needs `bos`, `start` and `step_with_weights`; it is given each piece before the one that is predicted."""

    class Echo:
        bos = 2

        def start(self, *encoded):
            return (), tf.zeros([2])

        def step_with_weights(self, context, state, pieces):
            return None, state + 1, (tf.one_hot(pieces, 9), state[:, None])

    before, steps = forced_weights(Echo(), [], np.array([[5, 6, 3], [7, 3, 0]]))
    np.testing.assert_array_equal(tf.argmax(before, -1), [[2, 5, 6], [2, 7, 3]])
    np.testing.assert_array_equal(steps[..., 0], [[0, 1, 2]] * 2)


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    return Experiment(configure(write_experiment(folder)), folder / "run").translator


def test_alignment(translator):
    """Pieces and weights fit together; padding of the bucket is cut off."""
    alignment = align(translator, ["a"], "c d e f")
    assert alignment.sources == [["▁a", "</s>"]]
    assert alignment.target == ["▁c", "▁d", "▁e", "▁f", "</s>"]
    (weights,) = alignment.weights
    assert weights.shape == (5, 2)
    np.testing.assert_allclose(weights.sum(1), np.ones(5), rtol=1e-6)
    encoded = translator.encoders["source"](Sequences(*_padded(translator, "a")))
    labels = translator.vocabularies["target"].encode(["c d e f"])[0]
    (expected,) = forced_weights(translator.decoder, [encoded], labels[None])
    np.testing.assert_allclose(weights, expected[0], rtol=1e-4)


def _padded(translator, line):
    (row,) = translator.vocabularies["source"].encode([line])
    return tf.constant(row[None]), tf.constant([len(row)])


def test_of_the_models_translation(translator):
    (translation,), _ = translator.translate(["a b"])
    found, given = align(translator, ["a b"]), align(translator, ["a b"], translation)
    assert isinstance(found, Alignment)
    assert (found.sources, found.target) == (given.sources, given.target)
    np.testing.assert_array_equal(found.weights, given.weights)


def test_a_long_target_is_refused(translator):
    with pytest.raises(
        OverlongError, match=r"1 of 1 target sentences .* has 7: the target that was given\. Give a sho"
    ):
        align(translator, ["a b"], "a b c d e f")
    with pytest.raises(OverlongError, match=r"1 of 1 source sentences .* has 9: the source that was given"):
        align(translator, ["a b c d e f g h"])


def test_a_translation_that_the_search_cut_off(translator, monkeypatch):
    """It has as many pieces as the last bucket, and its end makes one more."""
    monkeypatch.setattr(translator, "translate", lambda *_, **__: (["a b c d e"], None))
    assert align(translator, ["a b"]).target == ["▁a", "▁b", "▁c", "▁d", "</s>"]


@pytest.mark.parametrize("target", [None, "a"])
def test_too_many_sources(translator, target):
    with pytest.raises(ValueError, match="the model translates from source"):
        align(translator, ["a", "b"], target)


def test_a_decoder_without_weights(translator, monkeypatch):
    class Bare:
        bos = 2

    monkeypatch.setattr(translator, "decoder", Bare())
    with pytest.raises(ValueError, match="needs step_with_weights of the decoder, but Bare has no step_with"):
        align(translator, ["a b"], "a")
