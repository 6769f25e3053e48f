"""What a configuration makes layers of, and that each architecture trains, resumes, searches and translates."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from corpora import configure, write_experiment
from run_states import assert_same_state, parts_state

from seq2split.buckets import pad_rows
from seq2split.config.settings import ConfigError, SearchConfig
from seq2split.models import RecurrentDecoder, RecurrentEncoder, TransformerDecoder, TransformerEncoder
from seq2split.split.sequences import Sequences
from seq2split.translation.experiment import Experiment
from seq2split.translation.translator import Translator

TRANSFORMER = {
    "model__architecture": "transformer",
    "model__heads": 2,
    "model__feedforward": 12,
    "model__attention_dropout": 0.1,
    "model__activation_dropout": 0.1,
}
ARCHITECTURES = {
    "recurrent": ({}, RecurrentEncoder, RecurrentDecoder),
    "transformer": (TRANSFORMER, TransformerEncoder, TransformerDecoder),
}
LINES = ["a b c", "d", "", "h g f e"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The path of a tiny configuration."""
    return write_experiment(tmp_path_factory.mktemp("experiment"))


def trained(experiment, run, **overrides):
    made = Experiment(configure(experiment, **overrides), run)
    made.train()
    return made


def prepared(experiment, run, **overrides):
    """A translator with new variables."""
    return Experiment(configure(experiment, **overrides), run).translator


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_resumes_and_translates(experiment, tmp_path, architecture):
    overrides, encoder, decoder = ARCHITECTURES[architecture]
    whole = trained(experiment, tmp_path / "whole", **overrides, training__steps=2)
    assert isinstance(whole.translator.encoders["source"], encoder)
    assert isinstance(whole.translator.decoder, decoder)
    trained(experiment, tmp_path / "halves", **overrides, training__steps=1)
    resumed = trained(experiment, tmp_path / "halves", **overrides, training__steps=2)
    assert_same_state(parts_state(resumed.translator.model), parts_state(whole.translator.model))
    loaded = Translator.load(tmp_path / "whole")
    assert loaded.translate(LINES)[0] == whole.translator.translate(LINES)[0]
    assert [loaded.translate([line])[0][0] for line in LINES] == loaded.translate(LINES)[0]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shared_embeddings_are_one_variable(experiment, tmp_path, architecture, tied):
    """It moves once a step, is in a checkpoint, and with the tied projection all three are one."""
    overrides = ARCHITECTURES[architecture][0] | {
        "model__shared_embeddings": True,
        "model__tied_embeddings": tied,
        "training__steps": 2,
    }
    translator = trained(experiment, tmp_path, **overrides).translator
    assert translator.encoders["source"].embeddings is translator.decoder.embeddings
    assert (translator.decoder.projection is None) == tied
    loaded = Translator.load(tmp_path)
    assert loaded.encoders["source"].embeddings is loaded.decoder.embeddings
    np.testing.assert_array_equal(loaded.decoder.embeddings, translator.decoder.embeddings)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_search_scores_as_the_training_graph(experiment, tmp_path, architecture):
    """The log-probability of what a beam finds is what the decoder's loss sums up, coverage or not."""
    translator = prepared(experiment, tmp_path, **ARCHITECTURES[architecture][0])
    eos = translator.vocabularies["target"].eos
    translator.decoder.output_bias.assign(2.0 * (np.arange(translator.vocabularies["target"].size) == eos))
    source = translator.vocabularies["source"].encode(["a b", "c d e"])
    lengths = np.array([len(row) for row in source], np.int32)
    batch = {"source": Sequences(pad_rows(source, int(lengths.max())), lengths)}
    compared = 0
    for coverage in (0.0, 0.2):
        for row, best in zip(
            source, translator._search(batch, SearchConfig(beam=6, coverage=coverage), 6), strict=True
        ):
            for found in best:
                if len(found.pieces) < translator.buckets["target"].boundaries[-1]:  # the limit cut off no other
                    target = np.append(found.pieces, eos).astype(np.int32)
                    nll = translator.model.losses({"source": [row], "target": [target]}).metrics["nll"]
                    np.testing.assert_allclose(found.log_probability, -float(nll) * len(target), rtol=1e-5)
                    compared += 1
    assert compared > 8


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hypotheses_share_the_memory_of_their_sentence(experiment, tmp_path, architecture):
    """As if each had a memory of its own; the weights too."""
    translator = prepared(experiment, tmp_path, **ARCHITECTURES[architecture][0])
    decoder = translator.decoder
    batch = {"source": translator.vocabularies["source"].encode(["a b", "c d e"])}
    encoded = translator.model.infer(batch, "encoder")
    shared, state = decoder.start(encoded)
    own, _ = decoder.start(tf.nest.map_structure(lambda each: tf.repeat(each, 3, axis=0), encoded))
    states = [tf.nest.map_structure(lambda each: tf.repeat(each, 3, axis=0), state)] * 2
    for pieces in ([4, 5, 6, 7, 8, 4], [9, 4, 4, 8, 5, 6]):
        results = [
            decoder.step_with_weights(memory, each, tf.constant(pieces))
            for memory, each in zip((shared, own), states, strict=True)
        ]
        states = [after for _, after, _ in results]
        for one, other in zip(*map(tf.nest.flatten, results), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(results[0][2][0], 1), np.ones(6), rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_of_a_target_are_those_of_its_steps(experiment, tmp_path, architecture):
    translator = prepared(experiment, tmp_path, **ARCHITECTURES[architecture][0])
    decoder, target = translator.decoder, np.array([[4, 7, 3], [5, 3, 0]], np.int32)
    batch = {"source": translator.vocabularies["source"].encode(["a b", "c d e"])}
    encoded = translator.model.infer(batch, "encoder")
    (weights,) = decoder.align(encoded, Sequences(target, np.array([3, 2], np.int32)))
    memories, state = decoder.start(encoded)
    previous = np.concatenate([np.full([2, 1], decoder.bos), target[:, :-1]], 1)
    for place in range(3):
        _, state, (step,) = decoder.step_with_weights(memories, state, tf.constant(previous[:, place]))
        np.testing.assert_allclose(weights[:, place], step, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__embedding": 16}, "embedding equal to units"),
        ({"model__heads": 3}, "units that can be divided among the heads"),
        ({"model__shared_embeddings": True, "vocabulary__joint": False}, "a joint vocabulary where the sides share"),
    ],
)
def test_wrong_configuration(experiment, overrides, message):
    with pytest.raises(ConfigError, match=message):
        configure(experiment, **TRANSFORMER | overrides)
