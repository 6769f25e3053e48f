"""What the benchmark and a peer's process tell each other: JSON and arrays, no pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


def pack(fields: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
    """Write a message.

    Args:
        fields: What JSON can hold.
        arrays: Arrays by any names.

    Returns:
        The message, which `unpack` reads.

    Example:
        >>> fields, arrays = unpack(pack({"call": "step"}, {"source/lengths": np.array([3, 1])}))
        >>> fields, arrays["source/lengths"].tolist()
        ({'call': 'step'}, [3, 1])
    """
    arrays, buffer = arrays or {}, BytesIO()
    head = json.dumps([fields, list(arrays)]).encode()
    for each in (np.frombuffer(head, np.uint8), *arrays.values()):
        np.save(buffer, each, allow_pickle=False)
    return buffer.getvalue()


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the fields and the arrays of a message."""
    buffer = BytesIO(message)
    fields, names = json.loads(np.load(buffer, allow_pickle=False).tobytes())
    return fields, {name: np.load(buffer, allow_pickle=False) for name in names}
