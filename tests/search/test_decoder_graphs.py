"""A search with a decoder that knows nothing of this package's models: against all sequences, and what it may lack."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import seq2split as s2s
from seq2split.search import BeamSearch, SearchOptions
from seq2split.split.sequences import Sequences

BOS, EOS, VOCABULARY, MAX_LENGTH = 0, 1, 4, 4
DRAW = np.random.default_rng(5)
LOGITS = DRAW.normal(size=[3, MAX_LENGTH + 1, VOCABULARY, VOCABULARY]).astype(np.float32) * 2
WEIGHTS = DRAW.dirichlet(np.ones(2), [MAX_LENGTH + 1]).astype(np.float32)
BATCH = {"source": Sequences(np.array([[4, 6], [5, 0], [3, 8]], np.int32), np.array([2, 1, 2], np.int32))}


class Toy:
    """Looks its logits up by the source, the number of pieces so far and the last of them."""

    bos = BOS

    def start(self, encoded):
        return {"kind": encoded["kind"]}, tf.zeros_like(encoded["kind"])

    def step(self, context, count, pieces):
        kinds = tf.repeat(context["kind"], tf.size(pieces) // tf.size(context["kind"]))
        return tf.gather_nd(LOGITS, tf.stack([kinds, count, pieces], 1)), count + 1


class Attentive(Toy):
    def step_with_weights(self, context, count, pieces):
        return *self.step(context, count, pieces), [tf.gather(WEIGHTS, count)]


def encoder(source):
    return {"kind": source.values[:, 0] % 3, "outputs": [Sequences(tf.cast(source.values, tf.float32), source.lengths)]}


def loss(encoded, target):
    return tf.reduce_sum(tf.cast(encoded["kind"][:, None] * target.values, tf.float32))


def search_with(decoder, encoder=encoder, eos=EOS, max_length=MAX_LENGTH):
    nodes = [
        s2s.Node(s2s.Part(encoder, name="encoder", variables=[]), ["source"], s2s.Buckets([2])),
        s2s.Node(
            s2s.Part(loss, name="decoder", variables=[]), ["encoder", "target"], s2s.Buckets([MAX_LENGTH]), loss=True
        ),
    ]
    return BeamSearch(s2s.SplitModel(nodes), ["encoder"], decoder, eos=eos, max_length=max_length)


def every_output(row, options):
    """Score, log-probability and pieces of all that end, the best first."""
    (kind, *_), length = BATCH["source"].values[row] % 3, BATCH["source"].lengths[row]
    logs, found = LOGITS[kind] - np.log(np.exp(LOGITS[kind]).sum(-1, keepdims=True)), []
    for count in range(MAX_LENGTH):
        for pieces in itertools.product([0, 2, 3], repeat=count):
            total = sum(
                logs[at, last, piece] for at, (last, piece) in enumerate(itertools.pairwise([BOS, *pieces, EOS]))
            )
            attention = WEIGHTS[: count + 1, :length].sum(0)
            score = total / ((6 + count) / 6) ** options.length_penalty
            score += options.coverage * np.log(np.minimum(attention, 1)).sum()
            found.append((score, total, list(pieces)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("coverage", [0.0, 3.0])
@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all(coverage, penalty):
    """The padding of a source needs no coverage: its lengths stand somewhere in what the encoder returned."""
    options = SearchOptions(beam=100, length_penalty=penalty, coverage=coverage)
    for row, found in enumerate(search_with(Attentive())(BATCH, options, n_best=8)):
        expected = every_output(row, options)[:8]
        assert [each.pieces.tolist() for each in found] == [pieces for _, _, pieces in expected]
        np.testing.assert_allclose([each.score for each in found], [score for score, _, _ in expected], rtol=1e-5)
        np.testing.assert_allclose([each.log_probability for each in found], [each[1] for each in expected], rtol=1e-5)


def test_the_subjects_differ():
    """Sources, penalties and coverage change what is best: else the test above would prove little."""
    best = {
        (row, penalty, coverage): every_output(row, SearchOptions(length_penalty=penalty, coverage=coverage))[0][2]
        for row, penalty, coverage in itertools.product(range(3), [0.0, 2.0], [0.0, 3.0])
    }
    assert len({tuple(pieces) for pieces in best.values()}) > 3
    assert any(best[row, 0.0, 0.0] != best[row, 2.0, 0.0] for row in range(3))
    assert any(best[row, 0.0, 0.0] != best[row, 0.0, 3.0] for row in range(3))


# What a decoder may lack


@pytest.mark.parametrize("name", ["bos", "start", "step"])
def test_a_decoder_that_lacks_a_method(name):
    decoder = SimpleNamespace(**{each: getattr(Toy(), each) for each in ("bos", "start", "step") if each != name})
    with pytest.raises(ValueError, match=f"a search needs {name} of the decoder, but SimpleNamespace has no {name}"):
        search_with(decoder)(BATCH)


def test_coverage_of_a_decoder_without_weights():
    search = search_with(Toy())
    assert len(search(BATCH)) == 3
    with pytest.raises(
        ValueError, match="coverage needs step_with_weights of the decoder, but Toy has no step_with_weights"
    ):
        search(BATCH, SearchOptions(coverage=0.1))


def test_coverage_of_an_encoder_without_lengths():
    def kinds(source):
        return {"kind": source.values[:, 0] % 3}

    search = search_with(Attentive(), kinds)
    assert len(search(BATCH)) == 3
    with pytest.raises(ValueError, match=r"coverage needs .* 'encoder' returned.*dict without any Sequences"):
        search(BATCH, SearchOptions(coverage=0.1))


class TimeMajor(Toy):
    def step(self, context, count, pieces):
        logits, count = super().step(context, count, pieces)
        return logits[:, None], count


class Scalar(Toy):
    def start(self, encoded):
        return encoded["kind"], tf.constant(0)


class TwoWeights(Attentive):
    def step_with_weights(self, *inputs):
        *results, weights = super().step_with_weights(*inputs)
        return *results, weights * 2


@pytest.mark.parametrize(
    ("decoder", "options", "message"),
    [
        (TimeMajor(), {}, r"TimeMajor\.step returned logits of shape \[None, 1, 4\]; expected \[rows, vocabulary\]"),
        (Scalar(), {}, r"Scalar\.start returned .*int32\[\].*rows as its first axis"),
        (
            TwoWeights(),
            {"coverage": 1.0},
            r"TwoWeights\.step_with_weights returned weights .*for each of \['encoder'\]",
        ),
    ],
)
def test_a_decoder_that_returns_something_else(decoder, options, message):
    with pytest.raises(ValueError, match=message):
        search_with(decoder)(BATCH, SearchOptions(**options))


def test_an_end_that_is_no_piece():
    with pytest.raises(ValueError, match=r"logits of 4 pieces.*the end of a sentence is piece 4"):
        search_with(Toy(), eos=4)(BATCH)


# Searches that find nothing


class Diverged(Toy):
    """Its logits, or its weights, are not finite for one source after two pieces."""

    def __init__(self, logits=0.0, weights=0.0):
        self.added = logits, weights

    def step_with_weights(self, context, count, pieces):
        logits, after = super().step(context, count, pieces)
        weights = tf.gather(WEIGHTS, count)
        wrong = (tf.range(tf.size(count)) // (tf.size(count) // 3) == 1) & (count == 2)
        logits, weights = (
            tf.where(wrong[:, None], each + added, each)
            for each, added in zip((logits, weights), self.added, strict=True)
        )
        return logits, after, [weights]

    def step(self, *inputs):
        return self.step_with_weights(*inputs)[:2]


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize(
    ("decoder", "what"),
    [
        (Diverged(np.nan), "logits"),
        (Diverged(np.inf), "logits"),
        (Diverged(-np.inf), "logits"),
        (Diverged(weights=np.nan), "attention weights"),
    ],
    ids=["nan", "inf", "minus-inf", "weights"],
)
def test_what_is_not_finite(decoder, what, beam):
    options = SearchOptions(beam=beam, coverage=0.1, min_length_ratio=4.0)
    with pytest.raises(FloatingPointError, match=f"the decoder's {what} for 1 of 3 sentences .* after 2 pieces: NaN"):
        search_with(decoder)(BATCH, options)


def test_what_is_not_finite_behind_the_last_step():
    """Of what nobody asks for nothing is said."""
    assert len(search_with(Diverged(np.nan), max_length=2)(BATCH)) == 3


class Masked(Toy):
    """Forbids all pieces but the end, or but one that is no end."""

    def __init__(self, allowed):
        self.allowed = allowed

    def step(self, context, count, pieces):
        logits, count = super().step(context, count, pieces)
        return tf.where(tf.range(VOCABULARY) == self.allowed, logits, -np.inf), count


def test_forbidden_pieces():
    """A logit of minus infinity is legal: it forbids a piece."""
    for allowed, expected in ((EOS, []), (2, [2] * MAX_LENGTH)):
        found = search_with(Masked(allowed))(BATCH, SearchOptions(beam=3, length_penalty=0.0), n_best=3)
        assert [[each.pieces.tolist() for each in best] for best in found] == [[expected]] * 3
        assert [each.log_probability for (each,) in found] == [0.0] * 3


def test_nothing_is_allowed():
    with pytest.raises(ValueError, match=r"nothing was found for 2 of 3 sentences: .* of 2 to 4 pieces"):
        search_with(Masked(EOS))(BATCH, SearchOptions(min_length_ratio=1.0))


def test_no_piece_is_allowed():
    with pytest.raises(ValueError, match="max_length is 0; expected at least 1"):
        search_with(Toy(), max_length=0)
