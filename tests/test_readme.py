"""The README's examples run."""

import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"


def test_examples_run(capsys):
    """They share one namespace, as for a reader who types them one after the other."""
    examples = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    namespace = {}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"README.md, example {number}", "exec"), namespace)
    assert "[('decoder', 6), ('decoder', 12), ('encoder', 8), ('encoder', 16)]" in capsys.readouterr().out
    assert type(namespace["first_gradients"][0]).__name__ == "IndexedSlices"
    assert all(gradient is not None for gradient in namespace["last_gradients"])


def test_every_test_of_the_table_exists():
    """The tests that tests/README.md names, subjects of engine/test_passes.py included, are collected."""
    text = (TESTS / "README.md").read_text()
    named = set(re.findall(r"`((?:\w+/)?test_\w+\.py(?:::[^`]+)?)`", text))
    rows = re.findall(r"^\| [^|]+ \| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    subjects = {subject for row in rows for subject in re.findall(r"`(\w+)`", row)}
    assert len(named) > 30
    assert len(subjects) > 40
    files = sorted({name.partition("::")[0] for name in named} | {"engine/test_passes.py"})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:xdist", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TESTS)
    collected = {re.sub(r"^(tests/)?", "", line) for line in done.stdout.splitlines()}
    collected |= {line.partition("[")[0] for line in collected} | {line.partition("::")[0] for line in collected}
    assert named <= collected, named - collected
    prefix = "engine/test_passes.py::test_gradients_equal_those_of_the_joint_graph["
    split = {line.removeprefix(prefix).rpartition("-")[0] for line in collected if line.startswith(prefix)}
    assert subjects == split
