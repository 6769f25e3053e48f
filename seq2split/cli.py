"""The command line: `seq2split train`, `evaluate`, `translate`, `attention`, `plot` and `inspect`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from seq2split.buckets import OVERLONG_CHOICES

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of the graph optimizer's warnings none helps a user


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The arguments of the command line; those of the process by default.

    Returns:
        The exit status: 0; 1 if a training diverged; 2 for bad input; 130 if it was interrupted.
    """
    chosen = make_parser().parse_args(arguments)
    try:
        return _run(chosen)
    except KeyboardInterrupt:
        return 130


def _run(chosen: argparse.Namespace) -> int:
    """Run the chosen command, and return the exit status."""
    with _quiet():  # TensorFlow takes seconds to import, so --help doesn't
        from seq2split.training import Interrupted
        from seq2split.translation import commands

    try:
        getattr(commands, chosen.command)(chosen)
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
    """Hold back what native code writes to standard error, unless it ends in an exception.

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


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="seq2split", description="Bucketed sequence-to-sequence models, split into parts: E + D graphs, not E x D."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", "train a translation model, or resume its training")
    train.add_argument("config", nargs="?", help="configuration, a TOML file (default: the embedded example)")
    train.add_argument("--run", help="directory of the run (default: runs/NAME for NAME.toml)")
    train.add_argument(
        "--changed-corpus",
        action="store_true",
        help="go on with other sentences than the run was trained on so far; run.json records it",
    )
    _add_set(train)

    evaluate = _command(commands, "evaluate", "translate a test set and print BLEU and chrF, also by length")
    evaluate.add_argument("run", help="directory of a run")
    evaluate.add_argument("--source", required=True, help="source sentences, plain text or .gz")
    _add_source2(evaluate)
    evaluate.add_argument("--reference", required=True, help="their translations")
    evaluate.add_argument("--output", help="file for the translations, plain text or .gz")
    _add_overlong(evaluate)
    _add_search(evaluate)

    translate = _command(commands, "translate", "translate sentences, one a line")
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

    attention = _command(commands, "attention", "draw what the decoder reads for each target piece")
    attention.add_argument("run", help="directory of a run")
    attention.add_argument("--source", required=True, metavar="TEXT", help="a sentence")
    attention.add_argument("--source2", metavar="TEXT", help="the same in the second source language")
    attention.add_argument("--target", metavar="TEXT", help="its translation (default: the model's)")
    attention.add_argument(
        "--output", default="attention.png", help="picture, .png, .pdf or .svg (default: %(default)s)"
    )

    plot = _command(commands, "plot", "draw the learning curves of runs, to compare them")
    plot.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    plot.add_argument("--output", help="picture, .png, .pdf or .svg (default: curves.png in the first run's directory)")

    inspect = _command(commands, "inspect", "show parts, buckets, part graphs and residual bytes")
    inspect.add_argument("run", metavar="RUN|CONFIG", help="directory of a run, or a configuration")
    _add_set(inspect)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(command=name)
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
    """Add one option for each key of [search]; what is not given stays `None`."""
    for name, kind, text in (
        ("beam", int, "hypotheses followed at once; 1 is greedy search"),
        ("length-penalty", float, "power of the length that log-probabilities are divided by"),
        ("coverage", float, "weight of the penalty on source pieces without attention"),
        ("min-length-ratio", float, "fewest pieces of a translation, as a multiple of its source's"),
        ("max-length-ratio", float, "most pieces of a translation, likewise; 0 is no bound"),
    ):
        key = name.replace("-", "_")
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=f"{text} (default: search.{key} of the run)")


if __name__ == "__main__":
    sys.exit(main())
