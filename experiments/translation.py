"""Trains every model of the results table on Multi30k, and writes the table and the learning curves.

    python data/multi30k.py
    python experiments/translation.py --list
    python experiments/translation.py --runs runs/translation
    python experiments/translation.py --only 'en_fr_lstm.*'

Each run is what `seq2split train` makes of a configuration in this folder. Those that are done are not done again, and
one that was interrupted is resumed: the same command goes on where it stood. The folder of the runs then holds
`results.md`, and a picture of the curves for each table.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from quality.tables import Outcome, batch_tables, model_tables
from quality.trials import LANGUAGES, SOURCE, SPLITS, Trial, batch_trials, model_trials

from seq2split.common.files import write_atomically
from seq2split.config import differences, load
from seq2split.translation.plots import check_matplotlib, plot_curves

DATA = Path(__file__).parents[1] / "data" / "multi30k"


def main() -> int:
    """Do what is chosen and return the status of the process."""
    chosen = _arguments()
    trials = {trial.name: trial for trial in (*model_trials(), *batch_trials())}
    picked = [trial for trial in trials.values() if chosen.only.fullmatch(trial.name)]
    try:
        if chosen.decode:
            return _decode(trials[chosen.decode], chosen)
        if chosen.list:
            print("\n".join(f"{each.name}: {each.config.name}, {each.settings}" for each in picked))
            return 0
        _check(chosen, picked)
        for number, trial in enumerate(picked, 1):
            print(f"\n{trial.name}, {number} of {len(picked)}", file=sys.stderr)
            _do(trial, chosen)
        print(_report(chosen))
    except (ValueError, OSError, ImportError) as error:
        print(f"translation: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/translation"), help="default: %(default)s")
    parser.add_argument(
        "--only", type=_pattern, default=".*", metavar="REGEX", help="which runs to do, by name (default: all)"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the raw files (default: data/multi30k)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key in every run")
    parser.add_argument("--list", action="store_true", help="show the runs, and do none")
    parser.add_argument("--decode", help=argparse.SUPPRESS)  # how the script translates with one run, apart
    return parser.parse_args()


def _pattern(text: str) -> re.Pattern:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text} is no regular expression: {error}") from error


def _check(chosen: argparse.Namespace, picked: Sequence[Trial]) -> None:
    """Look for what would only be missed after hours of training."""
    check_matplotlib()
    if not picked:
        raise ValueError(f"--only {chosen.only.pattern}: no run has such a name; --list shows them")
    for language in (SOURCE, *dict.fromkeys(trial.language for trial in picked)):
        for split in SPLITS:
            path = chosen.data / f"{split}.{language}.gz"
            if not path.exists():
                raise ValueError(f"{path} is missing: run python data/multi30k.py, or give the folder with --data")


def _do(trial: Trial, chosen: argparse.Namespace) -> None:
    """Train a run and translate with it, unless that was done with the same settings."""
    run = chosen.runs / trial.name
    if _is_done(trial, chosen):
        changed = _changed(trial, chosen)
        if not changed:
            return
        if not all(key.startswith("search.") for key in changed):
            raise ValueError(f"{run} was done with other settings of {', '.join(changed)}: delete it, or give --runs")
    for decoding in trial.decodings:
        decoding.file(run).unlink(missing_ok=True)  # training writes the new settings, and may be interrupted
    given = [argument for setting in _settings(trial, chosen) for argument in ("--set", setting)]
    _call("-m", "seq2split", "train", trial.config, "--run", run, *given)
    _call(Path(__file__), "--decode", trial.name, "--runs", chosen.runs, "--data", chosen.data)


def _settings(trial: Trial, chosen: argparse.Namespace) -> list[str]:
    return [*trial.overrides(chosen.data), *chosen.set]


def _is_done(trial: Trial, chosen: argparse.Namespace) -> bool:
    return all(decoding.file(chosen.runs / trial.name).exists() for decoding in trial.decodings)


def _changed(trial: Trial, chosen: argparse.Namespace) -> list[str]:
    """The keys with which a run was trained otherwise than it would be now."""
    return differences(load(chosen.runs / trial.name / "config.toml"), load(trial.config, _settings(trial, chosen)))


def _decode(trial: Trial, chosen: argparse.Namespace) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from quality.decoding import decode

    decode(trial, chosen.runs / trial.name, chosen.data)
    return 0


def _call(*arguments: object) -> None:
    """Run Python in a process of its own; an interrupt lets it save first."""
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.Popen(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def _report(chosen: argparse.Namespace) -> str:
    """Write the tables of all that is done with the same settings, and draw the curves."""
    runs = chosen.runs
    models, batches = (
        [Outcome.of(trial, runs / trial.name, chosen.data) for trial in trials if _is_comparable(trial, chosen)]
        for trials in (model_trials(), batch_trials())
    )
    text = "\n\n".join([*model_tables(models), *batch_tables(batches)])
    write_atomically(runs / "results.md", (text + "\n").encode())
    curves = {f"en_{language}": [each for each in models if each.language == language] for language in LANGUAGES}
    for name, outcomes in (curves | {"batches": batches}).items():
        if outcomes:
            plot_curves({outcome.name: outcome.history for outcome in outcomes}, runs / f"{name}.png")
    return text


def _is_comparable(trial: Trial, chosen: argparse.Namespace) -> bool:
    if not _is_done(trial, chosen):
        return False
    changed = _changed(trial, chosen)
    if changed:
        print(f"left out of the tables: {trial.name}, done with other {', '.join(changed)}", file=sys.stderr)
    return not changed


if __name__ == "__main__":
    sys.exit(main())
