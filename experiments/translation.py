"""Trains every model of the results table on Multi30k, and writes the table and the learning curves.

    python data/multi30k.py
    python experiments/translation.py --list
    python experiments/translation.py --runs runs/translation
    python experiments/translation.py --only 'en_fr_lstm.*'

Each run is what `seq2split train` and `seq2split evaluate` make of a configuration in this folder. Those that are done
are not done again, and one that was interrupted is resumed: the same command goes on where it stood. The folder of the
runs then holds `results.md` and a picture of the curves for each table.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seq2split.config import differences, load
from seq2split.evaluation import Score, score
from seq2split.files import write_atomically
from seq2split.history import Entry, read_history
from seq2split.plots import check_matplotlib, plot_curves
from seq2split.sessions import read_sessions
from seq2split.text import read_lines

FOLDER = Path(__file__).parent
DATA = FOLDER.parent / "data" / "multi30k"
SPLITS = ("train", "val", "test_2016_flickr")
LANGUAGES = {"de": "German", "fr": "French"}
CONFIGS = {"lstm": "multi30k_en_{}.toml", "transformer": "multi30k_en_{}_transformer.toml"}
BEAMS = (1, 5)
SHORT = 4000  # steps of the runs that compare kinds of batches: mixed ones take twice as long
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Trial:
    """A run of the table.

    Attributes:
        name: Of its directory.
        language: Of the target.
        config: Its configuration.
        settings: What is set otherwise than there.
    """

    name: str
    language: str
    config: Path
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def sides(self) -> dict[str, str]:
        """The language of each side."""
        return {"source": "en", "target": self.language}

    @property
    def overrides(self) -> list[str]:
        """The settings as `--set` takes them."""
        return [f"{key}={value}" for key, value in self.settings.items()]


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        scores: For each beam BLEU and chrF of the test set.
        history: What was measured in training.
        parameters: How many numbers are trained.
    """

    scores: Mapping[int, Sequence[Score]]
    history: Sequence[Entry]
    parameters: int

    def bleu(self, beam: int) -> float:
        """BLEU of the test set."""
        return self.scores[beam][0].value

    def best(self, key: str) -> float | None:
        """The highest figure of that key in the history, if there is one."""
        return max((entry[key] for entry in self.history if key in entry), default=None)


def translation_trials() -> dict[str, Trial]:
    """Both languages, architectures and precisions."""
    return {
        f"en_{language}_{architecture}_{precision}": Trial(
            f"en_{language}_{architecture}_{precision}",
            language,
            FOLDER / config.format(language),
            {"precision": setting},
        )
        for language in LANGUAGES
        for architecture, config in CONFIGS.items()
        for precision, setting in (("bfloat16", "mixed_bfloat16"), ("float32", "float32"))
    }


def batch_trials() -> dict[str, Trial]:
    """Batches of one bucket pair against uniformly shuffled ones, with three seeds."""
    return {
        f"en_de_lstm_{mode}_{seed}": Trial(
            f"en_de_lstm_{mode}_{seed}",
            "de",
            FOLDER / CONFIGS["lstm"].format("de"),
            {"batches.mode": mode, "seed": seed, "training.steps": SHORT},
        )
        for seed in (1, 2, 3)
        for mode in ("homogeneous", "mixed")
    }


def main() -> int:
    """Runs what is chosen; returns the status of the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/translation"), help="default: %(default)s")
    parser.add_argument("--only", default=".*", metavar="REGEX", help="of names of runs; the table has what is done")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the raw files (default: data/multi30k)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key in every run")
    parser.add_argument("--list", action="store_true", help="show the runs, and do none")
    chosen = parser.parse_args()
    trials = translation_trials() | batch_trials()
    picked = [trial for trial in trials.values() if re.fullmatch(chosen.only, trial.name)]
    try:
        if chosen.list:
            print("\n".join(f"{trial.name}: {trial.config.name} {' '.join(trial.overrides)}" for trial in picked))
            return 0
        _check(chosen, picked)
        for number, trial in enumerate(picked, 1):
            print(f"\n{trial.name}, {number} of {len(picked)}", file=sys.stderr)
            _do(trial, chosen)
        print(_report(chosen))
    except (ValueError, OSError, ImportError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130
    return 0


def _check(chosen: argparse.Namespace, picked: Sequence[Trial]) -> None:
    """Looks for what would only be missed after hours of training."""
    check_matplotlib()
    if not picked:
        raise ValueError(f"--only {chosen.only}: no run has such a name; --list shows them")
    for language in ("en", *dict.fromkeys(trial.language for trial in picked)):
        for split in SPLITS:
            path = chosen.data / f"{split}.{language}.gz"
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} is missing: run python data/multi30k.py, or give its folder with --data"
                )


def _do(trial: Trial, chosen: argparse.Namespace) -> None:
    """Trains a run and translates the test set, unless it was done with the same settings."""
    path = chosen.runs / trial.name
    train, valid, test = (
        {side: chosen.data / f"{split}.{language}.gz" for side, language in trial.sides.items()} for split in SPLITS
    )
    corpora = [f"data.train_{side}={file.resolve()}" for side, file in train.items()]
    corpora += [f"data.valid_{side}={file.resolve()}" for side, file in valid.items()]
    settings = [*corpora, *trial.overrides, *chosen.set]
    translations = {beam: _translations(path, beam) for beam in BEAMS}
    if all(file.exists() for file in translations.values()):
        changed = differences(load(path / "config.toml"), load(trial.config, settings))
        if changed:
            raise ValueError(f"{path} was done with other settings of {', '.join(changed)}: delete it, or give --runs")
        return
    _call("train", trial.config, "--run", path, *(argument for each in settings for argument in ("--set", each)))
    for beam, file in translations.items():
        files = ("--source", test["source"], "--reference", test["target"], "--output", file)
        _call("evaluate", path, *files, "--beam", beam)


def _call(*arguments: object) -> None:
    """Runs a command of seq2split in a process of its own; an interrupt lets it save first."""
    command = [sys.executable, "-m", "seq2split", *map(str, arguments)]
    process = subprocess.Popen(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def _translations(path: Path, beam: int) -> Path:
    return path / f"test_2016_flickr.beam{beam}.txt"


def _report(chosen: argparse.Namespace) -> str:
    """Writes the tables of all that is done, and draws the curves."""
    runs = chosen.runs
    translated, batched = (_outcomes(chosen, trials) for trials in (translation_trials(), batch_trials()))
    sections = [_languages(translated), _details(translated), _batches(batched)]
    text = "\n\n".join(section for section in sections if section)
    write_atomically(runs / "results.md", (text + "\n").encode())
    for language in LANGUAGES:
        _draw({name: each for name, each in translated.items() if name[3:5] == language}, runs / f"en_{language}.png")
    _draw(batched, runs / "batches.png")
    return text


def _outcomes(chosen: argparse.Namespace, trials: Mapping[str, Trial]) -> dict[str, Outcome]:
    """Of the trials that are done."""
    found = {}
    for name, trial in trials.items():
        path = chosen.runs / name
        if not all(_translations(path, beam).exists() for beam in BEAMS):
            continue
        reference = read_lines(chosen.data / f"test_2016_flickr.{trial.language}.gz")
        scores = {beam: score(read_lines(_translations(path, beam)), reference, BOOTSTRAP) for beam in BEAMS}
        parameters = read_sessions(path / "run.json")[-1]["parameters"]
        found[name] = Outcome(scores, read_history(path / "history.jsonl"), parameters)
    return found


def _languages(outcomes: Mapping[str, Outcome]) -> str:
    """A row for each model: test scores, validations, and what the training took."""
    rows = []
    for name, outcome in outcomes.items():
        last = outcome.history[-1]
        average = outcome.best("average_bleu")
        rows.append(
            (
                name,
                f"{outcome.bleu(1):.2f}",
                f"{outcome.bleu(5):.2f}",
                f"{outcome.scores[5][1].value:.2f}",
                f"{outcome.best('validation_bleu'):.2f}",
                "" if average is None else f"{average:.2f}",
                f"{last['seconds'] / 60:.1f}",
                f"{last['tokens'] / last['seconds']:,.0f}",
                f"{outcome.parameters / 1e6:.2f} M",
            )
        )
    titles = (
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
    return _table(titles, rows) if rows else ""


def _details(outcomes: Mapping[str, Outcome]) -> str:
    """BLEU with its components and interval, as sacreBLEU prints it."""
    lines = [f"{name}: {outcome.scores[5][0].text}" for name, outcome in outcomes.items()]
    signatures = {outcome.scores[5][0].signature for outcome in outcomes.values()}
    return "\n".join(["```text", *lines, *signatures, "```"]) if lines else ""


def _batches(outcomes: Mapping[str, Outcome]) -> str:
    """A row for each kind of batches: the scores by seed, their mean and standard deviation."""
    kinds: dict[str, list[Outcome]] = {}
    for name, outcome in outcomes.items():
        kinds.setdefault(name.rsplit("_", 1)[0], []).append(outcome)
    rows = []
    for kind, found in kinds.items():
        for label, figures in (
            ("test, greedy", [outcome.bleu(1) for outcome in found]),
            ("test, beam 5", [outcome.bleu(5) for outcome in found]),
            ("validation", [outcome.best("validation_bleu") for outcome in found]),
        ):
            deviation = f" ± {statistics.stdev(figures):.2f}" if len(figures) > 1 else ""
            seeds = ", ".join(f"{figure:.2f}" for figure in figures)
            rows.append((kind, label, seeds, f"{statistics.mean(figures):.2f}{deviation}"))
    return _table(("batches", "BLEU", "by seed", "mean"), rows) if rows else ""


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [titles, ["---", *("---:" for _ in list(titles)[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _draw(outcomes: Mapping[str, Outcome], path: Path) -> None:
    if outcomes:
        plot_curves({name: outcome.history for name, outcome in outcomes.items()}, path)


if __name__ == "__main__":
    sys.exit(main())
