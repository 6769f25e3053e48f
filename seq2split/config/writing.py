"""Configurations written as TOML, and the keys at which two of them differ."""

import dataclasses
from typing import Any

from seq2split.config.schema import dotted, is_table, items_of, plain_items
from seq2split.config.settings import Config
from seq2split.config.toml import key_text, value_text


def dumps(config: Config) -> str:
    """Write a configuration as TOML that `load` reads to an equal one, if its paths are absolute.

    Args:
        config: A configuration, as `load` returns it.

    Returns:
        The TOML text with every key, ending in a newline.

    Raises:
        ConfigError: A string holds what no UTF-8 file can (half of a surrogate pair, as in undecodable file names).

    Example:
        >>> from seq2split.config import Config, DataConfig
        >>> data = DataConfig(train_source=("/a.en",), train_target=("/a.de",),
        ...                   valid_source=("/b.en",), valid_target=("/b.de",))
        >>> print(*dumps(Config(data=data)).splitlines()[:5], sep="\\n")
        seed = 1
        precision = "float32"
        <BLANKLINE>
        [data]
        train_source = ["/a.en"]
    """
    return "\n".join(_table_lines(config, "")) + "\n"


def differences(a: Config, b: Config) -> list[str]:
    """Name the keys at which two configurations differ.

    Args:
        a: A configuration.
        b: Another one.

    Returns:
        The dotted keys in the order of the dataclasses; a table in a table that only one of the two has is one key.

    Example:
        >>> from seq2split.config import Config, DataConfig, ModelConfig
        >>> data = DataConfig(train_source=("/a.en",), train_target=("/a.de",),
        ...                   valid_source=("/b.en",), valid_target=("/b.de",))
        >>> differences(Config(data=data), Config(data=data, seed=2, model=ModelConfig(units=8)))
        ['seed', 'model.units']
    """
    found = []
    ours, theirs = items_of(a), items_of(b)
    for key in ours | theirs:
        one, other = ours.get(key), theirs.get(key)
        if is_table(one) and is_table(other):
            found += [dotted(key_text(key), inner) for inner in differences(one, other)]
        elif one != other:
            found.append(key_text(key))
    return found


def _table_lines(table: Any, path: str) -> list[str]:
    """Return the lines of a table: its own keys first, then the tables in it."""
    items = items_of(table)
    lines = [f"{key} = {value_text(value)}" for key, value in plain_items(items).items()]
    for key, value in items.items():
        if is_table(value):
            name = dotted(path, key_text(key))
            header = ["", f"[{name}]"] if dataclasses.is_dataclass(value) else []
            lines += header + _table_lines(value, name)
    return lines
