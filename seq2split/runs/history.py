"""What a run measured, as plain text: one JSON object a line, for plots and for comparing runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2split.common.files import doing, explain_failure, write_atomically

Entry = dict[str, Any]


class History:
    """The figures of a run, and the file that they are added to.

    Args:
        path: The file, made when the first entry is added; `None` for no file.

    Attributes:
        entries: What was measured, in order; see `read_history`.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._written = hashlib.sha256()
        self._bytes = 0
        self.entries: list[Entry] = []

    def add(self, **entry: float) -> None:
        """Add an entry; `rewind` goes by its `step`.

        Raises:
            OSError: The file can't be written.
        """
        self.entries.append(entry)
        if self._path is not None:
            line = (json.dumps(entry) + "\n").encode()
            try:
                with self._path.open("ab") as file:
                    file.write(line)
            except OSError as error:
                raise type(error)(f"{self._path} can't be written: {explain_failure(error)}.") from error
            self._note(line)

    def state(self) -> dict[str, Any]:
        """Return what tells the file as it is now from a damaged one, for `rewind`."""
        return {"bytes": self._bytes, "digest": self._written.hexdigest()}

    def rewind(self, step: int, finished: bool = False, state: Mapping[str, Any] | None = None) -> list[str]:
        """Read the file, and drop what was measured after a step, at which the run stands.

        Args:
            step: The step.
            finished: True if no step follows, so that the figures of an average of its models are the last; otherwise
                they are dropped too.
            state: What `state` was at that step, if that is known.

        Returns:
            What to tell of a file that is damaged or lost; a damaged one is kept under another name.
        """
        if self._path is None:
            self.entries = [entry for entry in self.entries if _stays(entry, step, finished)]
            return []
        data = self._path.read_bytes() if self._path.exists() else b""
        parsed = list(map(_parse, data.split(b"\n")[:-1]))  # what follows the last line's end is unfinished, or empty
        self.entries = [entry for entry in parsed if entry and _stays(entry, step, finished)]
        told = self._tell_damage(data, [number for number, entry in enumerate(parsed, 1) if not entry], state or {})
        self._rewrite()
        return told

    def drop_average(self) -> None:
        """Drop the figures of an average that is lost."""
        self.entries = [entry for entry in self.entries if not _is_average(entry)]
        self._rewrite()

    def has_average(self) -> bool:
        """Return whether an average was measured."""
        return any(map(_is_average, self.entries))

    def _rewrite(self) -> None:
        self._written, self._bytes = hashlib.sha256(), 0
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries).encode()
        self._note(text)
        if self._path is not None and self._path.exists():
            write_atomically(self._path, text)

    def _note(self, data: bytes) -> None:
        self._written.update(data)
        self._bytes += len(data)

    def _tell_damage(self, data: bytes, wrong: Sequence[int], state: Mapping[str, Any]) -> list[str]:
        """Return what to tell of damage, and keep a copy of what is damaged."""
        count = state.get("bytes", 0)
        is_whole = hashlib.sha256(data[:count]).hexdigest() == state.get("digest") if state else True
        if is_whole and not wrong:
            return []
        if not data:
            return [f"{self._path} is lost: what was measured before isn't in the history any more"]
        aside = self._path.with_name("history.damaged.jsonl")
        write_atomically(aside, data)
        lines = f"without its lines {', '.join(map(str, wrong))}, which" if wrong else "with figures that"
        return [f"{self._path} was damaged or changed: it goes on {lines} can't be trusted; as it was it is in {aside}"]


def read_history(path: Path) -> list[Entry]:
    """Return the entries of a run's history.

    Args:
        path: The file.

    Returns:
        In order: of each logged step `step`, `seconds` (of training and validating so far), `tokens` (real positions of
        all sides so far), `loss`, `nll`, `perplexity`, `tokens_per_second`, `padding`, learning rates, and how many
        steps were `left_out`, if any; of each validation `step`, `seconds`, `tokens`, `validation_loss`,
        `validation_perplexity` and `validation_bleu`; of the average of models likewise `average_loss` and so on. A
        last line that a killed process left unfinished is not among them.

    Raises:
        ValueError: There is no history, or a line of it is damaged.
    """
    if not path.exists():
        raise ValueError(f"{path.parent} holds no history: it has no {path.name}. Training a run writes it.")
    with doing("read", path):
        *lines, _ = path.read_bytes().split(b"\n")  # what follows the last line's end is unfinished, or empty
    entries = []
    for number, line in enumerate(lines, 1):
        entry = _parse(line)
        if entry is None:
            shown = line[:60].decode(errors="replace")
            raise ValueError(
                f"{path}, line {number}: expected a JSON object of numbers with a step, got {shown!r}; delete the "
                "line, whose figures are lost."
            )
        entries.append(entry)
    return entries


def _stays(entry: Entry, step: int, finished: bool) -> bool:
    return entry["step"] <= step and (finished or not _is_average(entry))


def _is_average(entry: Entry) -> bool:
    return any(name.startswith("average_") for name in entry)


def _parse(line: bytes) -> Entry | None:
    """Return the entry of a line; `None` if it is damaged."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_entry = isinstance(entry, dict) and type(entry.get("step")) is int and all(map(_is_number, entry.values()))
    return entry if is_entry else None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
