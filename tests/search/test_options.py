"""What may be asked of a search."""

from __future__ import annotations

import pytest

from seq2split.search import SearchOptions
from seq2split.search.options import check_n_best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "a beam of 0 follows nothing; expected at least 1"),
        ({"length_penalty": -0.1}, "length_penalty is -0.1; expected a number from 0 to 10"),
        ({"length_penalty": 1e308}, "length_penalty is 1e.308; expected a number from 0 to 10"),
        ({"beam": 10**30}, "is out of reach; expected at most 10000"),
        ({"coverage": float("nan")}, "coverage is nan"),
        ({"max_length_ratio": float("inf")}, "max_length_ratio is inf"),
        ({"min_length_ratio": 2.0, "max_length_ratio": 1.5}, "2.0, above a max_length_ratio of 1.5; lower the one"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        SearchOptions(**options)


def test_a_minimum_without_a_maximum():
    assert SearchOptions(min_length_ratio=2.0).max_length_ratio == 0


@pytest.mark.parametrize("n_best", [0, 4])
def test_wrong_n_best(n_best):
    with pytest.raises(ValueError, match=f"{n_best} hypotheses .* of a beam of 3.*ask for fewer, or widen the beam"):
        check_n_best(n_best, 3)
    for possible in (1, 3):
        check_n_best(possible, 3)
