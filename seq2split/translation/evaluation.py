"""Scores of translations, by sacreBLEU (Post, 2018, https://aclanthology.org/W18-6319)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF

from seq2split.buckets import Buckets
from seq2split.common.tables import table


@dataclass(frozen=True)
class Score:
    """One metric over a corpus.

    Attributes:
        name: `BLEU` or `chrF2`.
        value: From 0 to 100.
        text: The value with its components, and with the mean and the 95 % interval of the bootstrap if there was one,
            as sacreBLEU prints it.
        signature: What it was computed with, so that others can repeat it.
    """

    name: str
    value: float
    text: str
    signature: str


def score(hypotheses: Sequence[str], references: Sequence[str], bootstrap: int = 1) -> list[Score]:
    """BLEU and chrF of a corpus.

    Args:
        hypotheses: The translations, detokenized.
        references: One reference for each.
        bootstrap: How many corpora to resample for the confidence interval (Koehn, 2004,
            https://aclanthology.org/W04-3250), with sacreBLEU's fixed seed; 1 for no interval. There is none either
            where all translations of a resampled corpus are empty, as may happen with a few sentences.

    Returns:
        BLEU, then chrF.

    Raises:
        ValueError: The numbers of sentences differ, or are zero.

    Example:
        >>> [(s.name, round(s.value)) for s in score(["a small brown dog runs"], ["a small brown dog runs"])]
        [('BLEU', 100), ('chrF2', 100)]
    """
    return [_score(kind, hypotheses, references, bootstrap) for kind in (BLEU, CHRF)]


def bleu_score(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus alone: chrF takes several times as long.

    Args:
        hypotheses: See `score`.
        references: See `score`.

    Returns:
        From 0 to 100.
    """
    return _score(BLEU, hypotheses, references, 1).value


def _score(kind: type[BLEU | CHRF], hypotheses: Sequence[str], references: Sequence[str], bootstrap: int) -> Score:
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"there are {len(hypotheses)} translations and {len(references)} references; expected one reference for "
            "each translation, and at least one."
        )
    metric = kind()
    try:
        result = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=bootstrap)
    except TypeError:  # chrF of nothing is a Python float, of anything else a float32: it can't average the two
        metric = kind()
        result = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(result.name, result.score, result.format(), str(metric.get_signature()))


def score_by_length(
    hypotheses: Sequence[str], references: Sequence[str], lengths: Sequence[int], buckets: Buckets
) -> str:
    """BLEU and chrF of the sentences of each source bucket.

    Args:
        hypotheses: The translations, detokenized.
        references: One reference for each.
        lengths: The source pieces of each.
        buckets: Of the source side. Sentences that are longer than the last one are counted apart.

    Returns:
        A table, a row for each bucket that has sentences.
    """
    ends = (*buckets.boundaries, max(lengths))
    rows, start = [], 0
    for end in dict.fromkeys(ends):
        at = [place for place, length in enumerate(lengths) if start < length <= end]
        if at:
            bleu, chrf = score([hypotheses[place] for place in at], [references[place] for place in at])
            rows.append((f"{start + 1} to {end}", len(at), f"{bleu.value:.2f}", f"{chrf.value:.2f}"))
        start = end
    return table(("source pieces", "sentences", "BLEU", "chrF2"), rows)
