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
    """Classes are those of the package; the others are its modules, by their own names."""
    value = getattr(seq2split, name)
    if isinstance(value, types.ModuleType):
        assert value.__name__.startswith("seq2split.")
        assert value.__name__.endswith(f".{name}")
    else:
        assert value.__module__.startswith("seq2split.")
        assert value.__name__ == name
    assert own_docstring(value), f"{name} has no docstring"


def run_fresh(code):
    """Run code in a process that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_need_no_import_of_their_own():
    used = ["policies.budget", "layers.LuongAttention", "threads.use_cores", "corpus.Batches"]
    used += ["models.RecurrentEncoder", "search.BeamSearch", "training.Trainer"]
    run_fresh("import seq2split as s2s\n" + "".join(f"s2s.{name}\n" for name in used))


def test_an_import_waits_for_nothing():
    """Nor do `dir` or a mistake; what is used first is what imports TensorFlow."""
    run_fresh(
        "import sys, seq2split as s2s\n"
        "dir(s2s)\n"
        "assert not hasattr(s2s, 'nothing_such')\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
        "s2s.Buckets([3])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        "s2s.Part\n"
        "assert 'tensorflow' in sys.modules\n"
    )


def test_nothing_leaks():
    """By `dir` or by access, whatever was imported before."""
    for name in MODULES:
        importlib.import_module(name)
    assert dir(seq2split) == sorted(seq2split.__all__)
    public = {name for name in vars(seq2split) if not name.startswith("_")}
    public = {name for name in public if not isinstance(getattr(seq2split, name), types.ModuleType)}
    assert public - set(seq2split.__all__) <= IMPORTED
    with pytest.raises(AttributeError, match=r"no attribute 'nothing_such'; its public names are Part, "):
        _ = seq2split.nothing_such


IMPORTED = {"annotations", "import_module", "TYPE_CHECKING", "Any"}  # the lazy import's own


def test_star_import():
    run_fresh(
        "from seq2split import *\nimport seq2split\n"
        "assert all(globals()[name] is getattr(seq2split, name) for name in seq2split.__all__)"
    )


def test_no_name_twice():
    assert len(set(seq2split.__all__)) == len(seq2split.__all__)


def test_the_library_needs_no_text():
    """Parts, models, batches and training are useful to those who have no vocabulary, and no translations to score."""
    run_fresh(
        "import sys, seq2split as s2s\n"
        "[getattr(s2s, name) for name in s2s.__all__ if name not in ('corpus', 'Batches', 'Corpus')]\n"
        "loaded = {'sacrebleu', 'seq2split.config', 'seq2split.translation'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )


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
