"""The lock of a run directory: one training at a time writes into it.

It is a lock of the operating system on an open file, so that one which a killed process held is gone with the process;
the file itself stays, and tells who holds the lock. Network file systems pass such locks on as far as they can: NFS and
Lustre between machines, where they are mounted to; where there are none, that is told, and the training goes on.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class RunLock:
    """The lock of one run directory. Whoever has this object may take it again while it is held.

    Args:
        path: The file that is locked; it and its directory are made when the lock is first taken.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: FileIO | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for as long as the context lasts.

        Raises:
            BlockingIOError: Another training holds it; the message names its process and host.
            OSError: The directory can't be written to.
        """
        if self._file is not None:
            yield
            return
        self._file = self._take()
        try:
            yield
        finally:
            with suppress(OSError):
                self._file.truncate(0)
            self._file.close()
            self._file = None

    def _take(self) -> FileIO:
        file = _open(self._path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file.read(1000))
            file.close()
            raise BlockingIOError(
                f"{self._path.parent} is being trained by {holder}, which holds {self._path.name}; wait until that "
                "ends, stop it, or give another run directory. (The lock ends with its process, however that ends.)"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"{self._path.parent} is on a file system without locks ({error.strerror}): see to it that no other "
                "training writes into it.",
                stacklevel=4,
            )
        me = {"process": os.getpid(), "host": socket.gethostname()}
        with suppress(OSError):  # on a full disk the lock holds too, though it doesn't tell whose it is
            file.truncate(0)
            file.write(json.dumps(me | {"since": datetime.now(UTC).isoformat(timespec="seconds")}).encode() + b"\n")
        return file


def _open(path: Path) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise type(error)(
            f"{path} can't be written ({error.strerror}): a training writes into its run directory; make that "
            "writable, or give another one."
        ) from error


def _holder(data: bytes) -> str:
    """Return who holds a lock, as far as the file tells: it is empty for the moment in which it is taken."""
    try:
        who = json.loads(data)
        return f"process {who['process']} on {who['host']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
