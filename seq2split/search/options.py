"""How to search."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_BEAM = 10_000
LARGEST = {"length_penalty": 10, "coverage": 1000, "min_length_ratio": 1000, "max_length_ratio": 1000}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search for the likeliest outputs of a model.

    Attributes:
        beam: The number of hypotheses of a sentence that are followed at once; 1 is greedy search.
        length_penalty: The power of the length that log-probabilities are divided by, 0 for none.
        coverage: The weight of the penalty on source positions that got little attention, 0 for none.
        min_length_ratio: The fewest pieces of an output, as a multiple of the source's length, 0 for no bound.
        max_length_ratio: The most pieces of an output, likewise.

    Raises:
        ValueError: No search is possible with these; the message says what to change.

    Example:
        >>> SearchOptions(beam=4, max_length_ratio=2.0).length_penalty
        1.0
        >>> SearchOptions(beam=0)
        Traceback (most recent call last):
        ...
        ValueError: a beam of 0 follows nothing; expected at least 1, which is greedy search.
    """

    beam: int = 5
    length_penalty: float = 1.0
    coverage: float = 0.0
    min_length_ratio: float = 0.0
    max_length_ratio: float = 0.0

    def __post_init__(self):
        if self.beam < 1:
            raise ValueError(f"a beam of {self.beam} follows nothing; expected at least 1, which is greedy search.")
        if self.beam > LARGEST_BEAM:
            raise ValueError(f"a beam of {self.beam} is out of reach; expected at most {LARGEST_BEAM}.")
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if not 0 <= value <= largest:
                raise ValueError(f"{name} is {value}; expected a number from 0 to {largest}.")
        if self.max_length_ratio and self.min_length_ratio > self.max_length_ratio:
            raise ValueError(
                f"min_length_ratio is {self.min_length_ratio}, above a max_length_ratio of {self.max_length_ratio}; "
                "lower the one or raise the other, or set max_length_ratio to 0 for no bound."
            )


def check_n_best(n_best: int, beam: int) -> None:
    """Check that a beam can find as many hypotheses as are wanted.

    Args:
        n_best: The number of hypotheses of a sentence that are wanted.
        beam: The number that are followed at once.

    Raises:
        ValueError: It is less than 1, or more than the beam.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(
            f"{n_best} hypotheses of a sentence were asked for, of a beam of {beam}; expected at least 1 and no more "
            "than the beam: ask for fewer, or widen the beam."
        )
