"""Scores of translations, by sacreBLEU (Post, 2018, https://aclanthology.org/W18-6319)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF


@dataclass(frozen=True)
class Score:
    """One metric over a corpus.

    Attributes:
        name: `BLEU` or `chrF2`.
        value: From 0 to 100.
        text: The value with its components, as sacreBLEU prints it.
        signature: What it was computed with, so that others can repeat it.
    """

    name: str
    value: float
    text: str
    signature: str


def score(hypotheses: Sequence[str], references: Sequence[str]) -> list[Score]:
    """BLEU and chrF of a corpus.

    Args:
        hypotheses: The translations, detokenized.
        references: One reference for each.

    Returns:
        BLEU, then chrF.

    Raises:
        ValueError: The numbers of sentences differ, or are zero.

    Example:
        >>> [(s.name, round(s.value)) for s in score(["a small brown dog runs"], ["a small brown dog runs"])]
        [('BLEU', 100), ('chrF2', 100)]
    """
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"there are {len(hypotheses)} translations and {len(references)} references; expected one reference for "
            "each translation, and at least one."
        )
    results = []
    for metric in (BLEU(), CHRF()):
        result = metric.corpus_score(list(hypotheses), [list(references)])
        results.append(Score(result.name, result.score, result.format(), str(metric.get_signature())))
    return results
