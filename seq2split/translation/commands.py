"""What the commands of the command line do; `cli` says what they take.

Every function takes the parsed arguments of its command, by the names that `cli` gives them.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path

from seq2split.common.files import check_writable, doing, write_atomically
from seq2split.config import Config, idle_settings, load
from seq2split.corpus.admission import Provenance
from seq2split.corpus.parallel_text import read_lines, read_parallel, split_lines
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import read_history
from seq2split.split.threads import use_cores
from seq2split.training.messages import say
from seq2split.translation.alignment import align
from seq2split.translation.architectures import check_architecture
from seq2split.translation.evaluation import score, score_by_length
from seq2split.translation.experiment import Experiment, prepare
from seq2split.translation.experiment_files import ExperimentFiles
from seq2split.translation.inputs import read_inputs
from seq2split.translation.inspection import inspect_model
from seq2split.translation.plots import check_picture, plot_alignment, plot_curves
from seq2split.translation.translator import Translation, Translator

_BOOTSTRAP = 1000  # corpora resampled for the confidence of a score: half a second for 1,000 sentences


def train(chosen: argparse.Namespace) -> None:
    """Train a model, or resume its training, and show translations by the best one."""
    with _configuration(chosen.config) as path:
        config = _load(path, chosen.set)
        run = chosen.run or str(Path("runs", Path(path).stem))
        threads, directory = use_cores(), RunDirectory(run)
        lines = read_inputs(config, directory.path)  # before the lock, which makes the directory
        with directory.lock.held():
            experiment = Experiment(config, directory, threads, lines, changed_corpus=chosen.changed_corpus)
            experiment.train()
    if config.training.samples and experiment.validation.can_translate:
        print("\nTranslations by the best model:\n")
        print(experiment.samples(Translator.load(run, threads)))
    print(f"\nTry:  echo ... | seq2split translate {run}")


def _load(path: str, overrides: list[str]) -> Config:
    """Return a configuration, and say what in it does nothing."""
    config = load(path, overrides)
    for sentence in idle_settings(config, overrides):
        say(sentence)
    return config


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
    _check_standard_output("the scores")
    files = {"source": chosen.source, "source2": chosen.source2, "reference": chosen.reference}
    files = {side: file for side, file in files.items() if file}
    _check_output(chosen.output, *files.values())
    lines = read_parallel({side: [file] for side, file in files.items()})
    reference = lines.pop("reference")
    translator = _load_translator(chosen)
    translations = [best[0].text for best in _run_translator(translator, chosen, 1, files, *lines.values())]
    if chosen.output:
        _write_lines(chosen.output, translations)
    for result in score(translations, reference, _BOOTSTRAP):
        print(f"{result.text}\n  {result.signature}")
    lengths = [len(row) for row in translator.vocabularies["source"].encode(lines["source"])]
    print(f"\n{score_by_length(translations, reference, lengths, translator.buckets['source'])}")


def translate(chosen: argparse.Namespace) -> None:
    """Translate sentences, one a line."""
    files = {"source": chosen.input} | ({"source2": chosen.source2} if chosen.source2 else {})
    if chosen.output == "-":
        _check_standard_output("the translations", "; or give --output FILE")
    else:
        _check_output(chosen.output, *files.values())
    if list(files.values()) == ["-", "-"]:
        raise ValueError("--source2 is -, standard input, from which the first source is read: give --input FILE")
    sources = [_read(file) for file in files.values()]
    count = 1 if chosen.n_best is None else chosen.n_best
    found = _run_translator(_load_translator(chosen), chosen, count, files, *sources)
    lines = [_line(chosen, number, each) for number, best in enumerate(found) for each in best]
    if chosen.output != "-":
        _write_lines(chosen.output, lines)
        return
    with doing("write", "standard output"):
        sys.stdout.writelines(line + "\n" for line in lines)


def _read(file: str) -> list[str]:
    """Return the lines of a file, or of standard input for `-`."""
    if file != "-":
        return read_lines(file)
    if sys.stdin is None:
        raise ValueError("standard input is closed: open it, or give --input FILE")
    with doing("read", "standard input"):
        return split_lines(sys.stdin.buffer.read(), "standard input")


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
    translator: Translator, chosen: argparse.Namespace, count: int, files: Mapping[str, str], *sources: list[str]
) -> list[list[Translation]]:
    """Return the best translations of each sentence; an empty one of a sentence that was skipped."""
    search = translator.search_options
    given = {each.name: getattr(chosen, each.name) for each in fields(search)}
    search = replace(search, **{name: value for name, value in given.items() if value is not None})
    overlong = chosen.overlong or translator.config.data.overlong
    origin = Provenance(
        "sentences to translate",
        "To translate nevertheless give --overlong truncate or --overlong skip",
        lambda side, row: f"{'standard input' if files[side] == '-' else files[side]}, line {row + 1}",
    )
    found, admission = translator.n_best(
        count, *sources, overlong=overlong, progress=sys.stderr.isatty(), search=search, origin=origin
    )
    if admission.truncated or admission.skipped:
        print(
            f"seq2split: of {len(sources[0])} sentences {admission.truncated} were truncated and {admission.skipped} "
            "were skipped (their translations are empty): they are longer than the last source bucket",
            file=sys.stderr,
        )
    return [best or [Translation("", -math.inf)] for best in found]


def _check_standard_output(what: str, mend: str = "") -> None:
    if sys.stdout is None:
        raise ValueError(f"standard output is closed, where {what} go: open it{mend}")


def _check_output(path: str | Path | None, *inputs: str) -> None:
    """Check a path, so that a wrong one is an error before the translation, not after."""
    if path is None:
        return
    if not Path(path).parent.is_dir():
        raise ValueError(f"--output {path}: there is no directory {Path(path).parent}; make it first")
    check_writable(Path(path))
    for file in inputs:
        if os.path.exists(file) and os.path.exists(path) and os.path.samefile(file, path) and os.path.isfile(path):
            raise ValueError(f"--output {path} would be written over the file that is read: give another name")


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
    _check_standard_output("the tables")
    if Path(chosen.run).is_dir():
        if chosen.set:
            raise ValueError(f"{chosen.run} is a run, whose settings are fixed: give --set with a configuration")
        files = ExperimentFiles(chosen.run)
        config = files.config()
        translator = Translator(config, files.vocabularies(config), files.buckets(config))
    else:
        config = _load(chosen.run, chosen.set)
        check_architecture(config)
        lines = read_parallel(config.corpus("train"))
        with tempfile.TemporaryDirectory() as scratch:
            _, translator = prepare(config, ExperimentFiles(scratch), lines)
    print(inspect_model(translator.model, config.batches.tokens, progress=sys.stderr.isatty()))
