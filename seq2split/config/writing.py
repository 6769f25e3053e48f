"""Configurations written as TOML, and the keys at which two of them differ."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from seq2split.config.errors import ConfigError
from seq2split.config.schema import dotted, is_table, items_of, plain_items
from seq2split.config.settings import Config, ModelConfig
from seq2split.config.toml import key_text, value_text


def dumps(config: Config) -> str:
    """Write a configuration as TOML that `load` reads to an equal one, if its paths are absolute.

    Args:
        config: A configuration, as `load` returns it.

    Returns:
        The TOML text with every key, ending in a newline. With an architecture of one's own, the keys of [model] that
        only built-in ones read are left out where they have their defaults.

    Raises:
        ConfigError: A string holds what no UTF-8 file can (half of a surrogate pair, as in undecodable file names).

    Example:
        >>> from seq2split.config.settings import Config, DataConfig
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
        >>> from seq2split.config.settings import Config, DataConfig, ModelConfig
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
    items = _written_items(table)
    lines = _key_lines(plain_items(items))
    for key, value in items.items():
        name = dotted(path, key_text(key))
        if dataclasses.is_dataclass(value):
            lines += ["", f"[{name}]", *_table_lines(value, name)]
        elif isinstance(value, dict) and all(map(dataclasses.is_dataclass, value.values())):
            lines += _table_lines(value, name)
        elif isinstance(value, dict):  # free keys: tables among them are written inline, which keeps their order
            lines += ["", f"[{name}]", *_key_lines(value)]
    return lines


def _key_lines(items: Mapping[str, Any]) -> list[str]:
    lines = [f"{key_text(key)} = {value_text(value)}" for key, value in items.items()]
    for line in lines:
        try:
            line.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{ascii(line)[1:-1]}: expected valid Unicode text, which TOML needs; change it, or rename the file"
            ) from None
    return lines


def _written_items(table: Any) -> dict[str, Any]:
    """Return the items of a table that are written; `load` refuses keys that an architecture of one's own ignores."""
    items = items_of(table)
    if isinstance(table, ModelConfig) and not table.is_built_in:
        defaults = items_of(ModelConfig())
        items = {key: value for key, value in items.items() if value != defaults[key]}
    return items
