"""The dataclasses, and the example that shows all of their keys."""

import dataclasses
import re
import tomllib
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
from configurations import DEFAULT, config_with, only_problem_of

from seq2split.config import Config, OptimizerConfig, dumps, load
from seq2split.config.architectures import BUILT_IN
from seq2split.config.toml import value_text
from seq2split.config.values import ARCHITECTURE, Range

TABLES = {name: cls for name, cls in get_type_hints(Config).items() if dataclasses.is_dataclass(cls)}


SUB_TABLES = {"encoder", "encoder2", "decoder", "groups", "options"}
OPTIMIZERS = {"optimizer.encoder", "optimizer.encoder2", "optimizer.decoder", 'optimizer.groups.".*/embeddings"'}
OPTIONS = "model.options"
HIDDEN = OPTIMIZERS | {OPTIONS}
"""The tables of the example that are commented out."""


def keys_of(cls) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def keys_by_table() -> dict[str, list[str]]:
    """The keys that are no tables, of the top of the file ("") and of every table and sub-table."""
    keys = {name: [key for key in keys_of(cls) if key not in SUB_TABLES] for name, cls in TABLES.items()}
    keys[""] = [key for key in keys_of(Config) if key not in TABLES]
    return keys | dict.fromkeys(OPTIMIZERS, keys["optimizer"]) | {OPTIONS: ["width", "kernels"]}


def shown_settings() -> list[tuple[str, str, str, bool]]:
    """Of each setting of the example: its table, its key, the comment right above, whether it is commented out."""
    table, comment, settings = "", "", []
    for line in DEFAULT.read_text().splitlines():
        if header := re.fullmatch(r"#?\[(.+)\]", line):
            table, comment = header[1], ""
        elif line.startswith("# "):
            comment = f"{comment} {line[2:]}"
        elif setting := re.match(r"(#?)(\w+) = .", line):
            settings.append((table, setting[2], comment, setting[1] == "#"))
            comment = ""
        else:
            assert line == "", f"neither a comment nor a setting: {line}"
            comment = ""
    return settings


def test_every_key_stands_once_in_the_example_and_no_other():
    shown: dict[str, list[str]] = {}
    for table, key, _, _ in shown_settings():
        shown.setdefault(table, []).append(key)
    assert shown == keys_by_table()


def test_only_the_sub_tables_are_commented_out():
    assert {table for table, *_, hidden in shown_settings() if hidden} == HIDDEN
    assert not any(table.count(".") for table, *_, hidden in shown_settings() if not hidden)


@pytest.mark.parametrize(("table", "cls"), [("", Config), *TABLES.items()])
def test_every_comment_tells_the_default_and_what_the_key_accepts(table, cls):
    comments = {key: comment for place, key, comment, _ in shown_settings() if place == table}
    for field in dataclasses.fields(cls):
        if field.name not in comments:
            continue
        comment = comments[field.name]
        required = field.default is dataclasses.MISSING
        written = "Required." if required else f"Default: {value_text(field.default)}"
        assert comment.endswith(written), field.name
        assert len(comment.removesuffix(written).strip()) > 10, field.name
        for text in accepted(get_type_hints(cls, include_extras=True)[field.name]):
            assert text in comment, field.name


def accepted(hint) -> list[str]:
    """What a comment must tell of a type: its choices, or its range."""
    base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    choices = [f'"{choice}"' for choice in get_args(base)] if get_origin(base) is Literal else []
    choices += [f'"{name}"' for name in BUILT_IN] if ARCHITECTURE in marks else []
    return choices + [str(mark) for mark in marks if isinstance(mark, Range)]


def test_the_example_loads_also_with_what_is_commented_out(tmp_path):
    text = re.sub(r"(?m)^#(?=\S)", "", DEFAULT.read_text())
    path = tmp_path / "run.toml"
    path.write_text(text)
    assert "got model.options.width, model.options.kernels with" in only_problem_of(path)
    own = re.sub(r"(?ms)^(architecture = ).*(^\[model.options\])", r'\1"mine.py:make"\n\2', text)
    path.write_text(own)
    assert load(path).model.options == {"width": 128, "kernels": [3, 5]}
    path.write_text(text.replace("[model.options]\nwidth = 128\nkernels = [3, 5]\n", ""))
    read = load(path)
    assert read.optimizer.encoder.learning_rate == 0.001
    assert read.optimizer.decoder.name == "sgd"
    assert read.optimizer.groups[".*/embeddings"].name == "adagrad"
    plain = dict.fromkeys(("encoder", "encoder2", "decoder"))
    assert dataclasses.replace(read.optimizer, **plain, groups={}) == load(DEFAULT).optimizer


@pytest.mark.parametrize("cls", [Config, *TABLES.values()])
def test_tables_are_frozen_and_keyword_only(cls):
    assert cls.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))


def test_every_key_is_written():
    written = tomllib.loads(dumps(config_with(optimizer=OptimizerConfig(encoder=OptimizerConfig()))))
    assert written.keys() == set(keys_of(Config))
    for name, cls in TABLES.items():
        assert written[name].keys() - {"encoder"} == set(keys_of(cls)) - SUB_TABLES
    assert written["optimizer"]["encoder"].keys() == set(keys_of(OptimizerConfig)) - SUB_TABLES
