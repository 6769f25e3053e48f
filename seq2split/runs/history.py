"""What a run measured, as plain text: one JSON object a line, for plots and for comparing runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seq2split.common.files import doing, write_atomically

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
        self.entries: list[Entry] = []

    def add(self, **entry: float) -> None:
        """Add an entry; `rewind` goes by its `step`."""
        self.entries.append(entry)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def rewind(self, step: int, finished: bool = False) -> None:
        """Read the file, and drop what was measured after a step, at which the run stands.

        Args:
            step: The step.
            finished: True if no step follows, so that the figures of an average of its models are the last; otherwise
                they are dropped too.
        """
        if self._path is not None:
            self.entries = read_history(self._path) if self._path.exists() else []
        kept = [entry for entry in self.entries if entry["step"] <= step and (finished or not _is_average(entry))]
        self.entries = kept
        if self._path is not None and self._path.exists():
            write_atomically(self._path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())

    def has_average(self) -> bool:
        """Return whether an average was measured."""
        return any(map(_is_average, self.entries))


def read_history(path: Path) -> list[Entry]:
    """Return the entries of a run's history.

    Args:
        path: The file.

    Returns:
        In order: of each logged step `step`, `seconds` (of training and validating so far), `tokens` (real positions of
        all sides so far), `loss`, `nll`, `perplexity`, `tokens_per_second`, `padding` and learning rates; of each
        validation `step`, `seconds`, `tokens`, `validation_loss`, `validation_perplexity` and `validation_bleu`; of the
        average of models likewise `average_loss` and so on. A last line that a killed process left unfinished is not
        among them.

    Raises:
        ValueError: There is no history, or a line of it is damaged.
    """
    if not path.exists():
        raise ValueError(f"{path.parent} holds no history: it has no {path.name}. Training a run writes it.")
    with doing("read", path):
        # What follows the last line's end is unfinished, or empty.
        *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _is_average(entry: Entry) -> bool:
    return any(name.startswith("average_") for name in entry)


def _parse(line: str, place: str) -> Entry:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if isinstance(entry, dict) and type(entry.get("step")) is int and all(map(_is_number, entry.values())):
        return entry
    raise ValueError(
        f"{place}: expected a JSON object of numbers with a step, got {line[:60]!r}; delete the line, whose figures "
        "are lost."
    )


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
