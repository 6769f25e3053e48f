"""Widened matrices: their products, and their sizes."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import assert_close, normal

from seq2split.layers.products import widened


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [1, 30, 31, 32, 33])
def test_widened_products_add_the_products_of_what_was_added(axis, size):
    left, right = normal(4, size), normal(size, 7, seed=1)
    columns, rows = [normal(4, seed=seed) for seed in (2, 3)], [normal(7, seed=seed) for seed in (4, 5)]
    wide = widened(left, columns, 1, "float64"), widened(right, rows, 0, "float64")
    assert wide[0].shape[1] % 32 == 0
    assert wide[0].shape[1] - size < 34
    expected = left @ right + sum(np.outer(column, row) for column, row in zip(columns, rows, strict=True))
    assert_close(wide[0] @ wide[1], expected)
