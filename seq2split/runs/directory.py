"""The directory of a run: configuration, vocabularies, buckets, checkpoints; it can be moved and shared as it is."""

from __future__ import annotations

import json
import re
from functools import reduce
from itertools import chain
from pathlib import Path

import numpy as np

from seq2split.buckets import Admission, Buckets
from seq2split.common.files import write_atomically
from seq2split.config import Config, ConfigError, differences, dumps, load
from seq2split.corpus.batches import ParallelCorpus
from seq2split.corpus.vocabulary import Vocabulary

_MAY_CHANGE = re.compile(
    r"search\.|training\.(?!criterion$|ema$)"  # the best figure is measured in the one, and the other has a past
    r"|optimizer\.((encoder2?|decoder|groups\..+)\.)?"
    r"(learning_rate|schedule|warmup_steps|weight_decay|frozen|first_step|last_step|every)$"
)


class RunDirectory:
    """The files of a run.

    Args:
        path: The directory; made when something is written.

    Attributes:
        path: The directory.
        latest: The directory of the latest checkpoints.
        best: The directory of the best one.
        candidates: The directory of validated models that are kept to be averaged.
        average: The directory of their average, if it is better than the best one.
        events: The directory of TensorBoard's event files.
        sessions: The file of the sessions that made it, of which `sessions` tells.
        history: The file of what was measured, of which `history` tells.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.latest, self.best, self.events = (self.path / name for name in ("checkpoints", "best", "events"))
        self.candidates, self.average = self.path / "candidates", self.path / "average"
        self.sessions = self.path / "run.json"
        self.history = self.path / "history.jsonl"
        self._config, self._buckets = self.path / "config.toml", self.path / "buckets.json"

    def config(self) -> Config:
        """The configuration of the run.

        Raises:
            ValueError: The directory holds no run.
        """
        if not self._config.exists():
            raise ValueError(f"{self.path} is no run directory: it has no {self._config.name}. Train it first.")
        return load(self._config)

    def freeze(self, config: Config) -> list[str]:
        """Writes the configuration, if it may replace the one that is there.

        Before the first checkpoint, a best model's among them, every key may change, so that a mistake can be mended;
        what was made by the old settings is then deleted.

        Args:
            config: The configuration.

        Returns:
            The keys that changed.

        Raises:
            ConfigError: Keys changed that decide about the model or the data.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; a run needs a directory. Give another with --run.")
        changed = differences(self.config(), config) if self._config.exists() else []
        fixed = [key for key in changed if not _MAY_CHANGE.match(key)]
        if fixed and self._has_checkpoint():
            raise ConfigError(
                f"{self.path} holds a run with other settings of {', '.join(fixed)}, which cannot change in a run: "
                "give the new one another directory with --run, or set the old values to resume the old one."
            )
        if fixed:
            for made in (*self.path.glob("*.model"), self._buckets):
                made.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self._config, dumps(config).encode())
        return changed

    def vocabularies(self, config: Config, lines: dict[str, list[str]] | None = None) -> dict[str, Vocabulary]:
        """The vocabularies of the run.

        Args:
            config: The configuration.
            lines: For each side the text to train on what is not there yet.

        Returns:
            The vocabulary of each side; one and the same if it is joint.
        """
        paths = {side: self.path / f"{'joint' if config.vocabulary.joint else side}.model" for side in config.sides}
        for side, path in paths.items():
            if lines is not None and not path.exists():
                self._make_vocabulary(config, side, path, lines)
        return {side: Vocabulary(path) for side, path in paths.items()}

    def buckets(self, config: Config, corpus: ParallelCorpus | None = None) -> dict[str, Buckets]:
        """The buckets of the run.

        Args:
            config: The configuration.
            corpus: What to fit them to if they are not there yet.

        Returns:
            The buckets of each side.
        """
        if corpus is not None and not self._buckets.exists():
            settings = {side: getattr(config.buckets, side) for side in config.sides}
            made = {side: _make_buckets(each, corpus.lengths(side)).boundaries for side, each in settings.items()}
            write_atomically(self._buckets, json.dumps(made).encode())
        if not self._buckets.exists():
            raise ValueError(
                f"{self.path} is no complete run directory: it has no {self._buckets.name}. Train it first."
            )
        stored = json.loads(self._buckets.read_text())
        return {side: Buckets(stored[side]) for side in config.sides}

    def _has_checkpoint(self) -> bool:
        return any((directory / "checkpoint").exists() for directory in (self.latest, self.best))

    @staticmethod
    def _make_vocabulary(config: Config, side: str, path: Path, lines: dict[str, list[str]]) -> None:
        settings = config.vocabulary
        given = getattr(settings, f"{side}_model")
        if given:
            write_atomically(path, Vocabulary(given).path.read_bytes())
        else:
            text = list(chain(*lines.values())) if settings.joint else lines[side]
            Vocabulary.train(text, path, settings.size, settings.algorithm)


def admit(
    corpus: ParallelCorpus, buckets: dict[str, Buckets], overlong: str, name: str
) -> tuple[ParallelCorpus, Admission]:
    """Applies the choice about overlong sentences to a corpus.

    Args:
        corpus: The sentence pairs.
        buckets: Of each side.
        overlong: `error`, `truncate` or `skip`, which leaves out the whole pair.
        name: What messages call the corpus.

    Returns:
        The pairs that stay, cut to the last buckets; and their row numbers, the positions of all sides that each has,
        and how many pairs were truncated and skipped.

    Raises:
        OverlongError: A sentence is too long and `overlong` is `error`.
    """
    admitted = {}
    for side in corpus.sides:
        try:
            admitted[side] = buckets[side].admit(corpus.lengths(side), overlong)
        except ValueError as error:
            error.add_note(f"These are the pieces of the {name}, {side} side; data.overlong decides about them.")
            raise
    kept = reduce(np.intersect1d, (each.kept for each in admitted.values()))
    limits = {side: buckets[side].boundaries[-1] for side in corpus.sides}
    sides = {side: [cut(rows[at], limits[side]) for at in kept] for side, rows in corpus.sides.items()}
    over = np.any([corpus.lengths(side)[kept] > limits[side] for side in corpus.sides], axis=0)
    stay = ParallelCorpus(sides)
    lengths = np.sum([stay.lengths(side) for side in sides], axis=0)
    return stay, Admission(kept, lengths, truncated=int(over.sum()), skipped=len(corpus) - len(kept))


def admit_corpus(
    corpus: ParallelCorpus, buckets: dict[str, Buckets], overlong: str, name: str
) -> tuple[ParallelCorpus, str | None]:
    """Applies the choice about overlong sentences to a corpus that must not end up empty.

    Args:
        corpus: As of `admit`.
        buckets: As of `admit`.
        overlong: As of `admit`.
        name: As of `admit`.

    Returns:
        The pairs that stay, and what to tell the user about the others, if any.

    Raises:
        OverlongError: A sentence is too long and `overlong` is `error`.
        ValueError: No pair stays.
    """
    stay, admission = admit(corpus, buckets, overlong, name)
    longest = {side: buckets[side].boundaries[-1] for side in corpus.sides}
    if not len(stay):
        raise ValueError(
            f"all {len(corpus)} pairs of the {name} are longer than the last bucket ({longest} pieces), and "
            "data.overlong skips them: raise the last boundaries of [buckets]."
        )
    over = {side: int((corpus.lengths(side)[admission.kept] > longest[side]).sum()) for side in corpus.sides}
    truncated = " and ".join(f"{count} {side}" for side, count in over.items() if count)
    done = [f"truncated {truncated} sentences"] if truncated else []
    done += [f"skipped {admission.skipped} of {len(corpus)} pairs"] if admission.skipped else []
    return stay, f"{name}: {', '.join(done)}, longer than the last bucket ({longest})" if done else None


def cut(row: np.ndarray, length: int) -> np.ndarray:
    """A row of pieces cut to a length; the last piece, which ends the sentence, stays the last."""
    return row if len(row) <= length else np.append(row[: length - 1], row[-1])


def _make_buckets(setting: int | tuple[int, ...], lengths: np.ndarray) -> Buckets:
    return Buckets.fit(lengths, setting) if isinstance(setting, int) else Buckets(setting)
