"""The files of a translation experiment beside those that every run has: settings, vocabularies, buckets."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from seq2split.buckets import Buckets
from seq2split.config import Config, ConfigError, differences, dumps, load
from seq2split.config.values import AUTO
from seq2split.corpus import Corpus, choose_buckets
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.runs.digests import digest_of
from seq2split.runs.directory import RunDirectory
from seq2split.training.messages import say
from seq2split.translation.architectures import source_digest
from seq2split.translation.inputs import naming_keys
from seq2split.translation.made_files import MODELS, MadeFiles, Maker

_MAY_CHANGE = re.compile(
    r"search\.|training\.(?!criterion$|ema$)"  # the best figure is measured in the one, and the other has a past
    r"|optimizer\.((encoder2?|decoder|groups\..+)\.)?"
    r"(learning_rate|schedule|warmup_steps|weight_decay|frozen|first_step|last_step|every)$"
)
_CORPUS = re.compile(r"data\.(train|valid)_")
_PARTS = {"source": "encoder", "source2": "encoder2", "target": "decoder"}


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

    def __init__(self, path: str | Path | RunDirectory):
        self.run = path if isinstance(path, RunDirectory) else RunDirectory(path)
        self.path = self.run.path
        self._config, self._buckets = self.path / "config.toml", self.path / "buckets.json"
        self._source, self._made = self.path / "architecture.digest", MadeFiles(self.run)

    def config(self) -> Config:
        """Return the configuration of the run.

        Raises:
            ValueError: The directory holds no run, or its configuration is damaged or lost.
        """
        if not self._config.exists() and not self.run.has_checkpoint():
            raise ValueError(f"{self.path} is no run directory: it has no {self._config.name}. Train it first.")
        config, fault = self._read_config()
        if config is None:
            raise ConfigError(
                f"{fault}. Put back a copy of it; or start the training again with the configuration that it was last "
                f"trained with, which writes it again; {self.run.sessions} tells its command line."
            )
        if fault:
            say(f"{fault}: it was changed by hand, or is damaged")
        return config

    def freeze(self, config: Config, changed_corpus: bool = False) -> list[str]:
        """Write the configuration, if it may replace the one that is there.

        Before the first checkpoint, a best model's among them, every key may change, so that a mistake can be mended;
        what was made by the old settings is then deleted.

        Args:
            config: The configuration.
            changed_corpus: True if the files of the corpus may be others.

        Returns:
            The keys that changed.

        Raises:
            ConfigError: Keys changed that decide about the model or the data, or the old ones are lost.
        """
        before, fault = self._read_config()
        is_trained = self.run.has_checkpoint()
        if before is None and is_trained and self._made.known(self._config) != digest_of(dumps(config).encode()):
            raise ConfigError(
                f"{fault}, and the configuration that is given isn't the one that the run was last trained with. Give "
                f"that ({self.run.sessions} tells its command line), or put back a copy of {self._config.name}."
            )
        if fault and is_trained:
            say(f"{fault}: it is written again" + ("" if before else ", as it was"))
        changed = differences(before, config) if before else []
        fixed = [key for key in changed if not _MAY_CHANGE.match(key)]
        if changed_corpus and before and before.sides == config.sides:
            fixed = [key for key in fixed if not _CORPUS.match(key)]
        if fixed and is_trained:
            corpus = " (another corpus may be given with --changed-corpus)" if any(map(_CORPUS.match, fixed)) else ""
            raise ConfigError(
                f"{self.path} holds a run with other settings of {', '.join(fixed)}, which cannot change in a run"
                f"{corpus}: give the new one another directory with --run, or set the old values to resume the old one."
            )
        if not is_trained and (fixed or (before is None and fault and self._config.exists())):
            self._made.forget([*(self.path / name for name in MODELS), self._buckets])
        change = self.architecture_change(config)
        if change and is_trained:
            raise ConfigError(f"{change} Restore it, or give another directory with --run.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._made.write(self._config, dumps(config).encode())
        if not config.model.is_built_in:
            self._made.write(self._source, source_digest(config.model.architecture).encode())
        return changed

    def _read_config(self) -> tuple[Config | None, str | None]:
        """Return the configuration that is there, if it can be read, and what is wrong with its file."""
        fault = self._made.find_fault(self._config)
        try:
            return load(self._config) if self._config.exists() else None, fault
        except (ValueError, OSError) as error:
            return None, fault or f"{self._config} is damaged: {str(error).splitlines()[0]}"

    def architecture_change(self, config: Config) -> str | None:
        """Return what is wrong if the file of an architecture of one's own is another than the run was started with.

        Args:
            config: The configuration of the run.

        Returns:
            A sentence; `None` if nothing has changed, or the architecture is a ready one.
        """
        if config.model.is_built_in or not self._source.exists():
            return None
        now, known = source_digest(config.model.architecture), self._made.known(self._source)
        if digest_of(now.encode()) == known or self._source.read_bytes() == now.encode():
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
        for path, side in {path: side for side, path in reversed(paths.items())}.items():
            makers = [] if lines is None else [Maker(partial(_make_vocabulary, config, side, lines))]
            self._made.read(path, makers, writes=lines is not None)
        return {side: Vocabulary(path, config.vocabulary.start) for side, path in paths.items()}

    def buckets(self, config: Config, corpus: Corpus | None = None) -> dict[str, Buckets]:
        """Return the buckets of the run.

        Args:
            config: The configuration.
            corpus: The corpus to fit them to if they are not there yet.

        Returns:
            The buckets of each side.
        """
        makers = [Maker(partial(self._buckets_of_batches, config.sides), True)] if self.run.has_checkpoint() else []
        if corpus is not None:
            makers.append(Maker(partial(_fit_buckets, config, corpus)))
        is_right = partial(_are_buckets, config.sides)
        stored = json.loads(self._made.read(self._buckets, makers, is_right=is_right, writes=corpus is not None))
        return {side: Buckets(stored[side]) for side in config.sides}

    def _buckets_of_batches(self, sides: Sequence[str]) -> bytes | None:
        """Return the buckets as the file of the batches tells them; `None` if that is damaged or lost too."""
        try:
            parts = json.loads(self.run.batches.read_bytes())["buckets"]
            data = json.dumps({side: parts[_PARTS[side]] for side in sides}).encode()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return data if _are_buckets(sides, data) else None


def _make_vocabulary(config: Config, side: str, lines: dict[str, list[str]]) -> bytes:
    settings = config.vocabulary
    given = getattr(settings, f"{side}_model")
    if given:
        return Vocabulary(given, settings.start).path.read_bytes()
    text = list(chain(*lines.values())) if settings.joint else lines[side]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "made.model")
        Vocabulary.train(text, path, settings.size, settings.algorithm, settings.character_coverage)
        return path.read_bytes()


def _fit_buckets(config: Config, corpus: Corpus) -> bytes:
    lengths = {side: corpus.lengths[side] for side in config.sides}
    settings = {side: getattr(config.buckets, side) for side in config.sides}
    made = {side: _make_buckets(each, lengths[side]) for side, each in settings.items() if each != AUTO}
    batches = config.training.steps * config.training.accumulate
    with naming_keys():
        made = choose_buckets(lengths, steps=batches, given=made, **asdict(config.batches))
    return json.dumps({side: each.boundaries for side, each in made.items()}).encode()


def _make_buckets(setting: int | tuple[int, ...], lengths: np.ndarray) -> Buckets:
    return Buckets.fit(lengths, setting) if isinstance(setting, int) else Buckets(setting)


def _are_buckets(sides: Sequence[str], data: bytes) -> bool:
    try:
        stored = json.loads(data)
        return all(Buckets(stored[side]) for side in sides)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
