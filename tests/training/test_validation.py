"""The figures by which a model is judged: over batches, or by a function of the user's."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import make_batches, make_model, make_rows

from seq2split.training.validation import LossValidation, make_validate


@pytest.fixture(scope="module")
def model():
    return make_model(dropout=0.5)


def test_losses_over_batches(model):
    """As over all rows in one batch, without dropout, and the same each time."""
    rows = make_rows(11, seed=2)
    validate = make_validate(make_batches(model, rows, tokens=30))
    found, expected = validate(model), model.losses(rows)
    assert list(found) == ["loss", "accuracy", "nll", "perplexity"]
    np.testing.assert_allclose(found["loss"], expected.loss, rtol=1e-12)
    np.testing.assert_allclose(found["accuracy"], expected.metrics["accuracy"], rtol=1e-12)
    assert found["perplexity"] == pytest.approx(np.exp(found["nll"]))
    assert validate(model) == found


def test_any_iterable_of_batches(model):
    rows = make_rows(11, seed=2)
    parts = [{side: each[at : at + 4] for side, each in rows.items()} for at in range(0, 11, 4)]
    assert make_validate(parts)(model) == pytest.approx(make_validate([rows])(model), rel=1e-12)


@pytest.mark.parametrize(
    ("returned", "expected"), [({"bleu": np.float32(2.5)}, {"bleu": 2.5}), (3, {"score": 3.0}), (0.5, {"score": 0.5})]
)
def test_a_function_of_the_model(model, returned, expected):
    asked = []
    found = make_validate(lambda given: asked.append(given) or returned)(model)
    assert found == expected
    assert all(type(value) is float for value in found.values())
    assert asked == [model]


def test_no_batches(model):
    """As of a generator that is gone over a second time."""
    validate = LossValidation(iter([make_rows(3)]))
    validate(model)
    with pytest.raises(ValueError, match="validation has no batches; give Batches, or another iterable"):
        validate(model)
