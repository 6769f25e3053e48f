"""Rows beyond the last bucket: an error that names their side, cut, or left out with the whole example."""

from __future__ import annotations

import numpy as np
import pytest

from seq2split.buckets import Buckets, OverlongError
from seq2split.corpus import Corpus
from seq2split.corpus.admission import Provenance, admit, admit_corpus, cut, describe_outliers

BUCKETS = {"source": Buckets([2, 4]), "target": Buckets([3])}
EOS = 9
ORIGIN = Provenance("training corpus", "Shorten it", lambda side, row: f"{side}.txt, line {row + 1}")
CORPUS = Corpus(
    {
        "source": [[1, EOS], [1, 2, 3, 4, EOS], [1, 2, 3, EOS], [1, EOS], [1, 2, 3, 4, 5, EOS]],
        "target": [[1, EOS], [2, EOS], [1, 2, 3, EOS], [3, EOS], [1, 2, 3, EOS]],
    }
)


def rows(corpus):
    return {side: [row.tolist() for row in each] for side, each in corpus.fields.items()}


def test_truncate():
    """Each side by itself; an example that is cut on both counts once."""
    stay, admission = admit(CORPUS, BUCKETS, "truncate", ORIGIN)
    assert rows(stay) == {
        "source": [[1, EOS], [1, 2, 3, EOS], [1, 2, 3, EOS], [1, EOS], [1, 2, 3, EOS]],
        "target": [[1, EOS], [2, EOS], [1, 2, EOS], [3, EOS], [1, 2, EOS]],
    }
    assert (admission.truncated, admission.skipped, admission.kept.tolist()) == (3, 0, [0, 1, 2, 3, 4])
    assert admission.lengths.tolist() == [4, 6, 7, 4, 7]


def test_skip():
    """Whichever side is too long, all sides of the example go."""
    stay, admission = admit(CORPUS, BUCKETS, "skip", ORIGIN)
    assert rows(stay) == {"source": [[1, EOS], [1, EOS]], "target": [[1, EOS], [3, EOS]]}
    assert (admission.truncated, admission.skipped, admission.kept.tolist()) == (0, 3, [0, 3])


def test_error():
    """It names the longest, and where that stands."""
    with pytest.raises(OverlongError) as caught:
        admit(CORPUS, BUCKETS, "error", ORIGIN)
    assert str(caught.value) == (
        "training corpus: 2 of 5 source sentences have more pieces than the last bucket of that side, 4; the longest "
        "has 6: source.txt, line 5. Shorten it."
    )
    with pytest.raises(OverlongError, match=r"2 of 5 target sentences .*, 3; the longest has 4: target\.txt, line 3"):
        admit(CORPUS, BUCKETS | {"source": Buckets([9])}, "error", ORIGIN)


@pytest.mark.parametrize(
    ("overlong", "note"),
    [
        ("truncate", "training corpus: truncated 2 source and 2 target sentences, longer than"),
        ("skip", "training corpus: skipped 3 of 5 pairs, longer than the last bucket ({'source': 4, 'target': 3})"),
    ],
)
def test_what_the_user_is_told(overlong, note):
    assert admit_corpus(CORPUS, BUCKETS, overlong, ORIGIN)[1].startswith(note)


def test_nothing_is_told_where_all_fit():
    stay, note = admit_corpus(CORPUS.take([0, 3]), BUCKETS, "error", ORIGIN)
    assert (len(stay), note) == (2, None)


def test_none_left():
    with pytest.raises(ValueError, match=r"all 5 pairs of the training corpus.*\[buckets\]"):
        admit_corpus(CORPUS, BUCKETS | {"source": Buckets([1])}, "skip", ORIGIN)


@pytest.mark.parametrize(
    ("row", "length", "expected"),
    [([5, 6, 3], 3, [5, 6, 3]), ([5, 6, 7, 3], 3, [5, 6, 3]), ([5, 3], 1, [3]), ([5, 3], 9, [5, 3])],
)
def test_cut(row, length, expected):
    assert cut(np.array(row, np.int32), length).tolist() == expected


def test_outliers_are_told():
    """A few rows for which graphs are built that are many times longer than the others."""
    rows = [[1] * 5] * 3000 + [[1] * 9] * 2 + [[1] * 400]
    corpus = Corpus({"source": rows, "target": [[1] * 5] * 3001 + [[1] * 19] * 2})
    told = list(
        describe_outliers(corpus, {side: Buckets.fit(corpus.lengths[side], 3) for side in corpus.fields}, ORIGIN)
    )
    assert [each.partition(". ")[0] for each in told] == [
        "source: of 3003 sentences 3 have more than 5 pieces, and the longest has 400: source.txt, line 3003"
    ]
    skipped = {"source": Buckets([5, 9]), "target": Buckets([19])}
    assert not list(describe_outliers(corpus, skipped, ORIGIN))


def test_a_last_bucket_beyond_all_rows_is_no_outlier():
    corpus = Corpus({"source": [[1] * 5] * 30, "target": [[1] * 6] * 30})
    assert not list(describe_outliers(corpus, {side: Buckets([8, 400]) for side in corpus.fields}, ORIGIN))
