"""What a configuration makes layers of, and that each architecture trains, resumes, searches and translates."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from corpora import configure, write_experiment
from run_states import assert_same_state, parts_state

from seq2split.buckets import pad_rows
from seq2split.config import ConfigError
from seq2split.models import RecurrentDecoder, RecurrentEncoder, TransformerDecoder, TransformerEncoder
from seq2split.search import SearchOptions
from seq2split.split.sequences import Sequences
from seq2split.translation.architectures import find_architecture
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


@pytest.mark.parametrize(("architecture", "tied"), [("recurrent", True), ("transformer", False)])
def test_shared_embeddings_are_one_variable(experiment, tmp_path, architecture, tied):
    """It moves once a step, is in a checkpoint, and with the tied projection all three are one."""
    overrides = ARCHITECTURES[architecture][0] | {
        "model__shared_embeddings": True,
        "model__tied_embeddings": tied,
        "training__steps": 2,
    }
    translator = trained(experiment, tmp_path, **overrides).translator
    assert translator.encoders["source"].embeddings is translator.decoder.embeddings
    assert (translator.decoder.output_projection.kernel is translator.decoder.embeddings) == tied
    loaded = Translator.load(tmp_path)
    assert loaded.encoders["source"].embeddings is loaded.decoder.embeddings
    np.testing.assert_array_equal(loaded.decoder.embeddings, translator.decoder.embeddings)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_search_scores_as_the_training_graph(experiment, tmp_path, architecture):
    """The log-probability of what a beam finds is what the decoder's loss sums up, coverage or not."""
    translator = prepared(experiment, tmp_path, **ARCHITECTURES[architecture][0])
    eos = translator.vocabularies["target"].eos
    translator.decoder.output_projection.bias.assign(2.0 * (np.arange(translator.vocabularies["target"].size) == eos))
    source = translator.vocabularies["source"].encode(["a b", "c d e"])
    lengths = np.array([len(row) for row in source], np.int32)
    batch = {"source": Sequences(pad_rows(source, int(lengths.max())), lengths)}
    compared = 0
    for coverage in (0.0, 0.2):
        for row, best in zip(
            source, translator._search(batch, SearchOptions(beam=6, coverage=coverage), 6), strict=True
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


OWN = """
import functools, keras, tensorflow as tf
import seq2split as s2s

class Encoder(keras.Layer):
    def __init__(self, pieces, units, **options):
        super().__init__(**options)
        self.embed = keras.layers.Embedding(pieces, units)
    def call(self, source):
        return s2s.Sequences(self.embed(source.values), source.lengths)

class Decoder(keras.Layer):
    def __init__(self, pieces, units, **options):
        super().__init__(**options)
        self.embed, self.predict = keras.layers.Embedding(pieces, units), keras.layers.Dense(pieces)
    def call(self, encoded, target):
        states = self.embed(tf.pad(target.values[:, :-1], [[0, 0], [1, 0]]))
        logits = self.predict(states + encoded.values[:, :1])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target.values, logits)
        return tf.reduce_sum(losses * tf.sequence_mask(target.lengths, tf.shape(losses)[1], losses.dtype))

def make_with(request, units, wide):
    encoders = {side: Encoder(request.sizes[side], units) for side in request.sources}
    return encoders, Decoder(request.sizes["target"], units)

make = functools.partial(make_with, wide=1)
"""


@pytest.fixture
def own(experiment, tmp_path):
    """The overrides of a configuration with an architecture of one's own, whose decoder can't translate."""
    file = tmp_path / "own.py"
    file.write_text(OWN)
    lines = [line for line in experiment.read_text().splitlines() if line not in BUILT_IN_KEYS]
    path = experiment.with_name("own.toml")
    path.write_text(
        "\n".join(lines).replace("[model]", f'[model]\narchitecture = "{file}:make"\n[model.options]\nunits = 4')
    )
    return path


BUILT_IN_KEYS = {"bidirectional = false", "embedding = 8", "units = 8", "dropout = 0.2"}


def test_a_decoder_that_can_not_translate_trains(own, tmp_path, capsys):
    made = Experiment(configure(own, training__criterion="loss", training__samples=2), tmp_path / "run")
    made.train()
    assert "no BLEU and no samples: Decoder lacks what a search needs" in capsys.readouterr().err
    assert "validation_bleu" not in made.trainer.history[-1]
    loaded = Translator.load(tmp_path / "run")
    assert_same_state(parts_state(loaded.model), parts_state(made.translator.model))
    with pytest.raises(ValueError, match="a search needs bos of the decoder, but Decoder has no bos"):
        loaded.translate(["a b"])


def test_bleu_needs_a_decoder_that_can_translate(own, tmp_path):
    with pytest.raises(ValueError, match=r'training.criterion = "bleu" needs bos of the decoder'):
        Experiment(configure(own), tmp_path / "run")


def test_a_changed_file_of_an_architecture_is_noticed(own, tmp_path):
    """Also where only an argument of the function is another."""
    config = configure(own, training__criterion="loss", training__steps=2)
    Experiment(config, tmp_path / "run").train()
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("wide=1", "wide=2"))
    with pytest.warns(UserWarning, match=r"own.py:make has changed since .* was started"):
        Translator.load(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"has changed since .* Restore it"):
        Experiment(config, tmp_path / "run")


WRONG_NAMES = {
    "no file": ("nowhere.py:make", "there is no file"),
    "no module": ("no_such_package.models:make", "can't be imported: No module named"),
    "no function": ("own.py:mak", r"has no function 'mak'; it has .*make"),
    "an error in it": ("broken.py:make", "NameError in .*broken.py: name 'nothing' is not defined"),
}


@pytest.mark.parametrize("case", WRONG_NAMES)
def test_errors_of_architectures(case, tmp_path):
    name, message = WRONG_NAMES[case]
    (tmp_path / "own.py").write_text("def make(request): ...")
    (tmp_path / "broken.py").write_text("nothing")
    with pytest.raises(ValueError, match=message):
        find_architecture(f"{tmp_path}/{name}" if ".py:" in name else name)
