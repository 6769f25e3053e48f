"""Translates corpora with a run; TensorFlow comes with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quality.trials import Trial
from seq2split.common.files import write_atomically
from seq2split.corpus.parallel_text import read_lines
from seq2split.split.threads import use_cores
from seq2split.translation.translator import Translator


def decode(trial: Trial, run: Path, data: Path) -> None:
    """Write all translations of a trial.

    Args:
        trial: What was trained.
        run: Its directory.
        data: The folder of the raw files.
    """
    translator = Translator.load(run, use_cores())
    for decoding in trial.decodings:
        source = read_lines(trial.corpus(decoding.split, data)["source"])
        search = replace(translator.search_options, **decoding.search)
        lines, _ = translator.translate(source, overlong=translator.config.data.overlong, search=search)
        write_atomically(decoding.file(run), "".join(f"{line}\n" for line in lines).encode())
