"""The keys of a configuration, as the dataclasses tell them: their types and defaults, and which are tables."""

import dataclasses
import functools
import types
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, get_args, get_type_hints

from seq2split.config.settings import Config, Groups


@functools.cache
def hints_of(cls: type, sub_tables: bool = True) -> dict[str, Any]:
    """Return the types of a table's keys, with or without the keys that are tables in it."""
    hints = get_type_hints(cls, include_extras=True)
    return {key: hint for key, hint in hints.items() if sub_tables or not (table_class(hint) or hint == Groups)}


@functools.cache
def keys_by_table() -> dict[str, dict[str, Any]]:
    """Return the keys of each table and their types, by the name of the table: "" for the top of the file."""
    tables = {name: table_class(hint)[0] for name, hint in hints_of(Config).items() if table_class(hint)}
    return {name: hints_of(cls) for name, cls in {"": Config, **tables}.items()}


def table_class(hint: Any) -> tuple[type, bool] | None:
    """Return the dataclass of a key that is a table, and whether it may be left out; None for any other key."""
    optional = isinstance(hint, types.UnionType) and types.NoneType in get_args(hint)
    cls = get_args(hint)[0] if optional else hint
    return (cls, optional) if dataclasses.is_dataclass(cls) else None


def is_table(value: Any) -> bool:
    """True if the value of a key is a table."""
    return dataclasses.is_dataclass(value) or isinstance(value, dict)


def plain_items(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items of a table that have a value and are no tables."""
    return {key: value for key, value in items.items() if value is not None and not is_table(value)}


def items_of(table: Any) -> dict[str, Any]:
    """Return the items of a table, be it a dataclass or a mapping."""
    if isinstance(table, dict):
        return table
    return {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the defaults of a table's keys; required keys have none."""
    plain = {field.name: field.default for field in dataclasses.fields(cls) if field.default is not MISSING}
    made = {field.name for field in dataclasses.fields(cls) if field.default_factory is not MISSING}
    return plain | {name: {} for name in made}


def dotted(path: str, key: str) -> str:
    """Return the name of a key in the table at a path; the path "" is the top of the file."""
    return f"{path}.{key}" if path else key
