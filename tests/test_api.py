"""The public surface: what the package exports, that all of it is documented, and that the examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types

import pytest

import seq2split

MODULES = ["seq2split"] + [
    module.name
    for module in pkgutil.walk_packages(seq2split.__path__, "seq2split.")
    if not module.name.endswith("__main__")
]
every_module = pytest.mark.parametrize("name", MODULES)


def test_modules_are_found():
    assert {"seq2split.layers.recurrent", "seq2split.models", "seq2split.cli"} <= set(MODULES)


@pytest.mark.parametrize("name", seq2split.__all__)
def test_public_names(name):
    value = getattr(seq2split, name)
    if inspect.ismodule(value):
        assert value.__name__.startswith("seq2split.")
    else:
        assert value.__module__.startswith("seq2split.")
        assert value.__name__ == name
    assert own_docstring(value), f"{name} has no docstring"


def test_nothing_leaks():
    """By `dir` or by access, whatever was imported before."""
    for name in MODULES:
        importlib.import_module(name)
    for names in (dir(seq2split), vars(seq2split)):
        public = {name for name in names if not name.startswith("_")}
        public = {name for name in public if not isinstance(getattr(seq2split, name), types.ModuleType)}
        assert public - set(seq2split.__all__) <= IMPORTED
    assert set(seq2split.__all__) <= set(dir(seq2split))
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = seq2split.nothing_such


IMPORTED = {"annotations", "import_module", "TYPE_CHECKING", "Any"}  # the lazy import's own


def test_star_import():
    found = {}
    exec("from seq2split import *", found)
    assert set(found) - {"__builtins__"} == set(seq2split.__all__)


def test_no_name_twice():
    assert len(set(seq2split.__all__)) == len(seq2split.__all__)


def test_engine_needs_no_text():
    """The parts of a model are useful to those who have no vocabulary, and no translations to score."""
    code = (
        "import sys, seq2split\n"
        "for name in seq2split.__all__: getattr(seq2split, name)\n"
        "assert not {'sentencepiece', 'sacrebleu', 'seq2split.translation.experiment'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Docstrings


def own_docstring(value):
    """The docstring written for it, not one inherited or made up by a decorator."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return (text or "").strip() if not generated(value, text) else ""


def generated(value, text):
    return inspect.isclass(value) and (text or "").startswith(f"{value.__name__}(")


def public_members(module):
    """Public functions and classes of a module, and the public methods and properties that the classes define."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            yield name, value
            for key, member in vars(value).items():
                plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                if not key.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
                    yield f"{name}.{key}", plain
        elif inspect.isroutine(value):
            yield name, value


@every_module
def test_docstrings(name):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    missing = [member for member, value in public_members(module) if not own_docstring(value)]
    assert not missing


def test_docstrings_are_looked_for():
    """In the places that the test above means to look at."""
    from seq2split.split import model

    found = dict(public_members(model))
    assert {"SplitModel", "SplitModel.traces", "SplitModel.infer", "SplitModel.parts"} <= set(found)
    assert not own_docstring(type("Bare", (model.SplitModel,), {}))


@every_module
def test_examples_in_docstrings(name):
    assert not doctest.testmod(importlib.import_module(name)).failed


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in ("Part", "Buckets", "SplitModel"):
        value = getattr(seq2split, name)
        module = importlib.import_module(value.__module__)
        assert any(test.examples for test in finder.find(value, name, module))
