"""Digests of files, written beside them, by which a damaged file is told when it is read.

They are lines of `sha256sum`: `cd runs/mine/checkpoints; sha256sum -c ckpt-8.sha256` checks them without this package.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from seq2split.common.files import write_atomically

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal.

    Example:
        >>> digest_of(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def write_digests(path: Path, digests: Mapping[str, str]) -> None:
    """Write digests of files by their names, whole or not at all."""
    write_atomically(path, "".join(f"{each}  {name}\n" for name, each in digests.items()).encode())


def read_digests(path: Path) -> dict[str, str]:
    """Return the digests of a file by name; none if there is no such file.

    Raises:
        ValueError: A line of it is damaged.
    """
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found):
        raise ValueError(f"{path}, line {found.index(None) + 1}: expected a digest and the name of a file.")
    return {match[2]: match[1] for match in found}


def find_damage(folder: Path, digests: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first file that isn't as its digest says; `None` if all are.

    Args:
        folder: The folder of the files.
        digests: Their digests by name.
    """
    for name, expected in digests.items():
        try:
            if digest(folder / name) != expected:
                return f"{name} isn't what was written (its digest is another)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} can't be read ({error.strerror or error})"
    return None


def digests_of(files: Iterable[Path]) -> dict[str, str]:
    """Return the digests of files by their names."""
    return {path.name: digest(path) for path in files}
