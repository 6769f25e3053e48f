"""What imports what: data flows down the packages, and no import runs back up or in a circle.

The imports are read, not run, so that those in functions and in `if TYPE_CHECKING` count as well.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "seq2split"
LONGEST = 350

# What the modules of each package, or a module beside the packages, may import of the others.
LIBRARY = {
    "common": "",
    "engine": "common",
    "buckets": "common",
    "split": "common engine buckets",
    "layers": "common",
    "models": "common split layers",
    "search": "common engine split models",
}
APPLICATION = {
    "corpus": "common buckets split",
    "runs": "common",
    "training": "common split corpus runs",
    "config": "common search training",
    "translation": "common engine buckets split models search corpus runs training config",
    "cli": "common buckets split corpus runs training config translation",
    "__main__": "cli",
}
PACKAGES = {name: set(allowed.split()) for name, allowed in (LIBRARY | APPLICATION).items()}
OUTSIDE = {"tests", "experiments", "efficiency", "quality", "examples"}  # what stands beside the package


@dataclass(frozen=True)
class Module:
    """A module as it is written.

    Attributes:
        lines: The number of its lines.
        imports: The modules of the package that it imports, wherever it does so.
        hidden: Those that it imports in `if TYPE_CHECKING` alone.
        others: The packages of others that it imports.
    """

    lines: int
    imports: set[str]
    hidden: set[str]
    others: set[str]


def read_modules(root: Path) -> dict[str, Module]:
    """Return the modules of a package by their names below it; the package's own has the name `__init__`."""
    names = {file: _name(file.relative_to(root)) for file in sorted(root.rglob("*.py"))}
    return {name: _read(file, root.name, set(names.values())) for file, name in names.items()}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _read(file: Path, package: str, names: set[str]) -> Module:
    text = file.read_text()
    tree = ast.parse(text)
    for_types = [block for node in ast.walk(tree) if _is_for_types(node) for block in node.body]
    hidden = {target for block in for_types for target in _imports(block)}
    found = set(_imports(tree))
    own = {_within(target, names) for target in found if target.partition(".")[0] == package}
    return Module(
        len(text.splitlines()),
        own,
        {_within(target, names) for target in hidden if target.partition(".")[0] == package},
        {target.partition(".")[0] for target in found} - {package},
    )


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names that are imported anywhere in a tree, with the modules that they are imported from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, as in the rest of the package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _within(target: str, names: set[str]) -> str:
    """Return the module, below the package, in which an imported name stands."""
    name = target.partition(".")[2]
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name or "__init__"


def package_of(module: str) -> str:
    return module.partition(".")[0]


# Rules: each returns what breaks it


def circles(modules: dict[str, Module]) -> list[str]:
    # The package's own imports are for type checkers: the others are imported when they are first asked for.
    arrows = {name: module.imports for name, module in modules.items() if name != "__init__"}
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def upward_imports(modules: dict[str, Module]) -> list[str]:
    return [
        f"{name} -> {target}"
        for name, module in modules.items()
        if name != "__init__"
        for target in sorted(module.imports)
        if package_of(target) not in PACKAGES[package_of(name)] | {package_of(name)}
    ]


def imports_from_outside(modules: dict[str, Module]) -> list[str]:
    return [f"{name} -> {other}" for name, module in modules.items() for other in sorted(module.others & OUTSIDE)]


def imports_for_types_alone(modules: dict[str, Module]) -> list[str]:
    return [
        f"{name} -> {target}"
        for name, module in modules.items()
        if name != "__init__"
        for target in sorted(module.hidden)
    ]


def tensorflow_in_buckets(modules: dict[str, Module]) -> list[str]:
    """Find it also in what the buckets import."""
    reached = [name for name in modules if package_of(name) == "buckets"]
    for name in reached:
        reached += [target for target in sorted(modules[name].imports) if target not in reached]
    return [
        f"{name} -> {other}" for name in reached for other in sorted(modules[name].others & {"tensorflow", "keras"})
    ]


def long_modules(modules: dict[str, Module]) -> list[str]:
    return [f"{name}: {module.lines} lines" for name, module in modules.items() if module.lines > LONGEST]


RULES = [
    circles,
    upward_imports,
    imports_from_outside,
    imports_for_types_alone,
    tensorflow_in_buckets,
    long_modules,
]


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_to_the_rules(rule):
    assert rule(read_modules(ROOT)) == []


def test_every_module_is_read():
    modules = read_modules(ROOT)
    assert {package_of(name) for name in modules} - {"__init__"} == set(PACKAGES)
    assert "engine" in {package_of(target) for target in modules["split.model"].imports}
    assert "numpy" in modules["buckets.boundaries"].others


def test_the_table_runs_down():
    """Every package stands below those that it may import, and none of the library imports of the application."""
    above: set[str] = set()
    for name, allowed in PACKAGES.items():
        assert allowed <= above, name
        above.add(name)
    assert not any(PACKAGES[name] & set(APPLICATION) for name in LIBRARY)
    assert PACKAGES["engine"].isdisjoint({"split", "layers", "models", "buckets"})


# Each breaks a rule: what is found, and the files, all others being empty.
PLANTED = {
    "two modules": (
        circles,
        "split.one -> split.two -> split.one",
        {"split/one.py": "from seq2split.split import two", "split/two.py": "from seq2split.split.one import one"},
    ),
    "a module and its package": (
        circles,
        "split -> split.one -> split",
        {"split/__init__.py": "from seq2split.split.one import one", "split/one.py": "from seq2split.split import Two"},
    ),
    "in a function": (
        circles,
        "a.one -> b.one -> a.one",
        {"a/one.py": "def f():\n    import seq2split.b.one", "b/one.py": "import seq2split.a.one"},
    ),
    "for types": (
        circles,
        "a.one -> a.two -> a.one",
        {
            "a/one.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from seq2split.a.two import Two",
            "a/two.py": "from seq2split.a.one import One",
        },
    ),
    "library to application": (
        upward_imports,
        "search.beam -> config.settings",
        {"search/beam.py": "from seq2split.config.settings import SearchConfig", "config/settings.py": ""},
    ),
    "engine to layers, in a function": (
        upward_imports,
        "engine.part -> layers",
        {"engine/part.py": "def f():\n    from seq2split.layers import LSTM", "layers/__init__.py": ""},
    ),
    "to the package's own": (
        upward_imports,
        "models.one -> __init__",
        {"models/one.py": "import seq2split as s2s"},
    ),
    "from a module beside the packages": (
        upward_imports,
        "training.trainer -> cli",
        {"training/trainer.py": "from seq2split.cli import say", "cli.py": ""},
    ),
    "experiments": (
        imports_from_outside,
        "split.one -> efficiency",
        {"split/one.py": "def f():\n    from efficiency.timing import speeds"},
    ),
    "hidden": (
        imports_for_types_alone,
        "a.one -> b.two",
        {
            "a/one.py": "import typing\nif typing.TYPE_CHECKING:\n    from seq2split.b.two import Two",
            "b/two.py": "",
        },
    ),
    "tensorflow": (
        tensorflow_in_buckets,
        "buckets.one -> tensorflow",
        {"buckets/one.py": "def f():\n    import tensorflow as tf"},
    ),
    "tensorflow below": (
        tensorflow_in_buckets,
        "common.two -> keras",
        {"buckets/one.py": "from seq2split.common.two import two", "common/two.py": "from keras.layers import Dense"},
    ),
    "long": (long_modules, f"a.one: {LONGEST + 1} lines", {"a/one.py": "\n" * (LONGEST + 1)}),
}


@pytest.mark.parametrize("case", PLANTED)
def test_what_breaks_a_rule_is_found(case, tmp_path):
    rule, found, files = PLANTED[case]
    modules = planted(tmp_path, files)
    (complaint,) = rule(modules)
    assert set(complaint.split(" -> ")) == set(found.split(" -> "))


def planted(folder, files):
    for path, text in ({"__init__.py": "from typing import TYPE_CHECKING"} | files).items():
        file = folder / "seq2split" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return read_modules(folder / "seq2split")


def test_what_keeps_to_the_rules_is_not_found(tmp_path):
    """The package's own imports for type checkers, and those of others, among them."""
    files = {
        "__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from seq2split.split import Node",
        "split/__init__.py": "from seq2split.split.node import Node",
        "split/node.py": "import tensorflow as tf\nfrom seq2split.engine import Part\n" + "\n" * (LONGEST - 2),
        "engine/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy",
        "buckets/one.py": "import numpy as np",
    }
    modules = planted(tmp_path, files)
    assert [complaint for rule in RULES for complaint in rule(modules)] == []
