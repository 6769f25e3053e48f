"""The files that a configuration names: read and checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2split.config import Config
from seq2split.corpus.admission import Provenance
from seq2split.corpus.parallel_text import locate_line, read_parallel
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.translation.architectures import check_architecture

SPLITS = {"train": "training corpus", "valid": "validation corpus"}


Lines = dict[str, dict[str, list[str]]]


def read_inputs(config: Config, run: Path) -> Lines:
    """Check all that a training reads, and return the text.

    Args:
        config: The configuration.
        run: The run directory; it may be there.

    Returns:
        The lines of each side of the training and of the validation corpus.

    Raises:
        OSError: A file can't be read.
        ValueError: The architecture can't be made; or a file is no text, two files differ in lines, or a corpus is
            empty; or a vocabulary that the run has no copy of is no SentencePiece model.
    """
    check_architecture(config)
    lines = {split: read_parallel(config.corpus(split)) for split in SPLITS}
    if not any(run.glob("*.model")):
        _check_vocabularies(config)
    return lines


def _check_vocabularies(config: Config) -> None:
    for side in config.sides:
        if path := getattr(config.vocabulary, f"{side}_model"):
            try:
                Vocabulary(path, config.vocabulary.start)
            except (OSError, ValueError) as error:
                error.add_note(f"It is what vocabulary.{side}_model names.")
                raise


def provenance(config: Config, split: str) -> Provenance:
    """Return where a corpus of a configuration is from, for messages.

    Args:
        config: The configuration.
        split: `train` or `valid`.
    """
    return Provenance(
        SPLITS[split],
        'Raise the last boundary of that side in [buckets], or set data.overlong to "truncate" or "skip"',
        lambda side, row: locate_line(config.corpus(split)[side], row),
    )


@contextmanager
def naming_keys() -> Iterator[None]:
    """Say in an error about batches which keys of a configuration decide about them."""
    try:
        yield
    except ValueError as error:
        error.add_note("The budget is batches.tokens, and the padded lengths are those of [buckets].")
        raise
