"""Beam search: against a greedy search and an exhaustive one by hand, and the scores against the training graph."""

from __future__ import annotations

import itertools
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from split_models import figures

import seq2split as s2s
from seq2split.buckets import pad_rows
from seq2split.models import RecurrentDecoder, RecurrentEncoder
from seq2split.search import BeamSearch, SearchOptions
from seq2split.search.scoring import length_bounds
from seq2split.split.sequences import Sequences

SOURCES, BOS, EOS = 7, 2, 3
MODELS = [  # with seeds of weights by which some translations end, and many differ
    {"cell": cell, "attention": attention, "sources": sources, "seed": seed}
    for (cell, attention, sources), seed in zip(
        itertools.product(["lstm", "gru"], ["luong", "bahdanau"], [1, 2]), [8, 8, 7, 8, 7, 8, 8, 8], strict=True
    )
]
every_model = pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(map(str, options.values())))
PAIRS = [[a, b, EOS] for a in range(4, SOURCES) for b in range(SOURCES)]
ROWS = [[4, 5, EOS], [EOS], [6, 4, 4, 5, EOS], [5, EOS], [4, 6, 5, EOS]]


class Subject:
    """A model with random weights, and what is known of its translations without any search."""

    def __init__(
        self, vocabulary=4, max_length=4, cell="lstm", attention="luong", sources=1, layers=1, seed=8, bias=3.0
    ):
        keras.utils.set_random_seed(11)
        self.encoders = [RecurrentEncoder(SOURCES, 3, 6, cell=cell, name=f"encoder{at}") for at in range(sources)]
        self.decoder = RecurrentDecoder(vocabulary, [6] * sources, BOS, 4, 6, layers, cell=cell, attention=attention)
        rng = np.random.default_rng(seed)
        for layer in (*self.encoders, self.decoder):
            for variable in layer.trainable_variables:
                variable.assign(rng.normal(size=variable.shape) * 1.8)
        self.decoder.output_projection.bias.assign_add(bias * np.eye(vocabulary)[EOS])
        self.fields, self.max_length = [f"source{at}" for at in range(sources)], max_length
        names, buckets = [encoder.name for encoder in self.encoders], s2s.Buckets([3, 6])
        pairs = zip(self.encoders, self.fields, strict=True)
        nodes = [s2s.Node(s2s.Part(encoder), [field], buckets) for encoder, field in pairs]
        end = s2s.Node(s2s.Part(self.decoder), [*names, "target"], s2s.Buckets([max_length]), loss=True)
        self.model = s2s.SplitModel([*nodes, end])
        self.search = BeamSearch(self.model, names, self.decoder, eos=EOS, max_length=max_length)

    def rows(self, row):
        """A source of each side: of the second one the first in reverse, and longer."""
        return [row, [*row[-2::-1], 5, EOS]][: len(self.fields)]

    def batch(self, rows):
        sides = zip(self.fields, zip(*map(self.rows, rows), strict=True), strict=True)
        return {field: sequences(side) for field, side in sides}

    def find(self, rows, n_best=1, **settings):
        return self.search(self.batch(rows), SearchOptions(**settings), n_best)

    def encode(self, row):
        """What the encoders say of one sentence, without padding."""
        return [layer(sequences([side])) for layer, side in zip(self.encoders, self.rows(row), strict=True)]

    def log_probability(self, row, target):
        """Of all pieces of a target, by the part graphs that train it."""
        sources = {field: [side] for field, side in zip(self.fields, self.rows(row), strict=True)}
        _, nll = figures(self.model.losses(sources | {"target": [target]}))
        return -nll * len(target)

    def coverage(self, row, target):
        """The sum of the logarithms of the attention that each source piece got while a target was predicted."""
        context, state = self.decoder.start(*self.encode(row))
        attended = [0.0] * len(context)
        for piece in [BOS, *target[:-1]]:
            _, state, weights = self.decoder.step_with_weights(context, state, tf.constant([piece]))
            attended = [sum(pair) for pair in zip(attended, weights, strict=True)]
        return sum(float(tf.reduce_sum(tf.math.log(tf.minimum(each, 1)))) for each in attended)


subject = cache(Subject)


def sequences(rows):
    lengths = np.array([len(row) for row in rows], np.int32)
    return Sequences(pad_rows(rows, int(lengths.max())), lengths)


def pieces_of(found):
    return [[each.pieces.tolist() for each in hypotheses] for hypotheses in found]


def spied(monkeypatch, search, coverage=False):
    """The number of sentences of each step from here on."""
    step = search._graphs_for(coverage).step
    infer, seen = step.infer, []
    monkeypatch.setattr(step, "infer", lambda *inputs: seen.append(len(inputs[2])) or infer(*inputs))
    return seen


# Against searches by hand


def greedy(model, row):
    """The likeliest piece at each step, one sentence at a time, without padding."""
    context, state = model.decoder.start(*model.encode(row))
    found, last = [], BOS
    while len(found) < model.max_length:
        logits, state = model.decoder.step(context, state, tf.constant([last]))
        last = int(tf.argmax(logits[0]))
        if last == EOS:
            break
        found.append(last)
    return found


@every_model
def test_a_beam_of_one_is_greedy_search(options):
    model = subject(vocabulary=9, max_length=6, **options)
    rows = [*ROWS, *PAIRS[::2]]
    expected = [greedy(model, row) for row in rows]
    for length_penalty in (0.0, 1.0):  # it can't matter
        found = model.find(rows, beam=1, length_penalty=length_penalty)
        assert [each.pieces.tolist() for (each,) in found] == expected
    assert len({tuple(each) for each in expected}) > 3
    assert any(len(each) == 6 for each in expected), "some should run to the limit"
    assert any(len(each) < 6 for each in expected), "and some end"


def beam_search(model, row, beam, power):
    """One hypothesis at a time, each with its own state; it goes on until as many have ended as the beam is wide."""
    context, state = model.decoder.start(*model.encode(row))
    live, finished = [(0.0, [], state)], []
    for length in range(1, model.max_length + 1):
        following = []
        for total, pieces, state in live:
            logits, after = model.decoder.step(context, state, tf.constant([BOS, *pieces][-1:]))
            likelihoods = tf.nn.log_softmax(logits[0]).numpy()
            following += [(total + each, [*pieces, piece], after) for piece, each in enumerate(likelihoods)]
        following.sort(key=lambda each: -each[0])
        ended = [(total, pieces[:-1]) for total, pieces, _ in following[:beam] if pieces[-1] == EOS]
        finished += [(total / ((5 + length) / 6) ** power, pieces) for total, pieces in ended]
        live = [each for each in following if each[1][-1] != EOS][:beam]
        if len(finished) >= beam:
            break
    return [pieces for _, pieces in sorted(finished, reverse=True)] or [pieces for _, pieces, _ in live]


@pytest.mark.parametrize("options", [MODELS[0], MODELS[3], MODELS[6]], ids=str)
@pytest.mark.parametrize(("beam", "power"), [(2, 0.0), (3, 2.0)])
def test_a_narrow_beam_equals_a_search_by_hand(options, beam, power):
    model = subject(vocabulary=9, max_length=6, **options)
    rows = [*ROWS, *PAIRS[::2]]
    expected = [beam_search(model, row, beam, power) for row in rows]
    settings = {"beam": beam, "length_penalty": power}
    assert pieces_of(model.find(rows, beam, **settings)) == [each[:beam] for each in expected]
    assert pieces_of(model.find(rows, **settings)) == [each[:1] for each in expected], "though it stops earlier"


def every_translation(model, row, settings):
    """All that end within the bounds, the best first: score, log-probability and pieces."""
    vocabulary = model.decoder.output_projection.bias.shape[0]
    others = [piece for piece in range(vocabulary) if piece != EOS]
    (least,), (most,) = length_bounds(np.array([max(map(len, model.rows(row)))]), model.max_length, settings)
    found = []
    for length in range(least, most + 1):
        for pieces in itertools.product(others, repeat=length - 1):
            target = [*pieces, EOS]
            likelihood = model.log_probability(row, target)
            score = likelihood / ((5 + length) / 6) ** settings.length_penalty
            if settings.coverage:
                score += settings.coverage * model.coverage(row, target)
            found.append((score, likelihood, list(pieces)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (MODELS[0], {}),
        (MODELS[0], {"length_penalty": 0.0}),
        (MODELS[0], {"length_penalty": 3.0}),
        (MODELS[3], {"min_length_ratio": 0.9}),
        (MODELS[4], {"max_length_ratio": 0.5}),
        (MODELS[0], {"coverage": 0.7}),
        (MODELS[7], {"coverage": 2.0}),
    ],
    ids=str,
)
def test_a_wide_beam_finds_the_best_of_all(options, settings):
    """Beyond as many hypotheses as there are, beam search is exhaustive search."""
    settings = SearchOptions(beam=256, **settings)
    model, rows = subject(max_length=3 if settings.coverage else 4, **options), ROWS[:3]
    batch = model.batch(rows)
    for row, best, hypotheses in zip(
        rows, model.search(batch, settings), model.search(batch, settings, 6), strict=True
    ):
        expected = every_translation(model, row, settings)[:6]
        assert [each.pieces.tolist() for each in hypotheses] == [pieces for _, _, pieces in expected]
        assert pieces_of([best]) == [[expected[0][-1]]], "also where the search stops as soon as that is certain"
        np.testing.assert_allclose([each.score for each in hypotheses], [each[0] for each in expected], rtol=1e-5)
        likelihoods = [each.log_probability for each in hypotheses]
        np.testing.assert_allclose(likelihoods, [each[1] for each in expected], rtol=1e-5, atol=1e-5)


def test_settings_change_the_result():
    """Each of those above: else they would prove little."""
    model = subject(**MODELS[0])
    plain = pieces_of(model.find(ROWS, 6, beam=256))
    for key, value in (("length_penalty", 3.0), ("coverage", 0.7), ("min_length_ratio", 0.9)):
        assert pieces_of(model.find(ROWS, 6, beam=256, **{key: value})) != plain, key


# Scores


@every_model
def test_scores_are_log_probabilities_of_the_training_graph(options):
    model = subject(vocabulary=9, max_length=6, **options)
    for row, hypotheses in zip(ROWS, model.find(ROWS, 3, beam=4, length_penalty=0.0), strict=True):
        for each in hypotheses:
            pieces = each.pieces.tolist()
            ended = len(pieces) < model.max_length
            assert each.log_probability == pytest.approx(
                model.log_probability(row, [*pieces, EOS] if ended else pieces), abs=1e-5
            )
            assert each.score == pytest.approx(each.log_probability, abs=1e-6)


def test_n_best_are_sorted_and_distinct():
    """As many as are wanted, or as ended."""
    model, counts = subject(vocabulary=9, max_length=6), set()
    for n_best in (1, 3, 6):
        for hypotheses in model.find(ROWS, n_best, beam=9):
            counts.add((n_best, len(hypotheses)))
            assert len({tuple(each.pieces) for each in hypotheses}) == len(hypotheses)
            scores = [each.score for each in hypotheses]
            assert scores == sorted(scores, reverse=True)
            assert all(EOS not in each.pieces and each.pieces.dtype == np.int32 for each in hypotheses)
    assert {(1, 1), (3, 3)} <= counts
    assert all(found <= n_best for n_best, found in counts)


def test_fewer_wanted_are_the_first_of_more():
    model = subject(vocabulary=9, max_length=6)
    more = pieces_of(model.find(ROWS, 5, beam=5))
    assert pieces_of(model.find(ROWS, 2, beam=5)) == [each[:2] for each in more]


# Lengths


@pytest.mark.parametrize("ratios", [(0.0, 0.5), (1.0, 1.0), (0.9, 0.0), (0.5, 1.3)])
@pytest.mark.parametrize("beam", [1, 4])
def test_ratios_are_respected(beam, ratios):
    least, most = ratios
    model = subject(vocabulary=9, max_length=6)
    for row, hypotheses in zip(
        ROWS, model.find(ROWS, beam, beam=beam, min_length_ratio=least, max_length_ratio=most), strict=True
    ):
        for each in hypotheses:
            assert len(each.pieces) + 1 >= min(least * len(row), model.max_length)
            assert len(each.pieces) <= max(1, most * len(row) if most else model.max_length)


def test_hypotheses_are_cut_off_where_none_ends():
    """They are as long as allowed, and their scores count no end."""
    model = subject(vocabulary=9, max_length=3, bias=-100.0)
    for row, hypotheses in zip(ROWS, model.find(ROWS, 4, beam=4, length_penalty=1.0), strict=True):
        scores = [each.score for each in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(each.pieces) for each in hypotheses}) == 4
        for each in hypotheses:
            assert len(each.pieces) == 3
            likelihood = model.log_probability(row, each.pieces.tolist())
            assert each.log_probability == pytest.approx(likelihood, abs=1e-5)
            assert each.score == pytest.approx(likelihood / (8 / 6), abs=1e-5)


def test_what_ends_goes_before_what_is_cut_off():
    model = subject()
    for row, hypotheses in zip(ROWS[:3], model.find(ROWS[:3], 6, beam=256), strict=True):
        assert all(len(each.pieces) < 4 for each in hypotheses)
        cut = max(model.log_probability(row, pieces) for pieces in itertools.product([0, 1, 2], repeat=4)) / 1.5
        assert cut > hypotheses[-1].score, "such a hypothesis should have had a place"


def test_empty_translations():
    found = subject(bias=100.0).find(ROWS, beam=4)
    assert pieces_of(found) == [[[]]] * len(ROWS)
    assert [each.score for (each,) in found] == pytest.approx([0.0] * len(ROWS), abs=1e-5)


# Batches


def test_other_sentences_change_nothing():
    """Nor does the order; though sentences leave the batch as they are done."""
    model = subject(vocabulary=9, max_length=6)
    rows = [*ROWS, *PAIRS]
    alone = [model.find([row], 2, beam=4)[0] for row in rows]
    order = np.random.default_rng(1).permutation(len(rows))
    together = model.find([rows[at] for at in order], 2, beam=4)
    assert pieces_of(together) == pieces_of([alone[at] for at in order])
    for at, hypotheses in zip(order, together, strict=True):
        scores = [each.score for each in hypotheses]
        np.testing.assert_allclose(scores, [each.score for each in alone[at]], rtol=1e-5)


def test_sentences_leave_the_batch(monkeypatch):
    model = subject(vocabulary=9, max_length=6)
    seen = spied(monkeypatch, model.search)
    model.find(PAIRS, beam=2)
    assert seen[0] == len(PAIRS)
    assert len(set(seen)) > 1
    assert seen == sorted(seen, reverse=True)
    assert all(size % 8 == 0 for size in seen if size != len(PAIRS))


def test_stops_when_nothing_can_be_better(monkeypatch):
    """One end is so likely that no search for longer ones is needed; with more wanted, there is."""
    model = subject(max_length=4, bias=100.0)
    seen = spied(monkeypatch, model.search)
    model.find(ROWS, 1, beam=3)
    assert len(seen) == 1
    model.find(ROWS, 3, beam=3)
    assert len(seen) > 2


def test_goes_on_while_something_better_can_come():
    """The end is likeliest at first, but a longer hypothesis scores higher for its length."""
    model, probabilities = subject(vocabulary=9), np.full([9, 9], 0.01, np.float32) + np.eye(9, dtype=np.float32)
    probabilities[BOS, [EOS, 0, 1, BOS]] = 0.6, 0.35, 1e-6, 1e-6
    probabilities[[0, 1], [0, 1]], probabilities[[0, 1], [1, EOS]] = 0.01, 2.0

    class Chain:
        """Each piece depends on the one before it alone."""

        bos, start = BOS, model.decoder.start

        def step(self, context, state, pieces):
            return tf.gather(np.log(probabilities), pieces), state

    search = BeamSearch(model.model, ["encoder0"], Chain(), eos=EOS, max_length=4)
    for power, expected in ((0.0, []), (3.0, [0, 1])):
        found = search(model.batch(ROWS), SearchOptions(beam=3, length_penalty=power))
        assert pieces_of(found) == [[expected]] * len(ROWS)


def test_one_trace_for_all():
    """Whatever the rows, the lengths, the beam and the number of hypotheses; another with coverage."""
    model = Subject(max_length=3)
    for rows, beam in ((ROWS, 2), (ROWS[:1], 7), (ROWS * 4, 1)):
        model.find(rows, beam, beam=beam)
    assert model.search.traces == 2
    model.find(ROWS, coverage=0.1)
    model.find(ROWS[:2], coverage=0.2, beam=3)
    assert model.search.traces == 4
