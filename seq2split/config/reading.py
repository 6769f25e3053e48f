"""Configurations read from TOML and overrides.

Reading goes in three moves: the file and each override become a tree of values that know where they were given; the
trees are merged; the merged tree is converted key by key. A problem is noted rather than raised, so one `ConfigError`
tells of all of them.

A problem names its file and key, but its line only where the TOML itself is malformed: `tomllib` tells no positions.
"""

import difflib
import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from seq2split.config.architectures import BUILT_IN, is_architecture
from seq2split.config.errors import ConfigError
from seq2split.config.rules import RULES, Rule
from seq2split.config.schema import defaults_of, dotted, hints_of, keys_by_table, plain_items, table_class
from seq2split.config.settings import Config, Groups, ModelConfig, OptimizerConfig, Options
from seq2split.config.toml import key_text, value_text
from seq2split.config.tree import Given, Origin, as_given, as_value, merge, parse_file, parse_override
from seq2split.config.values import clipped, convert, expectation, is_writable, shown


def load(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Read the configuration of an experiment.

    Args:
        path: The path of a TOML file. Paths in it are relative to its directory.
        overrides: Strings `table.key=value`, as `--set` gives them; of two with one key the later wins. A value is
            TOML or, where that does not parse, a bare string. Paths in them are relative to the current directory.

    Returns:
        The configuration with absolute paths, and with the tables in `optimizer`, where given, filled from it.

    Raises:
        ConfigError: The file cannot be read or is not TOML; or its keys and the overrides' are unknown, missing,
            ill-typed, out of range or at odds with each other: all of these problems together, one a line.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "run.toml")
        >>> files = [f'{name} = "{name}.gz"' for name in ("train_source", "train_target")]
        >>> files += [f'{name} = "{name}.gz"' for name in ("valid_source", "valid_target")]
        >>> _ = path.write_text("[data]\\n" + "\\n".join(files))
        >>> config = load(path, ["model.cell=gru", "optimizer.encoder.learning_rate=1e-4"])
        >>> config.model.cell, config.optimizer.encoder.learning_rate, config.optimizer.encoder.name
        ('gru', 0.0001, 'adam')
    """
    try:
        return _load(path, overrides)
    except RecursionError:
        raise ConfigError(f"{path}: {_TOO_DEEP}") from None


def _load(path: str | os.PathLike[str], overrides: Iterable[str]) -> Config:
    origin = Origin(os.fspath(path), os.path.dirname(os.path.abspath(path)))
    tree = as_given(parse_file(Path(path)), origin)
    reader = _Reader()
    for override in overrides:
        try:
            tree = merge(tree, parse_override(override))
        except ConfigError as error:
            reader.problems += error.problems
        except RecursionError:
            reader.problems.append(f"--set {clipped(override)}: {_TOO_DEEP}")
    config = reader.table(Config, tree)
    reader.check_model(config.model)
    reader.check(config, RULES)
    if reader.problems:
        raise ConfigError(*reader.problems)
    return config


class _Reader:
    """Reads a tree into the dataclasses, and notes every problem rather than stopping at the first.

    Attributes:
        problems: The problems found so far, one line each.
    """

    def __init__(self):
        self.problems: list[str] = []
        self._invalid: set[str] = set()  # dotted keys with a problem: their value is a stand-in
        self._origins: dict[str, Origin] = {}  # by dotted key, for those that are given

    def table(self, cls: type, given: Given, path: str = "", inherited: Mapping[str, Any] | None = None) -> Any:
        """Return the dataclass of the table at `path`; keys left out are `inherited`, or else have their defaults."""
        hints = hints_of(cls, sub_tables=inherited is None)
        if not isinstance(given.value, dict):
            self._note(given, path, f"got {shown(given.value)}, expected a table: write [{path}] and keys under it")
            given = Given({}, given.origin)
        for key in [key for key in given.value if key not in hints]:
            kind = "table" if isinstance(given.value[key].value, dict) else "key"
            mend = _MEND_OWN if _has_own_architecture(cls, given) else _mend_unknown(path, key, hints)
            self._note(given.value[key], dotted(path, key), f"unknown {kind}; {mend}")
        values = defaults_of(cls) | (inherited or {})
        for key, hint in hints.items():
            values[key] = self._reader_of(hint)(hint, given, dotted(path, key), values)
        if cls is OptimizerConfig:
            self._check_steps(given, path, values["first_step"], values["last_step"])
        return cls(**values)

    def _check_steps(self, given: Given, path: str, first: int, last: int) -> None:
        """Note an optimizer that would never update, where the table itself says so."""
        if 0 < last < first and not {"first_step", "last_step"}.isdisjoint(given.value):
            mend = "raise last_step, set it to 0 for no last step, or set frozen = true"
            self._note(given, path, f"got first_step = {first} and last_step = {last}, so that no step updates; {mend}")

    def check_model(self, model: ModelConfig) -> None:
        """Note the keys of [model] that are given although its architecture does not read them."""
        if "model.architecture" in self._invalid:
            return
        given = [key for key in self._origins if key.startswith("model.") and key != "model.architecture"]
        unread = [key for key in given if key.startswith("model.options.") == model.is_built_in]
        if unread:
            mend = _MEND_BUILT_IN if model.is_built_in else f"only {' and '.join(BUILT_IN)} read these; {_MEND_OWN}"
            self._invalid.update(unread)
            origins = dict.fromkeys(self._origins[key].name for key in unread)
            got = f"got {', '.join(unread)} with model.architecture = {value_text(model.architecture)}"
            self.problems.append(f"{', '.join(origins)}: {got}; {mend}")

    def check(self, config: Config, rules: Iterable[Rule]) -> None:
        """Note the rules that do not hold, except those on keys that have a problem already."""
        for rule in rules:
            values = [functools.reduce(getattr, key.split("."), config) for key in rule.keys]
            if self._invalid.isdisjoint(rule.keys) and not rule.holds(*values):
                origins = dict.fromkeys(self._origins[key].name for key in rule.keys if key in self._origins)
                pairs = zip(rule.keys, map(value_text, values), strict=True)
                got = ", ".join(f"{key} = {clipped(text)}" for key, text in pairs)
                self.problems.append(f"{', '.join(origins)}: got {got}; expected {rule.expected}")

    def _reader_of(self, hint: Any) -> Callable[..., Any]:
        if table_class(hint):
            return self._sub_table
        return {Groups: self._groups, Options: self._options}.get(hint, self._value)

    def _sub_table(self, hint: Any, given: Given, path: str, values: Mapping[str, Any]) -> Any:
        key = path.rpartition(".")[2]
        cls, optional = table_class(hint)
        if optional and key not in given.value:
            return None
        inherited = plain_items(values) if optional else None
        return self.table(cls, given.value.get(key, Given({}, given.origin)), path, inherited)

    def _groups(self, _hint: Any, given: Given, path: str, values: Mapping[str, Any]) -> dict[str, OptimizerConfig]:
        """Return the optimizers of variable groups by their keys, which are regular expressions."""
        groups = given.value.get(path.rpartition(".")[2], Given({}, given.origin))
        if not isinstance(groups.value, dict):
            mend = f'write [{path}."REGULAR EXPRESSION"] and keys under it'
            self._note(groups, path, f"got {shown(groups.value)}, expected tables: {mend}")
            return {}
        for pattern, item in groups.value.items():
            try:
                re.compile(pattern)
            except (re.error, OverflowError) as error:
                self._note(item, dotted(path, key_text(pattern)), f"no regular expression: {error}; escape or mend it")
        return {
            pattern: self.table(OptimizerConfig, item, dotted(path, key_text(pattern)), plain_items(values))
            for pattern, item in groups.value.items()
        }

    def _options(self, _hint: Any, given: Given, path: str, _values: Mapping[str, Any]) -> Options:
        """Return a table of free keys as it is written."""
        options = given.value.get(path.rpartition(".")[2], Given({}, given.origin))
        if not isinstance(options.value, dict):
            self._note(options, path, f"got {shown(options.value)}, expected a table: write [{path}] and keys under it")
            return {}
        self._origins |= {dotted(path, key_text(key)): item.origin for key, item in options.value.items()}
        for key, item in options.value.items():
            if not is_writable(as_value(item)):
                self._note(item, dotted(path, key_text(key)), "got an integer of more than 64 bits, which TOML has not")
        return as_value(options)

    def _value(self, hint: Any, given: Given, name: str, values: Mapping[str, Any]) -> Any:
        """Return the value of one key: converted if given, else that of `values`, which also stands in if invalid."""
        table, _, key = name.rpartition(".")
        if key in given.value:
            item = given.value[key]
            self._origins[name] = item.origin
            try:
                return convert(hint, item.value, item.origin.directory)
            except ValueError:
                expected = expectation(hint, values.get(key), item.value)
                self._note(item, name, f"got {shown(item.value)}, expected {expected}")
        elif key not in values:
            self._note(given, name, f"missing; add {key} under [{table}]: expected {expectation(hint)}")
        return values.get(key)

    def _note(self, item: Given, name: str, text: str) -> None:
        self._invalid.add(name)
        self.problems.append(f"{item.origin.name}: {name}: {text}")


_TOO_DEEP = "tables or lists in one another, too deep to be read; nest fewer"
_MEND_BUILT_IN = (
    "options are for an architecture of your own, named as a function (file.py:function or package.module:function); "
    "a built-in one reads the other keys of [model]"
)
_MEND_OWN = "put what an architecture of your own needs under [model.options]"


def _has_own_architecture(cls: type, given: Given) -> bool:
    """True if a table is a [model] whose architecture is a function of one's own."""
    named = given.value.get("architecture")
    return cls is ModelConfig and named is not None and is_architecture(named.value) and named.value not in BUILT_IN


def _mend_unknown(table: str, key: str, valid: Iterable[str]) -> str:
    """Say where an unknown key belongs, and the nearest valid key; else the nearest of another table; else all keys."""
    homes = {key: place for place, keys in keys_by_table().items() for key in keys}
    mends = [f"`{key}` belongs {_place(homes[key])}"] if key in homes else []
    mends += [f"did you mean `{near}`?" for near in difflib.get_close_matches(key, valid, n=1)]
    if not mends:
        nearest = difflib.get_close_matches(key, homes, n=1)
        mends += [f"did you mean `{near}` {_place(homes[near])}?" for near in nearest]
    return ", or ".join(mends) or f"the keys {_place(table)} are {', '.join(valid)}"


def _place(table: str) -> str:
    return f"in [{table}]" if table else "at the top of the file, above every table"
