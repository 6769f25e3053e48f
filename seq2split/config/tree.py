"""TOML files and overrides as trees of values that know where they were given."""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2split.config.errors import ConfigError
from seq2split.config.values import clipped


@dataclass(frozen=True)
class Origin:
    """The place where values are given.

    Attributes:
        name: The name of the place in messages: the file, or the override.
        directory: The directory that relative paths in it start from.
    """

    name: str
    directory: str


@dataclass(frozen=True)
class Given:
    """A value, and where it was given.

    Attributes:
        value: The TOML value; a table is a dict of `Given`.
        origin: The place.
    """

    value: Any
    origin: Origin


def as_given(value: Any, origin: Origin) -> Given:
    """Return the tree of a TOML value that was given at one place."""
    if isinstance(value, dict):
        value = {key: as_given(item, origin) for key, item in value.items()}
    return Given(value, origin)


def as_value(given: Given) -> Any:
    """Return the TOML value of a tree, the inverse of `as_given`."""
    if isinstance(given.value, dict):
        return {key: as_value(item) for key, item in given.value.items()}
    return given.value


def merge(old: Given, new: Given) -> Given:
    """Return `old` with the keys of `new` put over it, table by table."""
    if not (isinstance(old.value, dict) and isinstance(new.value, dict)):
        return new
    over = {key: merge(old.value[key], item) if key in old.value else item for key, item in new.value.items()}
    return Given(old.value | over, old.origin)


def parse_file(path: Path) -> dict[str, Any]:
    """Return the TOML of a file; a `ConfigError` names the file, and the line, if it is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # an editor's byte order mark would be a puzzling syntax error
        return _parse_toml(text)
    except OSError as error:
        mend = "give the path of a TOML file; data/default.toml is one that has every key"
        raise ConfigError(f"{path}: {error.strerror} (current directory {os.getcwd()}); {mend}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text, as TOML must be; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_problem(path, text, str(error))) from None
    except ValueError:  # which Python raises of an integer of thousands of digits
        raise ConfigError(f"{path}: {_HUGE}") from None


def _parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; raise a `RecursionError` of what is nested too deep, be it lists, inline tables or dotted keys."""
    if _DEEP.search(text):  # Python's reader takes minutes for a key of tens of thousands of parts
        raise RecursionError
    return tomllib.loads(text)


_DEEP = re.compile(r"(?<![\w.-])(?:[\w-]++\.){500}")
_HUGE = "an integer of thousands of digits, more than TOML has; write a smaller one"


def _syntax_problem(path: Path, text: str, message: str) -> str:
    lines = text.split("\n")
    position = re.search(r"at line (\d+)", message)
    line = int(position[1]) if position else max(1, len(text.rstrip().split("\n")))  # "at end of document"
    mend = 'write `key = value` or `[table]`, strings in quotes: key = "text"'
    return f"{path}, line {line}: not valid TOML: {message}, in `{clipped(lines[line - 1].strip())}`; {mend}"


def parse_override(override: str) -> Given:
    """Return the tree of one override `table.key=value`."""
    name, equals, text = override.partition("=")
    keys = _override_keys(name)
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected table.key=value, for example --set model.units=256")
    tree: Any = _parse_value(text.strip())
    for key in reversed(keys):
        tree = {key: tree}
    return as_given(tree, Origin(f"--set {override}", os.getcwd()))


def _override_keys(name: str) -> list[str]:
    """Return the keys of a dotted name; one of them is empty if the name is malformed."""
    if '"' not in name and "'" not in name:
        return [key.strip() for key in name.split(".")]
    try:
        tree, keys = _parse_toml(f"{name} = 0"), []
    except ValueError:
        return [""]
    while tree:
        ((key, tree),) = tree.items()
        keys.append(key)
    return keys


def _parse_value(text: str) -> Any:
    """Return the TOML value that a text spells, or else the text."""
    try:
        parsed = _parse_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except ValueError:
        raise ConfigError(f"--set ...={clipped(text)}: {_HUGE}") from None
    return parsed["value"] if len(parsed) == 1 else text  # a text of several lines may be several TOML keys
