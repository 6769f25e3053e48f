"""Gradients of several batches are those of one batch of all their rows."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tiny_models import make_model, make_rows

from seq2split.training.accumulation import accumulate

ROWS = make_rows(4)


@pytest.fixture(scope="module")
def model():
    return make_model()


def batch_of(*places):
    return {side: [each[place] for place in places] for side, each in ROWS.items()}


@pytest.mark.parametrize("split", [[(0,), (1, 2, 3)], [(3, 1), (2,), (0,)]], ids=str)
def test_equals_one_batch(model, split):
    """Also where the batches have different numbers of target positions; the metrics too."""
    found = accumulate(model, [batch_of(*places) for places in split])
    expected = accumulate(model, [batch_of(0, 1, 2, 3)])
    assert found.weights == expected.weights == {"decoder": sum(map(len, ROWS["target"]))}
    assert found.metrics.keys() == expected.metrics.keys() == {"accuracy", "nll"}
    np.testing.assert_allclose(
        [found.loss, *found.metrics.values()], [expected.loss, *expected.metrics.values()], 1e-12
    )
    assert found.gradients.keys() == expected.gradients.keys() == {"encoder", "decoder"}
    for part, each in expected.gradients.items():
        for one, reference in zip(found.gradients[part], each, strict=True):
            assert isinstance(one, tf.IndexedSlices) == isinstance(reference, tf.IndexedSlices)
            np.testing.assert_allclose(*map(tf.convert_to_tensor, (one, reference)), rtol=1e-10, atol=1e-15)
    assert isinstance(found.gradients["encoder"][0], tf.IndexedSlices)


def test_frozen_parts_have_no_gradients(model):
    gradients = accumulate(model, [batch_of(0), batch_of(1)], frozen=["encoder"]).gradients
    assert gradients["encoder"] == [None] * len(gradients["encoder"])
    assert all(gradient is not None for gradient in gradients["decoder"])
