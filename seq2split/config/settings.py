"""The configuration of an experiment: TOML read into frozen dataclasses, and written back.

The dataclasses are the single source of keys, types, defaults and ranges: a key is added by adding a field, and
`data/default.toml` shows every key with a comment (a test keeps the two together). Reading goes in three moves: the
file and each override become a tree of values that know where they were given; the trees are merged; the merged tree
is converted key by key. A problem is noted rather than raised, so one `ConfigError` tells of all of them.

A problem names its file and key, but its line only where the TOML itself is malformed: `tomllib` tells no positions.
"""

import dataclasses
import difflib
import functools
import itertools
import json
import math
import os
import re
import sys
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

__all__ = [
    "BatchesConfig",
    "BucketsConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SearchConfig",
    "TrainingConfig",
    "VocabularyConfig",
    "differences",
    "dumps",
    "load",
]


class ConfigError(ValueError):
    """What is wrong with a configuration: every problem found, one a line.

    Attributes:
        problems: the lines, each naming where the value was given, the key, and how to mend it.

    Example:
        >>> ConfigError("run.toml: first", "run.toml: second").problems
        ('run.toml: first', 'run.toml: second')
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


# --- The keys: types, ranges, defaults.


@dataclass(frozen=True)
class Range:
    """The finite numbers that a key accepts.

    Example:
        >>> str(Range(at_least=0, below=1)), 0 in Range(at_least=0, below=1), 1 in Range(at_least=0, below=1)
        ('at least 0 and below 1', True, False)
    """

    at_least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.at_least <= number and self.above < number < self.below

    def __str__(self) -> str:
        bounds = dataclasses.asdict(self).items()
        return " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds if math.isfinite(bound))


PATH = "path"  # marks a string that is a path: made absolute on load
Files = Annotated[tuple[str, ...], PATH]
OptionalFiles = Annotated[tuple[str, ...] | tuple[()], PATH]
OptionalFile = Annotated[str, PATH]
Lengths = int | tuple[int, ...]
Count = Annotated[int, Range(at_least=1)]
CountOrZero = Annotated[int, Range(at_least=0)]
Share = Annotated[float, Range(at_least=0, below=1)]
Positive = Annotated[float, Range(above=0)]
PositiveOrZero = Annotated[float, Range(at_least=0)]
Seed = Annotated[int, Range(at_least=0, below=2**32)]  # what numpy.random.seed accepts


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpora: parallel files of one sentence a line, plain text or .gz; and what becomes of overlong sentences."""

    train_source: Files
    train_source2: OptionalFiles = ()
    train_target: Files
    valid_source: Files
    valid_source2: OptionalFiles = ()
    valid_target: Files
    overlong: Literal["error", "truncate", "skip"] = "error"


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """The SentencePiece vocabularies: trained to `size` pieces, or loaded from the models that are named."""

    joint: bool = True
    size: Count = 8000
    algorithm: Literal["unigram", "bpe"] = "unigram"
    source_model: OptionalFile = ""
    source2_model: OptionalFile = ""
    target_model: OptionalFile = ""


@dataclass(frozen=True, kw_only=True)
class BucketsConfig:
    """The buckets of each side: a count, fitted to the corpus for least padding, or the boundaries themselves."""

    source: Lengths = 6
    source2: Lengths = 6
    target: Lengths = 6


@dataclass(frozen=True, kw_only=True)
class BatchesConfig:
    """How rows become batches: `tokens` counts the padded source and target positions of a batch."""

    mode: Literal["homogeneous", "mixed"] = "homogeneous"
    tokens: Count = 4096
    row_multiple: Count = 8


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The encoder and decoder, recurrent or Transformers, and what regularizes them."""

    architecture: Literal["recurrent", "transformer"] = "recurrent"
    embedding: Count = 256
    units: Count = 256
    encoder_layers: Count = 1
    decoder_layers: Count = 1
    cell: Literal["lstm", "gru"] = "lstm"
    bidirectional: bool = True
    attention: Literal["luong", "bahdanau"] = "luong"
    heads: Count = 4
    feedforward: Count = 1024
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    dropout: Share = 0.3
    attention_dropout: Share = 0.0
    activation_dropout: Share = 0.0
    tied_embeddings: bool = False
    shared_embeddings: bool = False
    label_smoothing: Share = 0.1


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer, its learning rate schedule, and in which steps it updates.

    `encoder`, `encoder2` and `decoder` give that part an optimizer of its own, and `groups` the variables whose paths a
    regular expression matches.
    """

    name: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop"] = "adam"
    learning_rate: Positive = 0.001
    schedule: Literal["constant", "inverse_sqrt", "cosine", "linear"] = "inverse_sqrt"
    warmup_steps: CountOrZero = 500
    weight_decay: PositiveOrZero = 0.0
    frozen: bool = False
    first_step: Count = 1
    last_step: CountOrZero = 0
    every: Count = 1
    encoder: "OptimizerConfig | None" = None
    encoder2: "OptimizerConfig | None" = None
    decoder: "OptimizerConfig | None" = None
    groups: "dict[str, OptimizerConfig]" = field(default_factory=dict, hash=False)


Groups = dict[str, OptimizerConfig]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long to train, and how often to look: `steps` and every `..._every` count training steps, that is updates."""

    steps: Count = 10000
    accumulate: Count = 1
    clip_norm: PositiveOrZero = 1.0
    validate_every: Count = 500
    checkpoint_every: Count = 250
    log_every: Count = 20
    patience: CountOrZero = 5
    criterion: Literal["bleu", "loss"] = "bleu"
    average: CountOrZero = 0
    average_of: Literal["last", "best"] = "best"
    ema: Share = 0.0
    samples: CountOrZero = 3
    build_ahead: bool = False


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How translations are searched for: see `search.BeamSearch`. The ratios are to source pieces, 0 for no bound."""

    beam: Count = 5
    length_penalty: PositiveOrZero = 1.0
    coverage: PositiveOrZero = 0.0
    min_length_ratio: PositiveOrZero = 0.0
    max_length_ratio: PositiveOrZero = 0.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment. Built in Python, its values are taken as they are; `load` is what checks them.

    Example:
        >>> data = DataConfig(train_source=("/a.en",), train_target=("/a.de",),
        ...                   valid_source=("/b.en",), valid_target=("/b.de",))
        >>> Config(data=data).model.cell
        'lstm'
    """

    seed: Seed = 1
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    data: DataConfig
    vocabulary: VocabularyConfig = VocabularyConfig()
    buckets: BucketsConfig = BucketsConfig()
    batches: BatchesConfig = BatchesConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides of the corpora: `source`, `source2` where there is a second one, and `target`."""
        return ("source", "source2", "target") if self.data.train_source2 else ("source", "target")

    def corpus(self, split: str) -> dict[str, tuple[str, ...]]:
        """The files of each side of a corpus, `train` or `valid`."""
        return {side: getattr(self.data, f"{split}_{side}") for side in self.sides}


@dataclass(frozen=True)
class _Rule:
    """What must hold between keys; `holds` takes their values in order."""

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    expected: str


def _as_many(source: str, target: str) -> _Rule:
    expected = "as many source as target files: they are read in parallel"
    return _Rule((source, target), lambda sources, targets: len(sources) == len(targets), expected)


def _as_many_if_any(source2: str, target: str) -> _Rule:
    expected = "no second source, or as many of its files as target files: they are read in parallel"
    return _Rule((source2, target), lambda sources, targets: len(sources) in (0, len(targets)), expected)


def _not_joint(model: str) -> _Rule:
    return _Rule(
        ("vocabulary.joint", f"vocabulary.{model}"),
        lambda joint, path: not (joint and path),
        f"no {model}: when joint, source_model alone names the joint model; or set joint = false",
    )


_RULES = (
    _as_many("data.train_source", "data.train_target"),
    _as_many("data.valid_source", "data.valid_target"),
    _as_many_if_any("data.train_source2", "data.train_target"),
    _as_many_if_any("data.valid_source2", "data.valid_target"),
    _Rule(
        ("data.train_source2", "data.valid_source2"),
        lambda train, valid: bool(train) == bool(valid),
        "a second source in both corpora or in neither",
    ),
    _not_joint("source2_model"),
    _not_joint("target_model"),
    _Rule(
        ("model.tied_embeddings", "model.embedding", "model.units"),
        lambda tied, embedding, units: not tied or embedding == units,
        "embedding equal to units: tied, the target embedding is the output projection; or set tied_embeddings = false",
    ),
    _Rule(
        ("model.architecture", "model.embedding", "model.units"),
        lambda architecture, embedding, units: architecture != "transformer" or embedding == units,
        "embedding equal to units: a Transformer adds its layers' outputs to the embeddings",
    ),
    _Rule(
        ("model.architecture", "model.units", "model.heads"),
        lambda architecture, units, heads: architecture != "transformer" or units % heads == 0,
        "units that can be divided among the heads",
    ),
    _Rule(
        ("model.shared_embeddings", "vocabulary.joint"),
        lambda shared, joint: joint or not shared,
        "a joint vocabulary where the sides share their embeddings; or set shared_embeddings = false",
    ),
    _Rule(
        ("search.min_length_ratio", "search.max_length_ratio"),
        lambda least, most: not most or least <= most,
        "no minimum above the maximum: lower min_length_ratio, or set max_length_ratio = 0 for no maximum",
    ),
)


# --- The public functions.


def load(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Reads an experiment's configuration.

    Args:
        path: a TOML file. Paths in it are relative to its directory.
        overrides: strings `table.key=value`, later ones winning, as `--set` gives them. The value is TOML or, where
            that does not parse, a bare string. Paths in them are relative to the current directory.

    Returns:
        The configuration with absolute paths, and with the tables in `optimizer`, where given, filled from it.

    Raises:
        ConfigError: the file cannot be read or is not TOML; or its keys and the overrides' are unknown, missing,
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
    origin = _Origin(os.fspath(path), os.path.dirname(os.path.abspath(path)))
    tree = _given(_parse(Path(path)), origin)
    reader = _Reader()
    for override in overrides:
        try:
            tree = _merge(tree, _parse_override(override))
        except ConfigError as error:
            reader.problems += error.problems
    config = reader.table(Config, tree)
    reader.check(config, _RULES)
    if reader.problems:
        raise ConfigError(*reader.problems)
    return config


def dumps(config: Config) -> str:
    """Writes a configuration as TOML that `load` reads to an equal one, if its paths are absolute.

    Args:
        config: as `load` returns it.

    Returns:
        TOML text with every key, ending in a newline.

    Raises:
        ConfigError: a string holds what no UTF-8 file can (half of a surrogate pair, as in undecodable file names).

    Example:
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
    """Names the keys at which two configurations differ.

    Args:
        a: a configuration.
        b: another one.

    Returns:
        Dotted keys in the order of the dataclasses; a table in a table that only one of the two has is one key.

    Example:
        >>> data = DataConfig(train_source=("/a.en",), train_target=("/a.de",),
        ...                   valid_source=("/b.en",), valid_target=("/b.de",))
        >>> differences(Config(data=data), Config(data=data, seed=2, model=ModelConfig(units=8)))
        ['seed', 'model.units']
    """
    found = []
    ours, theirs = _items(a), _items(b)
    for key in ours | theirs:
        one, other = ours.get(key), theirs.get(key)
        if _is_table(one) and _is_table(other):
            found += [_dotted(_bare(key), inner) for inner in differences(one, other)]
        elif one != other:
            found.append(_bare(key))
    return found


# --- TOML and overrides → a tree of values that know where they were given.


@dataclass(frozen=True)
class _Origin:
    name: str  # what a problem calls it: the file, or the override
    directory: str  # what relative paths in it are relative to


@dataclass(frozen=True)
class _Given:
    value: Any  # a TOML value; of a table, a dict of _Given
    origin: _Origin


def _given(value: Any, origin: _Origin) -> _Given:
    if isinstance(value, dict):
        value = {key: _given(item, origin) for key, item in value.items()}
    return _Given(value, origin)


def _merge(old: _Given, new: _Given) -> _Given:
    """`old` with the keys of `new` put over it, table by table."""
    if not (isinstance(old.value, dict) and isinstance(new.value, dict)):
        return new
    over = {key: _merge(old.value[key], item) if key in old.value else item for key, item in new.value.items()}
    return _Given(old.value | over, old.origin)


def _parse(path: Path) -> dict[str, Any]:
    """The TOML of a file; a ConfigError that names the file, and the line, where there is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # an editor's byte order mark would be a puzzling syntax error
        return tomllib.loads(text)
    except OSError as error:
        mend = "give the path of a TOML file; data/default.toml is one that has every key"
        raise ConfigError(f"{path}: {error.strerror} (current directory {os.getcwd()}); {mend}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text, as TOML must be; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_problem(path, text, str(error))) from None


def _syntax_problem(path: Path, text: str, message: str) -> str:
    lines = text.split("\n")
    position = re.search(r"at line (\d+)", message)
    line = int(position[1]) if position else max(1, len(text.rstrip().split("\n")))  # "at end of document"
    mend = 'write `key = value` or `[table]`, strings in quotes: key = "text"'
    return f"{path}, line {line}: not valid TOML: {message}, in `{lines[line - 1].strip()}`; {mend}"


def _parse_override(override: str) -> _Given:
    """The tree of one override `table.key=value`."""
    name, equals, text = override.partition("=")
    keys = _override_keys(name)
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected table.key=value, for example --set model.units=256")
    tree: Any = _parse_value(text.strip())
    for key in reversed(keys):
        tree = {key: tree}
    return _given(tree, _Origin(f"--set {override}", os.getcwd()))


def _override_keys(name: str) -> list[str]:
    """The keys of a dotted name; one of them is empty if it is malformed."""
    if '"' not in name and "'" not in name:
        return [key.strip() for key in name.split(".")]
    try:
        tree, keys = tomllib.loads(f"{name} = 0"), []
    except tomllib.TOMLDecodeError:
        return [""]
    while tree:
        ((key, tree),) = tree.items()
        keys.append(key)
    return keys


def _parse_value(text: str) -> Any:
    """The TOML value that the text is, or else the text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text  # a text of several lines may be several TOML keys


# --- The tree → the dataclasses.


class _Reader:
    """Reads a tree into the dataclasses, and notes every problem in place of stopping at the first."""

    def __init__(self):
        self.problems: list[str] = []
        self._invalid: set[str] = set()  # dotted keys whose value is a stand-in
        self._origins: dict[str, _Origin] = {}  # of the dotted keys that are given

    def table(self, cls: type, given: _Given, path: str = "", inherited: Mapping[str, Any] | None = None) -> Any:
        """A dataclass from the table at `path`; keys left out are `inherited` or else have their defaults."""
        hints = _hints(cls, sub_tables=inherited is None)
        if not isinstance(given.value, dict):
            self._note(given, path, f"got {_shown(given.value)}, expected a table: write [{path}] and keys under it")
            given = _Given({}, given.origin)
        for key in [key for key in given.value if key not in hints]:
            kind = "table" if isinstance(given.value[key].value, dict) else "key"
            self._note(given.value[key], _dotted(path, key), f"unknown {kind}; {_mend_unknown(path, key, hints)}")
        values = _defaults(cls) | (inherited or {})
        for key, hint in hints.items():
            read = self._sub_table if _table_class(hint) else self._groups if hint == Groups else self._value
            values[key] = read(hint, given, _dotted(path, key), values)
        return cls(**values)

    def check(self, config: Config, rules: Iterable[_Rule]) -> None:
        """Notes the rules that do not hold, save those on keys that are a problem already."""
        for rule in rules:
            values = [functools.reduce(getattr, key.split("."), config) for key in rule.keys]
            if self._invalid.isdisjoint(rule.keys) and not rule.holds(*values):
                origins = dict.fromkeys(self._origins[key].name for key in rule.keys if key in self._origins)
                pairs = zip(rule.keys, map(_toml, values), strict=True)
                got = ", ".join(f"{key} = {_clipped(text)}" for key, text in pairs)
                self.problems.append(f"{', '.join(origins)}: got {got}; expected {rule.expected}")

    def _sub_table(self, hint: Any, given: _Given, path: str, values: Mapping[str, Any]) -> Any:
        key = path.rpartition(".")[2]
        cls, optional = _table_class(hint)
        if optional and key not in given.value:
            return None
        inherited = _plain(values) if optional else None
        return self.table(cls, given.value.get(key, _Given({}, given.origin)), path, inherited)

    def _groups(self, _hint: Any, given: _Given, path: str, values: Mapping[str, Any]) -> dict[str, OptimizerConfig]:
        """The tables of variable groups, by the regular expression that is their key."""
        groups = given.value.get(path.rpartition(".")[2], _Given({}, given.origin))
        if not isinstance(groups.value, dict):
            mend = f'write [{path}."REGULAR EXPRESSION"] and keys under it'
            self._note(groups, path, f"got {_shown(groups.value)}, expected tables: {mend}")
            return {}
        for pattern, item in groups.value.items():
            try:
                re.compile(pattern)
            except re.error as error:
                self._note(
                    item, _dotted(path, _bare(pattern)), f"no regular expression: {error}; escape it, or mend it"
                )
        return {
            pattern: self.table(OptimizerConfig, item, _dotted(path, _bare(pattern)), _plain(values))
            for pattern, item in groups.value.items()
        }

    def _value(self, hint: Any, given: _Given, name: str, values: Mapping[str, Any]) -> Any:
        """The value of one key: converted if given, else the one in `values`, which also stands in for an invalid."""
        table, _, key = name.rpartition(".")
        if key in given.value:
            item = given.value[key]
            self._origins[name] = item.origin
            try:
                return _convert(hint, item)
            except ValueError:
                expected = _expected(hint, values.get(key), item.value)
                self._note(item, name, f"got {_shown(item.value)}, expected {expected}")
        elif key not in values:
            self._note(given, name, f"missing; add {key} under [{table}]: expected {_expected(hint)}")
        return values.get(key)

    def _note(self, item: _Given, name: str, text: str) -> None:
        self._invalid.add(name)
        self.problems.append(f"{item.origin.name}: {name}: {text}")


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _mend_unknown(table: str, key: str, valid: Iterable[str]) -> str:
    """Where the key is at home and the nearest valid key, else the nearest of another table, else all keys."""
    homes = {key: place for place, keys in _places().items() for key in keys}
    mends = [f"`{key}` belongs {_place(homes[key])}"] if key in homes else []
    mends += [f"did you mean `{near}`?" for near in difflib.get_close_matches(key, valid, n=1)]
    if not mends:
        nearest = difflib.get_close_matches(key, homes, n=1)
        mends += [f"did you mean `{near}` {_place(homes[near])}?" for near in nearest]
    return ", or ".join(mends) or f"the keys {_place(table)} are {', '.join(valid)}"


def _bare(key: str) -> str:
    """A key as TOML writes it: in quotes where it needs them."""
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else _toml_string(key)


def _place(table: str) -> str:
    return f"in [{table}]" if table else "at the top of the file, above every table"


@functools.cache
def _hints(cls: type, sub_tables: bool = True) -> dict[str, Any]:
    """The keys of a table and their types, with or without the keys that are tables in it."""
    hints = get_type_hints(cls, include_extras=True)
    return {key: hint for key, hint in hints.items() if sub_tables or not (_table_class(hint) or hint == Groups)}


@functools.cache
def _places() -> dict[str, dict[str, Any]]:
    """The tables by name, "" for the top of the file, and the keys of each."""
    tables = {name: _table_class(hint)[0] for name, hint in _hints(Config).items() if _table_class(hint)}
    return {name: _hints(cls) for name, cls in {"": Config, **tables}.items()}


def _table_class(hint: Any) -> tuple[type, bool] | None:
    """The dataclass of a key that is a table, and whether the table is optional; None of any other key."""
    optional = isinstance(hint, types.UnionType) and types.NoneType in get_args(hint)
    cls = get_args(hint)[0] if optional else hint
    return (cls, optional) if dataclasses.is_dataclass(cls) else None


def _is_table(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or isinstance(value, dict)


def _plain(items: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a table's keys that are given and no tables."""
    return {key: value for key, value in items.items() if value is not None and not _is_table(value)}


def _items(table: Any) -> dict[str, Any]:
    if isinstance(table, dict):
        return table
    return {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}


def _defaults(cls: type) -> dict[str, Any]:
    plain = {field.name: field.default for field in dataclasses.fields(cls) if field.default is not MISSING}
    made = {field.name for field in dataclasses.fields(cls) if field.default_factory is not MISSING}
    return plain | {name: {} for name in made}


# --- One value → its type.


def _are_files(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return len(names) > 0 and all(isinstance(name, str) and name for name in names)


def _are_files_or_none(value: Any) -> bool:
    return value in ("", []) or _are_files(value)


def _are_lengths(value: Any) -> bool:
    lengths = value if isinstance(value, list) else [value]
    positive = len(lengths) > 0 and all(type(length) is int and length > 0 for length in lengths)
    return positive and all(a < b for a, b in itertools.pairwise(lengths))


# Of each type: whether a TOML value is one, and how a problem describes it. Exact types: True is an int to isinstance.
_TYPES: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: type(value) is bool, "true or false"),
    int: (lambda value: type(value) is int, "an integer"),
    float: (lambda value: type(value) in (int, float) and abs(value) <= sys.float_info.max, "a number"),
    str: (lambda value: isinstance(value, str), 'a path in quotes, or "" for none'),
    tuple[str, ...]: (_are_files, "a path in quotes, or a list of paths"),
    tuple[str, ...] | tuple[()]: (_are_files_or_none, "a path in quotes, or a list of paths, [] for none"),
    Lengths: (_are_lengths, "a count (an integer, at least 1), or a list of strictly increasing integers, at least 1"),
}


def _unwrap(hint: Any) -> tuple[Any, Any]:
    """A type and its mark: the range of a number, PATH, or None."""
    return get_args(hint) if get_origin(hint) is Annotated else (hint, None)


def _convert(hint: Any, item: _Given) -> Any:
    """The value as the type of its key; ValueError if the key does not accept it."""
    base, mark = _unwrap(hint)
    is_choice = get_origin(base) is Literal
    valid = item.value in get_args(base) if is_choice else _TYPES[base][0](item.value)
    if not valid or (isinstance(mark, Range) and item.value not in mark):
        raise ValueError
    value = float(item.value) if base is float else item.value
    if base in (tuple[str, ...], tuple[str, ...] | tuple[()]) and isinstance(value, str):
        value = [value] if value else []
    if mark == PATH:
        value = _absolute(value, item.origin.directory)
    return tuple(value) if isinstance(value, list) else value


def _absolute(names: Any, directory: str) -> Any:
    """A path or a list of paths, taken from the directory; "" stays."""
    if isinstance(names, list):
        return [_absolute(name, directory) for name in names]
    return names and os.path.abspath(os.path.join(directory, names))


def _expected(hint: Any, default: Any = None, value: Any = None) -> str:
    """What a key accepts, its default if it has one, and the choice that the value may have meant."""
    base, mark = _unwrap(hint)
    choices = get_args(base) if get_origin(base) is Literal else ()
    text = "one of " + ", ".join(map(_toml, choices)) if choices else _TYPES[base][1]
    text += f", {mark}" if isinstance(mark, Range) else ""
    text += f" (default: {_toml(default)})" if default is not None else ""
    near = difflib.get_close_matches(value.lower(), choices, n=1) if isinstance(value, str) else ()
    return text + (f"; did you mean {_toml(near[0])}?" if near else "")


_TYPE_NAMES = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "a list", dict: "a table"}


def _shown(value: Any) -> str:
    """A value as it was given, and the name of its type."""
    name = _TYPE_NAMES.get(type(value), "a date or time")
    if isinstance(value, dict):
        return f"{name} with the keys {', '.join(value) or '(none)'}"
    return f"{_clipped(_toml(value) if isinstance(value, bool | str) else str(value))} ({name})"


def _clipped(text: str, width: int = 80) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


# --- The dataclasses → TOML.


def _table_lines(table: Any, path: str) -> list[str]:
    """The lines of a table: its own keys first, then the tables in it."""
    items = _items(table)
    lines = [f"{key} = {_toml(value)}" for key, value in _plain(items).items()]
    for key, value in items.items():
        if _is_table(value):
            name = _dotted(path, _bare(key))
            header = ["", f"[{name}]"] if dataclasses.is_dataclass(value) else []
            lines += header + _table_lines(value, name)
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _toml_string(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but TOML wants DEL escaped too."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!a}: expected valid Unicode text, which TOML needs; rename the file") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
