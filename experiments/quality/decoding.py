"""Translates corpora with a run; TensorFlow comes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quality.trials import Decoding, Trial
from seq2split.files import write_atomically
from seq2split.text import read_lines
from seq2split.threads import use_cores
from seq2split.translation import Translator


def decode(trial: Trial, run: Path, data: Path) -> None:
    """Writes all translations of a trial.

    Args:
        trial: What was trained.
        run: Its directory.
        data: The folder of the raw files.
    """
    translator = Translator.load(run, use_cores())
    for decoding in trial.decodings:
        source = read_lines(trial.corpus(decoding.split, data)["source"])
        write_atomically(
            decoding.file(run), "".join(f"{each}\n" for each in _translate(translator, decoding, source)).encode()
        )


def _translate(translator: Translator, decoding: Decoding, source: Sequence[str]) -> list[str]:
    settings = replace(translator.config.search, **decoding.search)
    overlong = translator.config.data.overlong
    found, _ = translator.n_best(1, source, overlong=overlong, progress=False, settings=settings)
    return [best[0].text for best in found]
