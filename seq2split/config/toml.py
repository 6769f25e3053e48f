"""Keys and values as TOML writes them."""

import json
import re
from typing import Any

from seq2split.config.errors import ConfigError


def key_text(key: str) -> str:
    """Write a key, in quotes where it needs them."""
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else _basic_string(key)


def value_text(value: Any) -> str:
    """Write a boolean, a string, a number, or a sequence of such."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _basic_string(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(value_text, value))}]"
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _basic_string(text: str) -> str:
    """Write a basic string: JSON's escapes are TOML's, but TOML wants DEL escaped too."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!a}: expected valid Unicode text, which TOML needs; rename the file") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
