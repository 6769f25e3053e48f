"""The examples run on small data, use public names only, and learn more than a broken model could."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import environment

import seq2split

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def number(pattern, text):
    (found,) = re.findall(pattern, text)
    return float(found)


def test_own_model():
    """A model that ignores the source, or the order, is right in a fifth of the pieces."""
    printed = run("own_model", "--steps", "200")
    assert number(r"accuracy ([\d.]+)", printed) > 0.5
    assert number(r"difference of the losses ([\d.e-]+)", printed) == 0.0


def test_command_line():
    """Without attention no more than a few words are right; BLEU is then below 20."""
    printed = run("command_line", "--steps", "200")
    assert number(r"BLEU = ([\d.]+)", printed) > 60
    assert re.search(r"^0 \|\|\| [a-z ]+ \|\|\| -[\d.]+\n0 \|\|\| [a-z ]+ \|\|\| -[\d.]+$", printed, re.MULTILINE)


def test_speech():
    """Digits that are guessed without the frames are right in a tenth, their ends at most in all."""
    printed = run("speech", "--steps", "100")
    assert number(r"accuracy ([\d.]+)", printed) > 0.6
    assert "7 part graphs for 12 pairs" in printed


def test_by_hand():
    """The loss of guessing among four classes is 1.386."""
    printed = run("by_hand")
    assert number(r"-> ([\d.]+)", printed) < 1.0
    assert number(r"unsplit model ([\d.e-]+)", printed) < 1e-5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_short(script):
    assert len(script.read_text().splitlines()) <= 100


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_public_names_only(script):
    """What is taken of the package is exported at its top, and nothing begins with an underscore."""
    tree = ast.parse(script.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert {module for module in modules if module.startswith("seq2split")} <= {"seq2split"}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "s2s"}
    assert used <= set(seq2split.__all__)
    assert not [node.attr for node in attributes if node.attr.startswith("_") and not node.attr.startswith("__")]
