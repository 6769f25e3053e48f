"""What the commands of the command line do; `cli` says what they take.

Every function takes the parsed arguments of its command, by the names that `cli` gives them.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path

from seq2split.buckets import OverlongError
from seq2split.common.files import write_atomically
from seq2split.config import load
from seq2split.corpus.parallel_text import read_lines, read_parallel, split_lines
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import read_history
from seq2split.split.threads import use_cores
from seq2split.translation.alignment import align
from seq2split.translation.evaluation import score, score_by_length
from seq2split.translation.experiment import Experiment, prepare
from seq2split.translation.experiment_files import ExperimentFiles
from seq2split.translation.inspection import inspect_model
from seq2split.translation.plots import check_picture, plot_alignment, plot_curves
from seq2split.translation.translator import Translation, Translator

_BOOTSTRAP = 1000  # corpora resampled for the confidence of a score: half a second for 1,000 sentences


def train(chosen: argparse.Namespace) -> None:
    """Train a model, or resume its training, and show translations by the best one."""
    with _configuration(chosen.config) as path:
        config = load(path, chosen.set)
        run = chosen.run or str(Path("runs", Path(path).stem))
        threads, directory = use_cores(), RunDirectory(run)
        with directory.lock.held():
            experiment = Experiment(config, directory, threads, changed_corpus=chosen.changed_corpus)
            experiment.train()
    if config.training.samples and experiment.validation.can_translate:
        print("\nTranslations by the best model:\n")
        print(experiment.samples(Translator.load(run, threads)))
    print(f"\nTry:  echo ... | seq2split translate {run}")


@contextmanager
def _configuration(path: str | None) -> Iterator[str]:
    """Yield the path of a configuration; by default that of the embedded one, wherever the package is installed."""
    if path is not None:
        yield path
    else:
        with resources.as_file(resources.files("seq2split.data")) as data:
            yield str(data / "default.toml")


def evaluate(chosen: argparse.Namespace) -> None:
    """Translate a test set, and print BLEU and chrF with confidence, and by source length."""
    _check_output(chosen.output)
    files = {"source": chosen.source, "source2": chosen.source2, "reference": chosen.reference}
    lines = read_parallel({side: [file] for side, file in files.items() if file})
    reference = lines.pop("reference")
    translator = _load_translator(chosen)
    translations = [best[0].text for best in _run_translator(translator, chosen, 1, *lines.values())]
    if chosen.output:
        _write_lines(chosen.output, translations)
    for result in score(translations, reference, _BOOTSTRAP):
        print(f"{result.text}\n  {result.signature}")
    lengths = [len(row) for row in translator.vocabularies["source"].encode(lines["source"])]
    print(f"\n{score_by_length(translations, reference, lengths, translator.buckets['source'])}")


def translate(chosen: argparse.Namespace) -> None:
    """Translate sentences, one a line."""
    _check_output(chosen.output)
    source = split_lines(sys.stdin.buffer.read(), "standard input") if chosen.input == "-" else read_lines(chosen.input)
    sources = [source, read_lines(chosen.source2)] if chosen.source2 else [source]
    count = 1 if chosen.n_best is None else chosen.n_best
    found = _run_translator(_load_translator(chosen), chosen, count, *sources)
    lines = [_line(chosen, number, each) for number, best in enumerate(found) for each in best]
    if chosen.output == "-":
        sys.stdout.writelines(line + "\n" for line in lines)
    else:
        _write_lines(chosen.output, lines)


def _line(chosen: argparse.Namespace, number: int, translation: Translation) -> str:
    """Return a translation as Moses writes it, with its sentence's number and its score where they are asked for."""
    before = [] if chosen.n_best is None else [str(number)]
    after = [f"{translation.score:.6f}"] if chosen.scores else []
    return " ||| ".join([*before, translation.text, *after])


def _load_translator(chosen: argparse.Namespace) -> Translator:
    translator = Translator.load(chosen.run, use_cores())
    if bool(chosen.source2) != (len(translator.encoders) > 1):
        mend = "leave --source2 out" if chosen.source2 else "give the sentences of its second language with --source2"
        raise ValueError(f"{chosen.run} translates from {len(translator.encoders)} source languages: {mend}")
    return translator


def _run_translator(
    translator: Translator, chosen: argparse.Namespace, count: int, *sources: list[str]
) -> list[list[Translation]]:
    """Return the best translations of each sentence; an empty one of a sentence that was skipped."""

    search = translator.search_options
    given = {each.name: getattr(chosen, each.name) for each in fields(search)}
    search = replace(search, **{name: value for name, value in given.items() if value is not None})
    overlong = chosen.overlong or translator.config.data.overlong
    try:
        found, admission = translator.n_best(
            count, *sources, overlong=overlong, progress=sys.stderr.isatty(), search=search
        )
    except OverlongError as error:
        error.add_note("To translate nevertheless give --overlong truncate or --overlong skip.")
        raise
    if admission.truncated or admission.skipped:
        print(
            f"seq2split: of {len(sources[0])} sentences {admission.truncated} were truncated and {admission.skipped} "
            "were skipped (their translations are empty): they are longer than the last source bucket",
            file=sys.stderr,
        )
    return [best or [Translation("", -math.inf)] for best in found]


def _check_output(path: str | None) -> None:
    """Check a path, so that a wrong one is an error before the translation, not after."""
    if path is not None and not Path(path).parent.is_dir():
        raise ValueError(f"--output {path}: there is no directory {Path(path).parent}; make it first")


def _write_lines(path: str, lines: list[str]) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    write_atomically(Path(path), gzip.compress(data) if path.endswith(".gz") else data)


def attention(chosen: argparse.Namespace) -> None:
    """Draw what the decoder reads for each target piece."""
    _check_output(chosen.output)
    check_picture(Path(chosen.output))
    sources = [chosen.source, chosen.source2] if chosen.source2 else [chosen.source]
    alignment = align(_load_translator(chosen), sources, chosen.target)
    plot_alignment(alignment, Path(chosen.output))
    print(chosen.output)


def plot(chosen: argparse.Namespace) -> None:
    """Draw the learning curves of runs."""
    _check_output(chosen.output)
    paths = [RunDirectory(run).history for run in dict.fromkeys(chosen.runs)]
    names = [path.parent.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path.parent) for path in paths]
    output = Path(chosen.output) if chosen.output else paths[0].with_name("curves.png")
    check_picture(output)
    plot_curves({name: read_history(path) for name, path in zip(names, paths, strict=True)}, output)
    print(output)


def inspect(chosen: argparse.Namespace) -> None:
    """Print parts, buckets, part graphs and residual bytes."""
    if Path(chosen.run).is_dir():
        if chosen.set:
            raise ValueError(f"{chosen.run} is a run, whose settings are fixed: give --set with a configuration")
        files = ExperimentFiles(chosen.run)
        config = files.config()
        translator = Translator(config, files.vocabularies(config), files.buckets(config))
    else:
        config = load(chosen.run, chosen.set)
        with tempfile.TemporaryDirectory() as scratch:
            _, translator = prepare(config, ExperimentFiles(scratch))
    print(inspect_model(translator.model, config.batches.tokens, progress=sys.stderr.isatty()))
