"""Examples in memory: what they are told apart by, and which of them are taken."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import seq2split as s2s
from seq2split.corpus import Corpus

ROWS = {"source": [[1, 2], [3], []], "target": [[4], [5, 6], [7]]}


def test_length_and_lengths():
    corpus = Corpus(ROWS)
    assert len(corpus) == 3
    assert {side: each.tolist() for side, each in corpus.lengths.items()} == {"source": [2, 1, 0], "target": [1, 2, 1]}
    assert corpus.lengths["source"].dtype == np.int64


def test_none_of_no_rows():
    """That is a corpus too: there is nothing to translate."""
    corpus = Corpus({"source": []})
    assert (len(corpus), corpus.lengths["source"].tolist()) == (0, [])


def test_take():
    taken = Corpus(ROWS).take([2, 0])
    assert [row.tolist() for row in taken.fields["source"]] == [[], [1, 2]]
    assert [row.tolist() for row in taken.fields["target"]] == [[7], [4]]


def test_digest():
    """The same for the same values; another when a value, a length, a field's name, the order or the dtype differs."""
    digest = Corpus(ROWS).digest()
    assert Corpus({"target": ROWS["target"], "source": [np.array(row, int) for row in ROWS["source"]]}).digest() != ""
    assert Corpus({side: [np.array(row) for row in rows] for side, rows in ROWS.items()}).digest() == digest
    others = [
        ROWS | {"source": [[1, 2], [4], []]},
        ROWS | {"source": [[1], [2, 3], []]},
        ROWS | {"source": [[1, 2], [3], [0]]},
        {"source": ROWS["source"], "goal": ROWS["target"]},
        {"source": ROWS["target"], "target": ROWS["source"]},
        {side: rows[::-1] for side, rows in ROWS.items()},
        {side: [np.array(row, np.int16) for row in rows] for side, rows in ROWS.items()},
    ]
    digests = [Corpus(other).digest() for other in others]
    assert digest not in digests
    assert len(set(digests)) == len(others)


def test_an_error_calls_it_by_its_name():
    with pytest.raises(ValueError, match="the validation corpus has no fields"):
        Corpus([], name="validation corpus")


def test_padded_arrays_come_with_their_lengths():
    values, lengths = np.array([[5, 6, 0], [7, 0, 0]]), np.array([2, 1])
    corpus = Corpus({"source": s2s.Sequences(values, lengths), "target": s2s.Sequences(tf.constant(values), lengths)})
    for rows in corpus.fields.values():
        assert [row.tolist() for row in rows] == [[5, 6], [7]]
