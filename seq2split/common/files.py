"""Files that are written whole or not at all, since a run may be killed at any moment."""

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file such that a killed process leaves the old one, or none, and never a part."""
    if path.exists() and not path.is_file():  # a pipe or a device, /dev/null for one, is written to and not replaced
        path.write_bytes(data)
        return
    path = path.resolve()  # a link stays one
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
