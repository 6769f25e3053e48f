"""The command line: `seq2split train`, `evaluate`, `translate`, `attention`, `plot` and `inspect`."""

from __future__ import annotations

import argparse
import gzip
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from seq2split.buckets import OVERLONG_CHOICES

if TYPE_CHECKING:
    from seq2split.translation.translator import Translation, Translator

_BOOTSTRAP = 1000  # corpora resampled for the confidence of a score: half a second for 1,000 sentences

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of the graph optimizer's warnings none helps a user


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Of the command line; those of the process by default.

    Returns:
        The exit status: 0; 1 if a training diverged; 2 for bad input; 130 if it was interrupted.
    """
    chosen = _parser().parse_args(arguments)
    try:
        return _run(chosen)
    except KeyboardInterrupt:
        return 130


def _run(chosen: argparse.Namespace) -> int:
    """Runs the chosen command, and returns the exit status."""
    with _quiet():  # TensorFlow takes seconds to import, so --help doesn't
        from seq2split.training import Interrupted

    try:
        chosen.command(chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        return _fail(error, 2)
    except FloatingPointError as error:
        return _fail(error, 1)
    except Interrupted as error:
        return _fail(error, 130)
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what native code writes to standard error, unless it ends in an exception.

    TensorFlow greets with lines about its build and about GPUs that no setting turns off.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _fail(error: Exception, status: int) -> int:
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
    print(f"seq2split: {error}{notes}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seq2split", description="Bucketed sequence-to-sequence models, split into parts: E + D graphs, not E x D."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "train a translation model, or resume its training")
    train.add_argument("config", nargs="?", help="configuration, a TOML file (default: the embedded example)")
    train.add_argument("--run", help="directory of the run (default: runs/NAME for NAME.toml)")
    _add_set(train)

    evaluate = _command(commands, "evaluate", _evaluate, "translate a test set and print BLEU and chrF, also by length")
    evaluate.add_argument("run", help="directory of a run")
    evaluate.add_argument("--source", required=True, help="source sentences, plain text or .gz")
    _add_source2(evaluate)
    evaluate.add_argument("--reference", required=True, help="their translations")
    evaluate.add_argument("--output", help="file for the translations, plain text or .gz")
    _add_overlong(evaluate)
    _add_search(evaluate)

    translate = _command(commands, "translate", _translate, "translate sentences, one a line")
    translate.add_argument("run", help="directory of a run")
    translate.add_argument("--input", default="-", help="source sentences, plain text or .gz (default: standard input)")
    _add_source2(translate)
    translate.add_argument(
        "--output", default="-", help="file for the translations, plain text or .gz (default: stdout)"
    )
    _add_overlong(translate)
    _add_search(translate)
    translate.add_argument(
        "--n-best",
        type=int,
        metavar="N",
        help="the N best translations of each sentence, one a line: NUMBER ||| TRANSLATION, sentences numbered from 0",
    )
    translate.add_argument("--scores", action="store_true", help="end each line with ||| SCORE, the higher the better")

    attention = _command(commands, "attention", _attention, "draw what the decoder reads for each target piece")
    attention.add_argument("run", help="directory of a run")
    attention.add_argument("--source", required=True, metavar="TEXT", help="a sentence")
    attention.add_argument("--source2", metavar="TEXT", help="the same in the second source language")
    attention.add_argument("--target", metavar="TEXT", help="its translation (default: the model's)")
    attention.add_argument(
        "--output", default="attention.png", help="picture, .png, .pdf or .svg (default: %(default)s)"
    )

    plot = _command(commands, "plot", _plot, "draw the learning curves of runs, to compare them")
    plot.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    plot.add_argument("--output", help="picture, .png, .pdf or .svg (default: curves.png in the first run's directory)")

    inspect = _command(commands, "inspect", _inspect, "show parts, buckets, part graphs and residual bytes")
    inspect.add_argument("run", metavar="RUN|CONFIG", help="directory of a run, or a configuration")
    _add_set(inspect)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, function: object, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(command=function)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, such as model.units=512"
    )


def _add_source2(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source2", help="the same sentences in the second source language, of a run that has one")


def _add_overlong(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overlong",
        choices=OVERLONG_CHOICES,
        help="what becomes of sentences longer than the last source bucket (default: data.overlong of the run)",
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    """One option for each key of [search]; what is not given stays `None`."""
    for name, kind, text in (
        ("beam", int, "hypotheses followed at once; 1 is greedy search"),
        ("length-penalty", float, "power of the length that log-probabilities are divided by"),
        ("coverage", float, "weight of the penalty on source pieces without attention"),
        ("min-length-ratio", float, "fewest pieces of a translation, as a multiple of its source's"),
        ("max-length-ratio", float, "most pieces of a translation, likewise; 0 is no bound"),
    ):
        key = name.replace("-", "_")
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=f"{text} (default: search.{key} of the run)")


def _train(chosen: argparse.Namespace) -> None:
    from seq2split.config import load
    from seq2split.split.threads import use_cores
    from seq2split.translation.experiment import Experiment
    from seq2split.translation.translator import Translator

    with _configuration(chosen.config) as path:
        config = load(path, chosen.set)
        run = chosen.run or str(Path("runs", Path(path).stem))
        threads = use_cores()
        experiment = Experiment(config, run, threads)
        experiment.train()
    samples = config.training.samples
    if samples:
        print("\nTranslations by the best model:\n")
        print(experiment.samples(Translator.load(run, threads)))
    print(f"\nTry:  echo ... | seq2split translate {run}")


@contextmanager
def _configuration(path: str | None) -> Iterator[str]:
    """The path of a configuration; of the embedded one, wherever the package is installed, by default."""
    if path is not None:
        yield path
    else:
        with resources.as_file(resources.files("seq2split.data")) as data:
            yield str(data / "default.toml")


def _evaluate(chosen: argparse.Namespace) -> None:
    from seq2split.corpus.parallel_text import read_parallel
    from seq2split.translation.evaluation import score, score_by_length

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


def _translate(chosen: argparse.Namespace) -> None:
    from seq2split.corpus.parallel_text import read_lines, split_lines

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
    """A translation as Moses writes it: its sentence's number and its score around it, where they are asked for."""
    before = [] if chosen.n_best is None else [str(number)]
    after = [f"{translation.score:.6f}"] if chosen.scores else []
    return " ||| ".join([*before, translation.text, *after])


def _load_translator(chosen: argparse.Namespace) -> Translator:
    from seq2split.split.threads import use_cores
    from seq2split.translation.translator import Translator

    translator = Translator.load(chosen.run, use_cores())
    if bool(chosen.source2) != (len(translator.encoders) > 1):
        mend = "leave --source2 out" if chosen.source2 else "give the sentences of its second language with --source2"
        raise ValueError(f"{chosen.run} translates from {len(translator.encoders)} source languages: {mend}")
    return translator


def _run_translator(
    translator: Translator, chosen: argparse.Namespace, count: int, *sources: list[str]
) -> list[list[Translation]]:
    """The best translations of each sentence; an empty one of a sentence that was skipped."""
    from dataclasses import fields, replace

    from seq2split.buckets import OverlongError
    from seq2split.translation.translator import Translation

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
    """A wrong path is an error before the translation, not after."""
    if path is not None and not Path(path).parent.is_dir():
        raise ValueError(f"--output {path}: there is no directory {Path(path).parent}; make it first")


def _write_lines(path: str, lines: list[str]) -> None:
    from seq2split.common.files import write_atomically

    data = "".join(line + "\n" for line in lines).encode()
    write_atomically(Path(path), gzip.compress(data) if path.endswith(".gz") else data)


def _attention(chosen: argparse.Namespace) -> None:
    from seq2split.translation.alignment import align
    from seq2split.translation.plots import check_picture, plot_alignment

    _check_output(chosen.output)
    check_picture(Path(chosen.output))
    sources = [chosen.source, chosen.source2] if chosen.source2 else [chosen.source]
    alignment = align(_load_translator(chosen), sources, chosen.target)
    plot_alignment(alignment, Path(chosen.output))
    print(chosen.output)


def _plot(chosen: argparse.Namespace) -> None:
    from seq2split.runs.directory import RunDirectory
    from seq2split.runs.history import read_history
    from seq2split.translation.plots import check_picture, plot_curves

    _check_output(chosen.output)
    paths = [RunDirectory(run).history for run in dict.fromkeys(chosen.runs)]
    names = [path.parent.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path.parent) for path in paths]
    output = Path(chosen.output) if chosen.output else paths[0].with_name("curves.png")
    check_picture(output)
    plot_curves({name: read_history(path) for name, path in zip(names, paths, strict=True)}, output)
    print(output)


def _inspect(chosen: argparse.Namespace) -> None:
    from seq2split.config import load
    from seq2split.translation.experiment import prepare
    from seq2split.translation.experiment_files import ExperimentFiles
    from seq2split.translation.inspection import inspect_model
    from seq2split.translation.translator import Translator

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


if __name__ == "__main__":
    sys.exit(main())
