"""What the README and the pages say is run: blocks of Python, inline calls, and commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import environment

from seq2split.cli import make_parser

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "sh", "toml", "text"}

# What runs each inline call of the README, after its blocks.
INLINE_CALLS = {
    'Trainer(..., run="runs/mine")': 's2s.Trainer(model, keras.optimizers.Adam(), run="runs/inline")',
    "model.loss_and_gradients(batch)": "loss, gradients = model.loss_and_gradients(next(iter(batches)))",
    "model.apply_gradients(optimizer, gradients)": "model.apply_gradients(keras.optimizers.SGD(0.1), gradients)",
}
# Names that a block takes from the reader, by page.
GIVEN = {"translation.md": "MyEncoder = MyDecoder = lambda *sizes: sizes"}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def run_blocks(page):
    """Run the blocks of a page in one namespace, as for a reader who types them one after the other."""
    namespace = {}
    exec(GIVEN.get(page.name, ""), namespace)
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = run_blocks(page)
    if page.name == "README.md":
        assert {"encoder", "decoder", "model", "batches"} <= set(namespace)
        for call, code in INLINE_CALLS.items():
            exec(compile(code, call, "exec"), namespace)
        assert namespace["gradients"]["encoder"]
    if page.name == "engine.md":
        assert type(namespace["first_gradients"][0]).__name__ == "IndexedSlices"
    if page.name == "models.md":
        assert sorted(namespace["model"].graphs) == [("decoder", 6), ("decoder", 12), ("encoder", 8), ("encoder", 16)]


def test_every_inline_call_of_the_readme_is_run():
    text = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    calls = {span for span in re.findall(r"`([^`\n]+)`", text) if re.fullmatch(r"[\w.]+\(.*\)", span)}
    assert calls == set(INLINE_CALLS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_checked(page):
    assert set(re.findall(r"^```(\w*)\n(?:.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)) <= LANGUAGES


def commands(page):
    """Return the commands of a page, each as its words; what stands for a choice is filled in."""
    text = "".join(blocks(page, "sh")).replace("\\\n", " ").replace("[--run DIR] [--set model.units=512]", "--run DIR")
    lines = [re.sub(r"\s+#.*", "", line) for line in text.splitlines()]
    pieces = [piece.strip() for line in lines for piece in re.split(r"&&|\|(?!\w)", line)]
    return [shlex.split(re.sub(r"[<>] \S+", "", piece)) for piece in pieces if piece]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_known(page):
    """Commands of the package parse, and scripts and configurations that are named exist."""
    for program, *words in commands(page):
        if program == "seq2split":
            make_parser().parse_args([word.replace("RUN|CONFIG", "RUN").replace("RUN...", "RUN") for word in words])
        for word in (program, *words):
            if word.startswith(("experiments/", "data/")) and not word.startswith("data/multi30k/"):
                assert (ROOT / word).exists(), word


def test_the_readme_trains_and_translates(tmp_path):
    """The commands under "From the command line", with fewer steps."""
    block = (ROOT / "README.md").read_text().split("## From the command line")[1].split("```")[1].removeprefix("sh\n")
    assert "training.steps=400" in block
    script = block.replace("training.steps=400", "training.steps=2").replace(
        "seq2split ", f"{shlex.quote(sys.executable)} -m seq2split "
    )
    options = {"env": environment(), "capture_output": True, "encoding": "utf-8", "cwd": tmp_path}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=False, **options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "mine" / "history.jsonl").exists()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_test_of_the_table_exists():
    """The tests that tests/README.md names, subjects of engine/test_part.py included, are collected."""
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
