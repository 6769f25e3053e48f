"""Translation: a beam of one against a greedy search that recomputes everything, and what a user may do with a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
import tensorflow as tf
from corpora import WORDS, configure, write_experiment
from run_states import assert_same_state, parts_state

from seq2split.buckets import OverlongError, pad_rows
from seq2split.config.settings import SearchConfig
from seq2split.search.beam import BeamSearch
from seq2split.split.sequences import Sequences
from seq2split.translation.evaluation import score
from seq2split.translation.experiment import Experiment, prepare
from seq2split.translation.experiment_files import ExperimentFiles
from seq2split.translation.translator import Translator

SEED, SCALE = 8, 0.9  # of weights with which some translations end, and hardly two are equal
GREEDY = SearchConfig(beam=1)
LINES = ["a b c", "h", "", "d c b a", "g", "e f", "a b", "h g f e"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("experiment"))


def make_translator(experiment, folder, **overrides):
    """A translator with large random weights, so that its translations differ and some of them end."""
    _, translator = prepare(configure(experiment, **overrides), ExperimentFiles(folder))
    random = np.random.default_rng(SEED)
    for part in translator.model.parts.values():
        for variable in part.part.trainable_variables:
            variable.assign(random.normal(size=variable.shape) * SCALE)
    return translator


def prepared(tmp_path_factory, experiment, **overrides):
    folder = tmp_path_factory.mktemp("run")
    ExperimentFiles(folder).freeze(configure(experiment, **overrides))
    return make_translator(experiment, folder, **overrides)


@pytest.fixture(scope="module")
def translator(tmp_path_factory, experiment):
    return prepared(tmp_path_factory, experiment, buckets__target="[3, 9]")


# The search


def slope(translator, encoded, row):
    """The gradient of a target's loss by the output bias: the sum over its positions of (probabilities - one-hot)."""
    if not row:
        return 0.0
    bias = translator.decoder.output_bias
    with tf.GradientTape() as tape:
        loss, _ = translator.decoder(encoded, Sequences(np.array([row], np.int32), np.array([len(row)], np.int32)))
    return tape.gradient(loss, bias.value).numpy()


def likeliest_next(translator, encoded, prefix):
    """The likeliest piece after a prefix, by the decoder as a whole, which is called for the loss of its pieces."""
    probabilities = slope(translator, encoded, [*prefix, 0]) - slope(translator, encoded, prefix)
    probabilities[0] += 1
    assert probabilities.sum() == pytest.approx(1, abs=1e-3)
    assert probabilities.min() > -1e-4
    return int(np.argmax(probabilities))


def search_by_hand(translator, line, limit):
    """Greedy search that decodes the whole prefix again at each step, one sentence at a time, without padding."""
    (row,) = translator.vocabularies["source"].encode([line])
    encoded = translator.encoders["source"](Sequences(row[None], np.array([len(row)], np.int32)))
    found = []
    while len(found) < limit:
        piece = likeliest_next(translator, encoded, found)
        if piece == translator.vocabularies["target"].eos:
            break
        found.append(piece)
    return found


def search_for(translator, limit):
    eos = translator.vocabularies["target"].eos
    search = BeamSearch(translator.model, ["encoder"], translator.decoder, eos=eos, limit=limit)
    return lambda batch: [each.pieces for (each,) in search(batch, GREEDY)]


def batch_of(translator, lines):
    rows = translator.vocabularies["source"].encode(lines)
    lengths = np.array([len(row) for row in rows], np.int32)
    return {"source": Sequences(pad_rows(rows, int(lengths.max())), lengths)}


@pytest.mark.parametrize(
    "overrides",
    [{}, {"model__cell": "gru", "model__attention": "bahdanau", "model__decoder_layers": 2}],
    ids=["lstm-luong", "gru-bahdanau-2"],
)
def test_search_equals_brute_force(tmp_path_factory, experiment, overrides):
    translator = prepared(tmp_path_factory, experiment, **overrides)
    found = [row.tolist() for row in search_for(translator, 6)(batch_of(translator, LINES))]
    assert found == [search_by_hand(translator, line, 6) for line in LINES]
    assert any(len(row) < 6 for row in found), "some should end"
    assert any(len(row) == 6 for row in found), "and some run to the limit"
    assert len({tuple(row) for row in found}) > 3


@pytest.mark.parametrize("limit", [1, 3])
def test_limit(translator, limit):
    longer = search_for(translator, 9)(batch_of(translator, LINES))
    found = search_for(translator, limit)(batch_of(translator, LINES))
    assert [row.tolist() for row in found] == [row[:limit].tolist() for row in longer]
    assert all(row.dtype == np.int32 for row in found)


def test_stops_when_all_rows_have_ended(translator, monkeypatch):
    rows = [search_by_hand(translator, line, 9) for line in LINES]
    ending = [line for line, row in zip(LINES, rows, strict=True) if len(row) < 8]
    assert ending
    translator.translate(LINES)
    _, step = translator._search._graphs[False]
    calls, infer = [], step.infer
    monkeypatch.setattr(step, "infer", lambda *inputs: calls.append(1) or infer(*inputs))
    translator.translate(ending, settings=GREEDY)
    assert len(calls) == 1 + max(len(row) for row in rows if len(row) < 8)


# The translator


def test_order_and_independence(translator):
    """A translation is the same alone, among others, in any order, and twice."""
    alone = [translator.translate([line])[0][0] for line in LINES]
    together, admission = translator.translate(LINES)
    assert together == alone
    assert (admission.truncated, admission.skipped) == (0, 0)
    assert len(set(together)) > 3
    order = np.random.default_rng(1).permutation(len(LINES) * 40) % len(LINES)
    many, _ = translator.translate([LINES[place] for place in order])
    assert many == [alone[place] for place in order]


def test_translations_are_the_decoded_search(translator):
    rows = [search_by_hand(translator, line, 9) for line in LINES]
    found, _ = translator.translate(LINES, settings=GREEDY)
    assert found == translator.vocabularies["target"].decode(rows)


def test_n_best(translator):
    """By the configuration's search; the best of each are what `translate` returns."""
    found, _ = translator.n_best(3, LINES)
    assert [each[0].text for each in found] == translator.translate(LINES)[0]
    assert {len(each) for each in found} <= {1, 2, 3}
    assert sum(len(each) == 3 for each in found) > 1
    assert all([*each] == sorted(each, key=lambda one: -one.score) for each in found)
    again, _ = translator.n_best(3, LINES, settings=translator.config.search)
    assert again == found
    assert translator.n_best(3, LINES, settings=replace(translator.config.search, length_penalty=0.0))[0] != found


def test_n_best_of_what_is_skipped(translator):
    lines = ["a b", " ".join(WORDS), "c"]
    found, _ = translator.n_best(2, lines, overlong="skip")
    assert [bool(each) for each in found] == [True, False, True]


def test_wrong_settings_are_found_before_the_search(translator):
    with pytest.raises(ValueError, match="a beam of 0"):
        translator.translate([], settings=SearchConfig(beam=0))
    with pytest.raises(ValueError, match="6 translations of a sentence were asked for, of a beam of 5"):
        translator.n_best(6, LINES)


def test_encoder_runs_once_for_each_sentence(translator, monkeypatch):
    translator.translate(LINES)
    seen = []
    for (part, length), graph in translator.model.graphs.items():
        if part == "encoder":

            def infer(source, length=length, infer=graph.infer):
                seen.append((length, int(np.count_nonzero(source.lengths))))
                return infer(source)

            monkeypatch.setattr(graph, "infer", infer)
    translator.translate(LINES)
    lengths = [len(row) for row in translator.vocabularies["source"].encode(LINES)]
    expected = {}
    for padded in translator.buckets["source"].padded(lengths).tolist():
        expected[padded] = expected.get(padded, 0) + 1
    assert dict(seen) == expected
    assert len(seen) == len(expected)


def test_no_trace_twice(translator):
    translator.translate(LINES)
    before = translator.model.traces, translator._search.traces
    translator.translate(LINES[:3])
    translator.translate(LINES * 5)
    assert (translator.model.traces, translator._search.traces) == before
    assert before[1] == 2


def test_threads_translate_the_same(translator):
    """More sentences than are searched together, in an order that length does not follow."""
    draw = np.random.default_rng(3)
    lines = [" ".join(draw.choice(WORDS, draw.integers(1, 5))) for _ in range(300)]
    threaded = Translator(translator.config, translator.vocabularies, translator.buckets, threads=2)
    for name, variables in translator.parts.items():
        for one, other in zip(threaded.parts[name], variables, strict=True):
            one.assign(other)
    settings = SearchConfig(beam=3)
    found, expected = (each.n_best(2, lines, settings=settings)[0] for each in (threaded, translator))
    assert [[each.text for each in best] for best in found] == [[each.text for each in best] for best in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose([each.score for each in one], [each.score for each in other], rtol=1e-5)


def test_nothing_to_translate(translator):
    assert translator.translate([])[0] == []
    assert len(translator.translate([""])[0]) == 1


def test_overlong(translator):
    """`truncate` translates what fits, with the sentence's end; `skip` leaves an empty line in its place."""
    longest = translator.buckets["source"].boundaries[-1]
    long = " ".join(WORDS[: longest + 2])
    fitting = " ".join(WORDS[: longest - 1])
    lines = ["a b", long, "c"]
    with pytest.raises(OverlongError, match=str(longest)):
        translator.translate(lines)
    plain, _ = translator.translate(["a b", fitting, "c"])
    truncated, admission = translator.translate(lines, overlong="truncate")
    assert truncated == plain
    assert (admission.truncated, admission.skipped) == (1, 0)
    skipped, admission = translator.translate(lines, overlong="skip")
    assert skipped == [plain[0], "", plain[2]]
    assert (admission.truncated, admission.skipped) == (0, 1)
    assert translator.translate([long], overlong="skip")[0] == [""]


# Loading


def test_load_equals_what_was_trained(experiment, tmp_path):
    made = Experiment(configure(experiment, training__steps=1), tmp_path)
    made.train()
    loaded = Translator.load(tmp_path)
    assert_same_state(parts_state(loaded.model), parts_state(made.translator.model))
    assert loaded.translate(LINES)[0] == made.translator.translate(LINES)[0]


def test_load_of_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"is no run directory: it has no config\.toml"):
        Translator.load(tmp_path)
    with pytest.raises(ValueError, match="is no run directory"):
        Translator.load(tmp_path / "nothing")


def test_load_before_the_first_checkpoint(experiment, tmp_path):
    Experiment(configure(experiment), tmp_path)
    with pytest.raises(ValueError, match=r"holds no checkpoint yet.*training\.checkpoint_every"):
        Translator.load(tmp_path)


def test_load_prefers_the_best(experiment, tmp_path):
    """And takes the latest where there is no best yet."""
    made = Experiment(configure(experiment), tmp_path)
    bias, records = made.translator.decoder.output_bias, made.trainer._records
    for number, save in ((1.0, records.save), (2.0, records.save_best)):
        bias.assign(tf.fill(bias.shape, number))
        save()
        assert float(Translator.load(tmp_path).decoder.output_bias.value[0]) == number


# Scores

HYPOTHESES = ["the small dog runs fast", "a cat", "nothing in common", ""]
REFERENCES = ["the small brown dog runs", "a cat sleeps", "something else entirely", "one line"]


def test_score_equals_sacrebleu():
    bleu, chrf = score(HYPOTHESES, REFERENCES)
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
    assert (bleu.name, bleu.value, bleu.text) == ("BLEU", expected.score, expected.format())
    expected = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES])
    assert (chrf.name, chrf.value) == ("chrF2", expected.score)
    assert 0 < bleu.value < chrf.value < 100
    for result in (bleu, chrf):
        assert f"version:{sacrebleu.__version__}" in result.signature
        assert "nrefs:1" in result.signature
    assert "tok:13a" in bleu.signature


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], ["a", "b"]), (["a", "b"], ["a"]), ([], [])])
def test_score_of_different_counts(hypotheses, references):
    message = rf"{len(hypotheses)} translations and {len(references)} references"
    with pytest.raises(ValueError, match=message):
        score(hypotheses, references)
