"""What hypotheses are ranked by, and the bounds of their lengths."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from seq2split.search import SearchOptions
from seq2split.search.scoring import coverage_penalties, length_bounds, length_divisor


@pytest.mark.parametrize(("length", "power", "expected"), [(1, 3.0, 1.0), (9, 0.0, 1.0), (7, 1.0, 2.0), (13, 2.0, 9.0)])
def test_length_divisor(length, power, expected):
    assert length_divisor(length, SearchOptions(length_penalty=power)) == expected


def test_coverage_penalties():
    """Attention above 1 is not rewarded, none at all is not infinite, and encoders add up."""
    one, other = np.array([[1.0, 0.5, 3.0], [1.0, 1.0, 0.0]]), np.array([[0.25], [1.0]])
    found = coverage_penalties([tf.constant(each, tf.float32) for each in (one, other)])
    np.testing.assert_allclose(found, [np.log(0.5) + np.log(0.25), np.log(1e-9)], rtol=1e-6)


@pytest.mark.parametrize(
    ("lengths", "max_length", "ratios", "expected"),
    [
        ([1, 4, 10], 20, (0, 0), ([1, 1, 1], [20, 20, 20])),
        ([1, 4, 10], 20, (0.5, 1.5), ([1, 2, 5], [1, 6, 15])),
        ([1, 4, 10], 8, (1, 1), ([1, 4, 8], [1, 4, 8])),
        ([3], 8, (0.4, 0.5), ([1], [1])),
        ([3], 8, (0.1, 0.1), ([1], [1])),
        ([3], 8, (3, 0), ([8], [8])),
        ([50], 200, (1.1, 2.3), ([55], [115])),  # 55.00000000000001 and 114.99999999999999 in floats
    ],
)
def test_length_bounds(lengths, max_length, ratios, expected):
    options = SearchOptions(min_length_ratio=ratios[0], max_length_ratio=ratios[1])
    found = length_bounds(np.array(lengths), max_length, options)
    assert [each.tolist() for each in found] == list(expected)
