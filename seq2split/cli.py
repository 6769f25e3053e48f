"""The command line: `seq2split train`, `evaluate`, `translate`, `attention`, `plot` and `inspect`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from seq2split.buckets import OVERLONG_CHOICES
from seq2split.common.files import doing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of the graph optimizer's warnings none helps a user


TRACEBACK = "SEQ2SPLIT_TRACEBACK"  # the environment variable that has errors show where they arose


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The arguments of the command line; those of the process by default.

    Returns:
        The exit status: 0; 1 if a training diverged; 2 for bad input, or a file that can't be read or written; 3 for an
        error that nobody foresaw; 130 if it was interrupted.
    """
    _prepare_standard_files()
    chosen = make_parser().parse_args(arguments)
    try:
        return _run(chosen)
    except KeyboardInterrupt:
        return 130


def _prepare_standard_files() -> None:
    """Write UTF-8 whatever the locale is, and bytes of file names as they came; bear files that are closed.

    A number that is free would go to the next file that is opened, which then gets our messages.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stderr is None:  # print would write to standard output
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _run(chosen: argparse.Namespace) -> int:
    """Run the chosen command, and return the exit status."""
    try:
        with _quiet():  # TensorFlow takes seconds to import, so --help doesn't
            from seq2split.training import Interrupted
            from seq2split.translation import commands
        try:
            getattr(commands, chosen.command)(chosen)
            if sys.stdout is not None:
                with doing("write", "standard output"):
                    sys.stdout.flush()
        except Interrupted as error:
            return _fail(str(error), 130)
    except BrokenPipeError:  # who reads our output has seen enough
        _drop_output()
    except (ValueError, OSError, ImportError) as error:
        return _fail(_words(error), 2)
    except FloatingPointError as error:
        return _fail(_words(error), 1)
    except Exception as error:
        return _fail(_unforeseen(error), 3)
    return 0


def _words(error: Exception) -> str:
    """Return what an error says, with the file that the system's own words leave to the reader."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        text = f"can't access {error.filename}: {error.strerror}" if error.filename else error.strerror
    return _with_notes(text, error)


def _unforeseen(error: Exception) -> str:
    """Return what to say of an error that is no foreseen one, whose text may be pages."""
    first, *others = str(error).strip().splitlines() or [""]
    first = f"{type(error).__name__}: {first}{' ...' if others else ''}"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":  # that is TensorFlow's
        return f"there is not enough memory: lower batches.tokens, --beam, or the sizes of the model. {first}"
    return (
        f"{_with_notes(first, error)}\n  Nobody foresaw this error: it is a mistake in seq2split, or in layers of your "
        f"own. To see where it arose, set the environment variable {TRACEBACK}=1."
    )


def _with_notes(text: str, error: Exception) -> str:
    return "\n  ".join([text, *getattr(error, "__notes__", [])])


def _fail(message: str, status: int) -> int:
    """Print why a command failed, and return the exit status."""
    if os.environ.get(TRACEBACK):
        traceback.print_exc()
    print(f"seq2split: {message}", file=sys.stderr)
    _drop_output()
    return status


def _drop_output() -> None:
    """Give up what is still to be written to standard output, which Python would try again at its end."""
    try:
        sys.stdout.flush()
    except (AttributeError, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what native code writes to standard error, unless it ends in an exception.

    TensorFlow greets with lines about its build and about GPUs that no setting turns off.
    """
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115, since the `with` below must not catch what the caller raises
    except OSError:  # a full disk is no reason not to translate
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with held:
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


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="seq2split",
        description="Bucketed sequence-to-sequence models, split into parts: E + D graphs, not E x D.",
        epilog=f"The environment variable {TRACEBACK}=1 has errors show where they arose.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", "train a translation model, or resume its training")
    train.add_argument(
        "config", nargs="?", type=_path, help="configuration, a TOML file (default: the embedded example)"
    )
    train.add_argument("--run", type=_path, help="directory of the run (default: runs/NAME for NAME.toml)")
    train.add_argument(
        "--changed-corpus",
        action="store_true",
        help="go on with other sentences than the run was trained on so far; run.json records it",
    )
    _add_set(train)

    evaluate = _command(commands, "evaluate", "translate a test set and print BLEU and chrF, also by length")
    evaluate.add_argument("run", type=_path, help="directory of a run")
    evaluate.add_argument("--source", type=_path, required=True, help="source sentences, plain text or .gz")
    _add_source2(evaluate)
    evaluate.add_argument("--reference", type=_path, required=True, help="their translations")
    evaluate.add_argument("--output", type=_path, help="file for the translations, plain text or .gz")
    _add_overlong(evaluate)
    _add_search(evaluate)

    translate = _command(commands, "translate", "translate sentences, one a line")
    translate.add_argument("run", type=_path, help="directory of a run")
    translate.add_argument(
        "--input", type=_path, default="-", help="source sentences, plain text or .gz (default: standard input)"
    )
    _add_source2(translate)
    translate.add_argument(
        "--output", type=_path, default="-", help="file for the translations, plain text or .gz (default: stdout)"
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
    attention.add_argument("run", type=_path, help="directory of a run")
    attention.add_argument("--source", type=_text, required=True, metavar="TEXT", help="a sentence")
    attention.add_argument("--source2", type=_text, metavar="TEXT", help="the same in the second source language")
    attention.add_argument("--target", type=_text, metavar="TEXT", help="its translation (default: the model's)")
    attention.add_argument(
        "--output", type=_path, default="attention.png", help="picture, .png, .pdf or .svg (default: %(default)s)"
    )

    plot = _command(commands, "plot", "draw the learning curves of runs, to compare them")
    plot.add_argument("runs", nargs="+", type=_path, metavar="RUN", help="directory of a run")
    plot.add_argument(
        "--output", type=_path, help="picture, .png, .pdf or .svg (default: curves.png in the first run's directory)"
    )

    inspect = _command(commands, "inspect", "show parts, buckets, part graphs and residual bytes")
    inspect.add_argument("run", type=_path, metavar="RUN|CONFIG", help="directory of a run, or a configuration")
    _add_set(inspect)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(command=name)
    return parser


def _path(text: str) -> str:
    """Check the argument of an option that is a path: an unset variable of a shell gives an empty one."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty one; the current directory is .")
    return text


def _text(text: str) -> str:
    """Return the argument of an option that is text: UTF-8 whatever the locale is, or else what the locale has."""
    try:
        return os.fsencode(text).decode()
    except UnicodeDecodeError:
        pass
    try:
        text.encode()
    except UnicodeEncodeError:  # of a byte that is no text comes half of a surrogate pair
        raise argparse.ArgumentTypeError(
            f"expected UTF-8, or text in the encoding of the locale, got {text!a}"
        ) from None
    return text


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, such as model.units=512"
    )


def _add_source2(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source2", type=_path, help="the same sentences in the second source language, of a run that has one"
    )


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
