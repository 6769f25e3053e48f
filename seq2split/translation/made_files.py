"""Files that a run is made with once: their digests, and how one that is damaged or lost is made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from seq2split.common.files import write_atomically
from seq2split.runs.digests import digest, digest_of, read_digests, write_digests
from seq2split.runs.directory import RunDirectory
from seq2split.training.messages import say

MODELS = ("joint.model", "source.model", "source2.model", "target.model")
_NAMES = {*MODELS, "config.toml", "buckets.json", "architecture.digest"}


class Maker(NamedTuple):
    """A way to make a file.

    Attributes:
        make: Returns its bytes; `None` if it can't.
        is_certain: True if it gives the same bytes as before for sure; otherwise their digest must tell.
    """

    make: Callable[[], bytes | None]
    is_certain: bool = False


class MadeFiles:
    """The files of a run that the model's variables belong to, with their digests.

    Args:
        run: The run directory.
    """

    def __init__(self, run: RunDirectory):
        self._run, self._digests, self._is_told = run, run.path / "files.sha256", False

    def write(self, path: Path, data: bytes) -> None:
        """Write a file, and note its digest."""
        write_atomically(path, data)
        self._note(path.name, digest_of(data))

    def forget(self, paths: Sequence[Path]) -> None:
        """Delete files, which are to be made anew."""
        for path in (*paths, self._digests):
            path.unlink(missing_ok=True)

    def known(self, path: Path) -> str | None:
        """Return the digest that a file was written with, if that is known."""
        try:
            return self._read_digests().get(path.name)
        except ValueError as error:
            if not self._is_told:
                say(f"{error} Whether the configuration, vocabularies and buckets are as they were, isn't known.")
            self._is_told = True
            return None

    def find_fault(self, path: Path, is_right: Callable[[bytes], bool] = bool) -> str | None:
        """Return what is wrong with a file: missing, or not as it was written; `None` if nothing is.

        Args:
            path: The file.
            is_right: Tells whether bytes are such a file; for those whose digest isn't known.
        """
        if not path.exists():
            return f"{path} is missing"
        known = self.known(path)
        if known is None:
            return None if is_right(path.read_bytes()) else f"{path} is damaged"
        return None if digest(path) == known else f"{path} isn't what was written (its digest is another)"

    def read(
        self, path: Path, makers: Sequence[Maker], *, is_right: Callable[[bytes], bool] = bool, writes: bool
    ) -> bytes:
        """Return the bytes of a file; of a run that has a checkpoint, never other ones than it was trained with.

        Args:
            path: The file.
            makers: Ways to make it, if it is damaged, lost, or not there yet.
            is_right: See `find_fault`.
            writes: True if it is written where it was made.

        Raises:
            ValueError: It can't be had.
        """
        fault, is_trained = self.find_fault(path, is_right), self._run.has_checkpoint()
        if fault is None:
            data = path.read_bytes()
            if writes and self.known(path) is None:
                self._note(path.name, digest_of(data))
            return data
        known = self.known(path)
        for make, is_certain in makers:
            data = make()
            if data is None or (is_trained and not (digest_of(data) == known if known else is_certain)):
                continue
            if writes:
                self.write(path, data)
            if is_trained:
                say(f"{fault}: it is made again, and is the same as before")
            return data
        raise ValueError(self._explain(path, fault, writes))

    def _explain(self, path: Path, fault: str, was_tried: bool) -> str:
        if not self._run.has_checkpoint():
            return f"{self._run.path} is no complete run directory: it has no {path.name}. Train it first."
        if was_tried:
            return (
                f"{fault}, and can't be made again for certain: the corpus is another one, or its digest isn't known. "
                "The variables of the run belong to it: put back a copy of it, or train anew in another run directory."
            )
        return (
            f"{fault}. Put back a copy of it; or start the training again, which makes it anew if that can be done for "
            "certain."
        )

    def _read_digests(self) -> dict[str, str]:
        found = read_digests(self._digests)
        if not found.keys() <= _NAMES:
            raise ValueError(f"{self._digests} is damaged: it lists {', '.join(found.keys() - _NAMES)}.")
        return found

    def _note(self, name: str, found: str) -> None:
        try:
            digests = self._read_digests()
        except ValueError:
            digests = {}
        if digests.get(name) != found:
            write_digests(self._digests, digests | {name: found})
