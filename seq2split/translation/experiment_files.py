"""The files of a translation experiment beside those that every run has: settings, vocabularies, buckets."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

import numpy as np

from seq2split.buckets import Buckets
from seq2split.common.files import write_atomically
from seq2split.config import Config, ConfigError, differences, dumps, load
from seq2split.corpus import Corpus
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.runs.directory import RunDirectory
from seq2split.translation.architectures import source_digest

_MAY_CHANGE = re.compile(
    r"search\.|training\.(?!criterion$|ema$)"  # the best figure is measured in the one, and the other has a past
    r"|optimizer\.((encoder2?|decoder|groups\..+)\.)?"
    r"(learning_rate|schedule|warmup_steps|weight_decay|frozen|first_step|last_step|every)$"
)


class ExperimentFiles:
    """The files of a translation experiment.

    Args:
        path: The run directory; made when something is written.

    Attributes:
        run: The places of the files that every run has.
        path: The directory.

    Raises:
        ValueError: The path is a file.
    """

    def __init__(self, path: str | Path):
        self.run = RunDirectory(path)
        self.path = self.run.path
        self._config, self._buckets = self.path / "config.toml", self.path / "buckets.json"
        self._source = self.path / "architecture.digest"

    def config(self) -> Config:
        """Return the configuration of the run.

        Raises:
            ValueError: The directory holds no run.
        """
        if not self._config.exists():
            raise ValueError(f"{self.path} is no run directory: it has no {self._config.name}. Train it first.")
        return load(self._config)

    def freeze(self, config: Config) -> list[str]:
        """Write the configuration, if it may replace the one that is there.

        Before the first checkpoint, a best model's among them, every key may change, so that a mistake can be mended;
        what was made by the old settings is then deleted.

        Args:
            config: The configuration.

        Returns:
            The keys that changed.

        Raises:
            ConfigError: Keys changed that decide about the model or the data.
        """
        changed = differences(self.config(), config) if self._config.exists() else []
        fixed = [key for key in changed if not _MAY_CHANGE.match(key)]
        if fixed and self.run.has_checkpoint():
            raise ConfigError(
                f"{self.path} holds a run with other settings of {', '.join(fixed)}, which cannot change in a run: "
                "give the new one another directory with --run, or set the old values to resume the old one."
            )
        if fixed:
            for made in (*self.path.glob("*.model"), self._buckets):
                made.unlink(missing_ok=True)
        change = self.architecture_change(config)
        if change and self.run.has_checkpoint():
            raise ConfigError(f"{change} Restore it, or give another directory with --run.")
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self._config, dumps(config).encode())
        if not config.model.is_built_in:
            write_atomically(self._source, source_digest(config.model.architecture).encode())
        return changed

    def architecture_change(self, config: Config) -> str | None:
        """Return what is wrong if the file of an architecture of one's own is another than the run was started with.

        Args:
            config: The configuration of the run.

        Returns:
            A sentence; `None` if nothing has changed, or the architecture is a ready one.
        """
        if config.model.is_built_in or not self._source.exists():
            return None
        if self._source.read_text() == source_digest(config.model.architecture):
            return None
        return (
            f"the file of the architecture {config.model.architecture} has changed since {self.path} was started, so "
            f"that its variables may mean something else (if not, delete {self._source})."
        )

    def vocabularies(self, config: Config, lines: dict[str, list[str]] | None = None) -> dict[str, Vocabulary]:
        """Return the vocabularies of the run.

        Args:
            config: The configuration.
            lines: For each side the text to train the vocabularies on that are not there yet.

        Returns:
            The vocabulary of each side; one and the same if it is joint.
        """
        paths = {side: self.path / f"{'joint' if config.vocabulary.joint else side}.model" for side in config.sides}
        for side, path in paths.items():
            if lines is not None and not path.exists():
                self._make_vocabulary(config, side, path, lines)
        return {side: Vocabulary(path, config.vocabulary.start) for side, path in paths.items()}

    def buckets(self, config: Config, corpus: Corpus | None = None) -> dict[str, Buckets]:
        """Return the buckets of the run.

        Args:
            config: The configuration.
            corpus: The corpus to fit them to if they are not there yet.

        Returns:
            The buckets of each side.
        """
        if corpus is not None and not self._buckets.exists():
            settings = {side: getattr(config.buckets, side) for side in config.sides}
            made = {side: _make_buckets(each, corpus.lengths[side]).boundaries for side, each in settings.items()}
            write_atomically(self._buckets, json.dumps(made).encode())
        if not self._buckets.exists():
            raise ValueError(
                f"{self.path} is no complete run directory: it has no {self._buckets.name}. Train it first."
            )
        stored = json.loads(self._buckets.read_text())
        return {side: Buckets(stored[side]) for side in config.sides}

    @staticmethod
    def _make_vocabulary(config: Config, side: str, path: Path, lines: dict[str, list[str]]) -> None:
        settings = config.vocabulary
        given = getattr(settings, f"{side}_model")
        if given:
            write_atomically(path, Vocabulary(given).path.read_bytes())
        else:
            text = list(chain(*lines.values())) if settings.joint else lines[side]
            Vocabulary.train(text, path, settings.size, settings.algorithm, settings.character_coverage)


def _make_buckets(setting: int | tuple[int, ...], lengths: np.ndarray) -> Buckets:
    return Buckets.fit(lengths, setting) if isinstance(setting, int) else Buckets(setting)
