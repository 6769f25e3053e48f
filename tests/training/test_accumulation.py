"""Gradients of several batches are those of one batch of all their rows."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import seq2split as s2s
from seq2split.buckets import pad_rows
from seq2split.corpus.batches import Batch
from seq2split.models import RecurrentDecoder, RecurrentEncoder
from seq2split.split.sequences import Sequences
from seq2split.training.accumulation import loss_and_gradients

ROWS = {"source": [[5, 6], [7], [8, 5, 6], [4]], "target": [[5, 6, 3], [3], [7, 3], [8, 4, 7, 3]]}


@pytest.fixture(scope="module")
def model():
    encoder = RecurrentEncoder(9, 3, 4, dtype="float64", name="encoder")
    decoder = RecurrentDecoder(9, 4, 2, 3, 4, dtype="float64", name="decoder")
    nodes = [
        s2s.Node(s2s.Part(encoder), ["source"], s2s.Buckets([3])),
        s2s.Node(s2s.Part(decoder), ["encoder", "target"], s2s.Buckets([4])),
    ]
    return s2s.SplitModel(nodes)


def batch_of(*places):
    rows = {side: [np.array(each[place], np.int32) for place in places] for side, each in ROWS.items()}
    fields = {
        side: Sequences(pad_rows(each, max(map(len, each))), np.array(list(map(len, each))))
        for side, each in rows.items()
    }
    return Batch(0, 0, 1, fields)


@pytest.mark.parametrize("split", [[(0,), (1, 2, 3)], [(3, 1), (2,), (0,)]], ids=str)
def test_equals_one_batch(model, split):
    """Also where the batches have different numbers of target positions."""
    losses, gradients = loss_and_gradients(model, [batch_of(*places) for places in split])
    expected_losses, expected = loss_and_gradients(model, [batch_of(0, 1, 2, 3)])
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)
    assert gradients.keys() == expected.keys() == {"encoder", "decoder"}
    for part, each in expected.items():
        for found, reference in zip(gradients[part], each, strict=True):
            assert isinstance(found, tf.IndexedSlices) == isinstance(reference, tf.IndexedSlices)
            np.testing.assert_allclose(*map(tf.convert_to_tensor, (found, reference)), rtol=1e-10, atol=1e-15)
    assert isinstance(gradients["encoder"][0], tf.IndexedSlices)


def test_frozen_parts_have_no_gradients(model):
    _, gradients = loss_and_gradients(model, [batch_of(0), batch_of(1)], frozen=["encoder"])
    assert gradients["encoder"] == [None] * len(gradients["encoder"])
    assert all(gradient is not None for gradient in gradients["decoder"])
