"""Scores by sacreBLEU, of a corpus and of its sentences by length."""

from __future__ import annotations

import pytest
import sacrebleu

from seq2split.buckets import Buckets
from seq2split.translation.evaluation import score, score_by_length

REFERENCES = ["a b c d e", "f g h a b c", "c d e f a", "h g f e d c b a", "a b c d e f g", "b b b b c"]
HYPOTHESES = ["a b c d e", "f g h a c b", "c d e f b", "h g f e d c a b", "a b c d e f g", "b b b b c"]
LENGTHS = [3, 4, 5, 6, 9, 11]


def test_bootstrap_changes_no_score():
    for plain, resampled in zip(score(HYPOTHESES, REFERENCES), score(HYPOTHESES, REFERENCES, 50), strict=True):
        assert plain.value == resampled.value
        assert "±" not in plain.text
        assert "±" in resampled.text
        assert resampled.signature == plain.signature.replace("|", "|bs:50|seed:12345|", 1)
    assert score(HYPOTHESES, REFERENCES, 50) == score(HYPOTHESES, REFERENCES, 50)


def test_each_bucket_is_a_corpus_of_its_own():
    """Those without sentences are left out, and sentences that no bucket holds are counted too."""
    shown = score_by_length(HYPOTHESES, REFERENCES, LENGTHS, Buckets([2, 4, 6, 9]))
    rows = [line.split() for line in shown.splitlines()]
    assert [row[:4] for row in rows[2:]] == [
        ["3", "to", "4", "2"],
        ["5", "to", "6", "2"],
        ["7", "to", "9", "1"],
        ["10", "to", "11", "1"],
    ]
    for row, at in zip(rows[2:], (slice(0, 2), slice(2, 4), slice(4, 5), slice(5, 6)), strict=True):
        bleu = sacrebleu.corpus_bleu(HYPOTHESES[at], [REFERENCES[at]]).score
        chrf = sacrebleu.corpus_chrf(HYPOTHESES[at], [REFERENCES[at]]).score
        assert row[4:] == [f"{bleu:.2f}", f"{chrf:.2f}"]


def test_no_interval_where_a_resampled_corpus_is_empty():
    hypotheses, references = ["a b c d e", ""], ["a b c d e", "f g h a b"]
    assert score(hypotheses, references, 50)[1] == score(hypotheses, references)[1]


def test_as_many_references():
    with pytest.raises(ValueError, match="2 translations and 1 references"):
        score(["a", "b"], ["a"])
