"""Translation: a beam of one against a greedy search that recomputes everything, and what a user may do with a run."""

from __future__ import annotations

import io
from dataclasses import asdict, replace

import numpy as np
import pytest
import sacrebleu
import sentencepiece
import tensorflow as tf
from corpora import WORDS, configure, write_experiment
from run_states import assert_same_state, parts_state

from seq2split.buckets import Buckets, OverlongError, pad_rows
from seq2split.corpus.parallel_text import read_parallel
from seq2split.search import BeamSearch, SearchOptions
from seq2split.split.sequences import Sequences
from seq2split.translation.evaluation import score
from seq2split.translation.experiment import Experiment, prepare
from seq2split.translation.experiment_files import ExperimentFiles
from seq2split.translation.translator import Translator
from seq2split.translation.validation import Validation

SEED, SCALE = 8, 0.9  # of weights with which some translations end, and hardly two are equal
GREEDY = SearchOptions(beam=1)
SIDES = ("source", "target")
LINES = ["a b c", "h", "d", "d c b a", "g", "e f", "a b", "h g f e"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("experiment"))


def make_translator(experiment, folder, weights=SEED, **overrides):
    """A translator with large random weights, so that its translations differ and some of them end."""
    config = configure(experiment, **overrides)
    _, translator = prepare(config, ExperimentFiles(folder), read_parallel(config.corpus("train")))
    random = np.random.default_rng(weights)
    for part in translator.model.parts.values():
        for variable in part.part.trainable_variables:
            variable.assign(random.normal(size=variable.shape) * SCALE)
    return translator


def train_vocabulary(experiment, path, **options):
    """Write a SentencePiece model, with options that a configuration doesn't have, and return its path."""
    lines, model = read_parallel(configure(experiment).corpus("train"))["source"], io.BytesIO()
    options = {"vocab_size": 20, "hard_vocab_limit": False, "minloglevel": 2} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **options)
    path.write_bytes(model.getvalue())
    return path


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
    bias = translator.decoder.output_projection.bias
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
    search = BeamSearch(translator.model, ["encoder"], translator.decoder, eos=eos, max_length=limit)
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
    step = translator._search._graphs[False].step
    calls, infer = [], step.infer
    monkeypatch.setattr(step, "infer", lambda *inputs: calls.append(1) or infer(*inputs))
    translator.translate(ending, search=GREEDY)
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
    found, _ = translator.translate(LINES, search=GREEDY)
    assert found == translator.vocabularies["target"].decode(rows)


def test_n_best(translator):
    """By the configuration's search; the best of each are what `translate` returns."""
    found, _ = translator.n_best(3, LINES)
    assert [each[0].text for each in found] == translator.translate(LINES)[0]
    assert {len(each) for each in found} <= {1, 2, 3}
    assert sum(len(each) == 3 for each in found) > 1
    assert all([*each] == sorted(each, key=lambda one: -one.score) for each in found)
    again, _ = translator.n_best(3, LINES, search=translator.search_options)
    assert again == found
    assert translator.n_best(3, LINES, search=replace(translator.search_options, length_penalty=0.0))[0] != found


def test_n_best_never_repeats_a_text(experiment, tmp_path):
    """The same text may be cut in several ways, all of which a search finds; it goes on until there are others."""
    translator, search = (
        make_translator(experiment, tmp_path, weights=2, buckets__target="[3, 9]"),
        SearchOptions(beam=5),
    )
    plain = BeamSearch(translator.model, ["encoder"], translator.decoder, eos=3, max_length=9)
    distinct, more = 0, 0
    for line, hypotheses in zip(LINES, plain(batch_of(translator, LINES), search, 3), strict=True):
        texts = translator.vocabularies["target"].decode([each.pieces for each in hypotheses])
        found = [each.text for each in translator.n_best(3, [line], search=search)[0][0]]
        assert len(found) == len(set(found)) >= len(set(texts))
        distinct, more = distinct + len(set(texts)), more + len(found)
        assert found[0] == texts[0] == translator.translate([line], search=search)[0][0]
    assert 1.3 * distinct < more


@pytest.mark.parametrize("ratio", [0.0, 3.0])
@pytest.mark.parametrize("blank", ["", " ", "  \t"])
def test_an_empty_line_has_an_empty_translation(translator, ratio, blank):
    """Whatever the search says of lengths, among others and alone, and as the only one."""
    search = SearchOptions(beam=3, min_length_ratio=ratio)
    lines = ["a b", blank, "c", blank]
    found, admission = translator.n_best(3, lines, search=search)
    assert [[*each] for each in found[1::2]] == [[("", 0.0)], [("", 0.0)]]
    assert [found[0], found[2]] == translator.n_best(3, lines[::2], search=search)[0]
    assert admission.skipped == 0
    assert translator.translate([blank], search=search)[0] == [""]


def test_one_line_for_one_line(experiment, tmp_path):
    """A vocabulary that falls back to bytes has a piece for the newline, and others for what else ends lines."""
    options = {"vocab_size": 275, "model_type": "bpe", "byte_fallback": True, "user_defined_symbols": ["\u2028"]}
    given = train_vocabulary(experiment, tmp_path / "given.model", **options)
    overrides = {"vocabulary__source_model": given, "buckets__target": 2}
    translator = make_translator(experiment, tmp_path, **overrides)
    vocabulary = translator.vocabularies["target"]
    names = [*map(vocabulary.pieces, [[index] for index in range(vocabulary.size)])]
    bias = np.full(vocabulary.size, -50.0)
    bias[[names.index([name]) for name in ("<0x0A>", "<0x0D>", "\u2028", "▁a")]] = 50.0
    translator.decoder.output_projection.bias.assign(bias)
    translator.decoder.output_projection.kernel.assign(translator.decoder.output_projection.kernel * 0.01)
    found, _ = translator.n_best(3, LINES)
    texts = [each.text for best in found for each in best]
    assert all(len(text.splitlines()) <= 1 for text in texts)
    assert any("a" in text for text in texts)
    validation = Validation(
        configure(experiment, **overrides), translator, read_parallel(translator.config.corpus("valid"))
    )
    shown = validation.samples(translator, 2)
    assert len(shown.splitlines()) == 2 * 3 + 1


OTHERS = {
    "t5": ({"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, "pad", 0),
    "no pad, unknown at zero": ({"byte_fallback": True, "model_type": "bpe", "vocab_size": 274}, "auto", 1),
    "end at zero, no bos": ({"eos_id": 0, "unk_id": 1, "bos_id": -1, "model_type": "char"}, "auto", 0),
    "words": ({"model_type": "word", "bos_id": 3, "unk_id": 0, "eos_id": 4}, "eos", 4),
}


@pytest.mark.parametrize("case", OTHERS)
def test_vocabularies_of_others(experiment, tmp_path, case):
    """Whatever has the id 0, padding is never taken for it: losses and translations don't depend on the buckets."""
    options, start, bos = OTHERS[case]
    given = train_vocabulary(experiment, tmp_path / "given.model", **options)
    overrides = {"vocabulary__source_model": given, "vocabulary__start": start, "buckets__target": "[12]"}
    translator = make_translator(experiment, tmp_path, buckets__source="[12]", **overrides)
    assert translator.decoder.bos == bos
    other = Translator(translator.config, translator.vocabularies, {side: Buckets([5, 12]) for side in SIDES})
    for name, variables in translator.parts.items():
        for one, another in zip(other.parts[name], variables, strict=True):
            one.assign(another)
    lines = ["a b c", "h ☃", "", "☃", "d c b a"]
    pairs = {side: translator.vocabularies[side].encode(lines) for side in SIDES}
    np.testing.assert_allclose(translator.model.losses(pairs).loss, other.model.losses(pairs).loss, rtol=1e-5)
    found, _ = translator.translate(lines)
    assert found == other.translate(lines)[0]
    assert found[2] == ""
    assert any(found)


def test_n_best_of_what_is_skipped(translator):
    lines = ["a b", " ".join(WORDS), "c"]
    found, _ = translator.n_best(2, lines, overlong="skip")
    assert [bool(each) for each in found] == [True, False, True]


def test_searches_as_the_configuration_says(translator, experiment):
    search = SearchOptions(beam=3, length_penalty=0.5, coverage=0.2, min_length_ratio=0.1, max_length_ratio=1.5)
    config = configure(experiment, **{f"search__{key}": value for key, value in asdict(search).items()})
    assert Translator(config, translator.vocabularies, translator.buckets).search_options == search
    assert translator.search_options == SearchOptions()


def test_too_many_are_found_before_the_search(translator):
    with pytest.raises(ValueError, match="6 hypotheses of a sentence were asked for, of a beam of 5"):
        translator.n_best(6, [])


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
    search = SearchOptions(beam=3)
    found, expected = (each.n_best(2, lines, search=search)[0] for each in (threaded, translator))
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
    with pytest.raises(
        OverlongError, match=rf"that side, {longest}; the longest has \d+: number 2 of source\. To tra.*skip"
    ):
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
    bias, records = made.translator.decoder.output_projection.bias, made.trainer._records
    for number, save in ((1.0, records.save), (2.0, records.save_best)):
        bias.assign(tf.fill(bias.shape, number))
        save()
        assert float(Translator.load(tmp_path).decoder.output_projection.bias.value[0]) == number


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
