"""What tells the batches and the validation of a training from others, so that none is exchanged unnoticed.

A fingerprint stands in every checkpoint; the file of the run is there to be read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seq2split.common.files import write_atomically
from seq2split.corpus import Batches

Fingerprint = dict[str, Any]


def fingerprint(batches: Batches, validation: Any) -> Fingerprint:
    """Return what decides about the batches, and what the validation reads, as JSON can hold it.

    Args:
        batches: The batches to train on.
        validation: The validation, as `Trainer.fit` is given it; what a function reads, it tells by a method
            `fingerprint` of its own, or it isn't known.
    """
    if isinstance(validation, Batches):
        validated = {"digest": validation.corpus.digest(), "rows": len(validation.corpus)}
    else:
        tell = getattr(validation, "fingerprint", None)
        validated = tell() if callable(tell) else None
    found = batches.fingerprint() | ({"validation": validated} if validated else {})
    return json.loads(json.dumps(found))


def check_same(owner: str, before: Fingerprint, now: Fingerprint, changed: bool) -> dict[str, list]:
    """Compare batches with those of earlier sessions: on others a training can't go on where it stood.

    Args:
        owner: What holds the training.
        before: The fingerprint of earlier sessions.
        now: That of this one.
        changed: True if they may differ.

    Returns:
        What is otherwise: what it was and what it is, by name.

    Raises:
        ValueError: They differ, and may not.
    """
    names = [name for name in now if before.get(name) != now[name] and (name in before or name != "validation")]
    if names and not changed:
        differences = ", ".join(_difference(name, before.get(name), now[name]) for name in names)
        raise ValueError(
            f"{owner} holds a training on other batches ({differences}), in which its place would mean something else; "
            "give the batches that it was started on, or another run directory and trainer. To go on with these "
            "nevertheless, which is recorded, give fit(..., changed_batches=True), on the command line "
            "--changed-corpus."
        )
    return {name: [before.get(name), now[name]] for name in names}


def read_fingerprint(path: Path, stored: Fingerprint | None) -> tuple[Fingerprint | None, list[str]]:
    """Return the fingerprint of a run that has a checkpoint, and what to tell of its file.

    Args:
        path: The file.
        stored: The fingerprint that the checkpoint holds; `None` in one of an earlier version.

    Returns:
        The fingerprint; `None` if no one knows it any more.

    Raises:
        ValueError: The file is damaged, and the checkpoint holds none.
    """
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("expected an object")
    except FileNotFoundError:
        known = (
            "is lost: it is written again from the checkpoint"
            if stored
            else ("is lost: whether the batches are those that the run was trained on, isn't known")
        )
        return stored, [f"{path} {known}"]
    except (ValueError, RecursionError) as error:
        if stored is None:
            raise ValueError(
                f"{path} is damaged: {error}. It tells whether the batches are those that the run was trained on; if "
                "you know that they are, delete it."
            ) from error
        return stored, [f"{path} is damaged: it is written again from the checkpoint"]
    if stored is not None and found != stored:
        return stored, [f"{path} was changed or damaged: it is written again from the checkpoint"]
    return found, []


def write_fingerprint(path: Path, found: Fingerprint) -> None:
    """Write a fingerprint as people read it."""
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [each for each in now if before.get(each) != now[each]]
        return ", ".join(f"{name} {each} {before.get(each)} -> {now[each]}" for each in changed)
    return f"{name} {before} -> {now}"
