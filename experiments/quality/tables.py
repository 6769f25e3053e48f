"""The tables of what the runs came to, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from quality.trials import BEAM, GREEDY, PENALIZED, Trial
from seq2split.common.tables import table
from seq2split.corpus.parallel_text import read_lines
from seq2split.runs.history import Entry, read_history
from seq2split.runs.sessions import read_sessions
from seq2split.translation.evaluation import Score, score

_BOOTSTRAP = 1000
_table = partial(table, flush_right=True, markdown=True)
_COLUMNS = (
    "run",
    "BLEU, greedy",
    "BLEU, beam 5",
    "chrF2, beam 5",
    "best validation BLEU",
    "of the average",
    "minutes",
    "tokens/s",
    "parameters",
)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        name: Of the run.
        language: Of the target.
        scores: BLEU and chrF of each decoding, by its name.
        history: What was measured in training.
        parameters: How many numbers are trained, if the run's record tells.
    """

    name: str
    language: str
    scores: Mapping[str, Sequence[Score]]
    history: Sequence[Entry]
    parameters: int | None

    @classmethod
    def of(cls, trial: Trial, run: Path, data: Path) -> Outcome:
        """That of a trial that is done."""
        scores = {}
        for decoding in trial.decodings:
            reference = read_lines(trial.corpus(decoding.split, data)["target"])
            bootstrap = 1 if decoding in PENALIZED.values() else _BOOTSTRAP
            scores[decoding.name] = score(read_lines(decoding.file(run)), reference, bootstrap)
        sessions = read_sessions(run / "run.json") if (run / "run.json").exists() else []
        parameters = next((session["parameters"] for session in sessions if "parameters" in session), None)
        return cls(trial.name, trial.language, scores, read_history(run / "history.jsonl"), parameters)

    def bleu(self, decoding: str) -> float:
        """BLEU of a decoding."""
        return self.scores[decoding][0].value

    def best(self, key: str) -> float | None:
        """The highest figure of a kind in training, if there is one."""
        return max((entry[key] for entry in self.history if key in entry), default=None)


def model_tables(outcomes: Sequence[Outcome]) -> list[str]:
    """A row for each model: how well it translates, what it took, and which length penalty suits it."""
    if not outcomes:
        return []
    details = [f"{outcome.name}: {outcome.scores[BEAM.name][0].text}" for outcome in outcomes]
    details += dict.fromkeys(outcome.scores[BEAM.name][0].signature for outcome in outcomes)
    penalized = [
        (outcome.name, *(f"{outcome.bleu(decoding.name):.2f}" for decoding in PENALIZED.values()))
        for outcome in outcomes
    ]
    return [
        _table(_COLUMNS, map(_row, outcomes)),
        "\n".join(["```text", *details, "```"]),
        _table(("validation BLEU, beam 5, by length penalty", *map(str, PENALIZED)), penalized),
    ]


def batch_tables(outcomes: Sequence[Outcome]) -> list[str]:
    """Three rows for each kind of batches: the scores by seed, and their mean and standard deviation."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.name.rpartition("_")[0], []).append(outcome)
    rows = [
        (kind, label, ", ".join(f"{figure:.2f}" for figure in figures), _spread(figures))
        for kind, found in kinds.items()
        for label, figures in (
            ("test, greedy", [outcome.bleu(GREEDY.name) for outcome in found]),
            ("test, beam 5", [outcome.bleu(BEAM.name) for outcome in found]),
            ("validation", [outcome.best("validation_bleu") for outcome in found]),
        )
    ]
    return [_table(("batches", "BLEU", "by seed", "mean"), rows)] if rows else []


def _row(outcome: Outcome) -> list[str]:
    last, average = outcome.history[-1], outcome.best("average_bleu")
    return [
        outcome.name,
        f"{outcome.bleu(GREEDY.name):.2f}",
        f"{outcome.bleu(BEAM.name):.2f}",
        f"{outcome.scores[BEAM.name][1].value:.2f}",
        f"{outcome.best('validation_bleu'):.2f}",
        "-" if average is None else f"{average:.2f}",
        f"{last['seconds'] / 60:.1f}",
        f"{last['tokens'] / last['seconds']:,.0f}",
        "-" if outcome.parameters is None else f"{outcome.parameters / 1e6:.2f} M",
    ]


def _spread(figures: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(figures):.2f}" if len(figures) > 1 else ""
    return f"{statistics.mean(figures):.2f}{deviation}"
