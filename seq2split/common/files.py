"""Files written whole or not at all, since a run may be killed at any moment."""

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file such that a killed process leaves the old file, or none, and never a part of the new one."""
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
