"""Files written whole or not at all, since a run may be killed at any moment."""

import errno
import os
from pathlib import Path

_MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file such that a killed process leaves the old file, or none, and never a part of the new one.

    Raises:
        OSError: It can't be written; the message says which file, and why.
    """
    try:
        _write(path, data)
    except OSError as error:
        raise type(error)(f"{path} can't be written: {explain_failure(error)}.") from error


def sync(path: Path) -> None:
    """Wait until a file is on its disk, as far as the operating system tells: a full one may be told only then."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def explain_failure(error: Exception) -> str:
    """Return why something can't be written, and what to do.

    Args:
        error: Python's error, or one of TensorFlow, whose message ends in what the operating system says.
    """
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0].split("; ")[-1].partition(" [Op:")[0]
    mends = {os.strerror(number): mend for number, mend in _MENDS.items()}
    return f"{reason}; {mends[reason]}, and try again" if reason in mends else reason


def _write(path: Path, data: bytes) -> None:
    if path.exists() and not path.is_file():  # a pipe or a device, /dev/null for one, is written, not replaced
        path.write_bytes(data)
        return
    path = path.resolve()  # a link stays one
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
