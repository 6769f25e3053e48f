"""Files written whole or not at all, since a run may be killed at any moment; and errors that say which file it was."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


@contextmanager
def doing(what: str, path: str | os.PathLike) -> Iterator[None]:
    """Say in an error of the operating system what was being done to which file.

    Args:
        what: The verb, such as `read`.
        path: The file, or what it is called.

    Raises:
        OSError: One arose meanwhile. It is of the same class, with the same `errno`; one that says more than the
            system's own words is left as it is.

    Example:
        >>> with doing("read", "/"):
        ...     open("/").close()
        Traceback (most recent call last):
        ...
        IsADirectoryError: can't read /: Is a directory
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            raise
        reason = explain_failure(error) if what == "write" else error.strerror  # the mends are those of writing
        told = type(error)(f"can't {what} {os.fspath(path)}: {reason}")
        told.errno = error.errno
        raise told from error


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose results it is for.

    Args:
        path: The file; it may be there, and stays as it is.

    Raises:
        OSError: It can't; the message says why.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a pipe or a device: to open it may wait for its reader
    with doing("write", path):
        if path.is_dir():
            raise IsADirectoryError(f"can't write {path}: it is a directory; give the name of a file")
        temporary = _temporary(path)
        try:
            temporary.write_bytes(b"")
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file such that a killed process leaves the old file, or none, and never a part of the new one.

    Raises:
        OSError: It can't be written; the message names it.
    """
    with doing("write", path):
        if path.exists() and not path.is_file():  # a pipe or a device, /dev/null for one, is written, not replaced
            path.write_bytes(data)
            return
        temporary = _temporary(path)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, os.path.realpath(path))  # a link stays one
        finally:
            temporary.unlink(missing_ok=True)


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


def _temporary(path: Path) -> Path:
    """Return where a file is written before it gets its name: beside it, since only there it can be renamed."""
    path = Path(os.path.realpath(path))  # not Path.resolve: of a link to itself it raises a RuntimeError
    return path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")
