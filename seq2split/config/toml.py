"""Keys and values as TOML writes them."""

import datetime
import json
import re
from typing import Any


def key_text(key: str) -> str:
    """Write a key, in quotes where it needs them."""
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else _basic_string(key)


def value_text(value: Any) -> str:
    """Write a value; a mapping becomes an inline table."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _basic_string(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key_text(key)} = {value_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(value_text, value))}]"
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _basic_string(text: str) -> str:
    """Write a basic string: JSON's escapes are TOML's, but TOML wants DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
