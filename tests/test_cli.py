"""The command line, as a user meets it: what it prints where, its exit statuses, its messages."""

from __future__ import annotations

import gzip
import math
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sacrebleu
import tensorflow as tf
from corpora import SETTINGS, command, environment, seq2split, write_experiment

from seq2split.cli import main
from seq2split.config import load
from seq2split.corpus.parallel_text import read_lines
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.runs.directory import RunDirectory
from seq2split.runs.sessions import read_sessions
from seq2split.search import SearchOptions
from seq2split.training import trainer
from seq2split.training.accumulation import accumulate
from seq2split.translation import commands, plots
from seq2split.translation.translator import Translator

LINES = ["a b c", "e", "h g", "d"]
AS_TRAINED = ["--set", "training.steps=6", "--set", "training.samples=2", "--set", "model.dropout=0.0"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def trained(experiment):
    """A training by the command line, and its run directory."""
    done = seq2split("train", "tiny.toml", *AS_TRAINED, cwd=experiment.parent)
    return done, experiment.parent / "runs" / "tiny"


@pytest.fixture(scope="module")
def run(trained):
    return trained[1]


@pytest.fixture(scope="module")
def translated(run):
    """The translations of LINES, by standard input and output."""
    return seq2split("translate", run, input="".join(line + "\n" for line in LINES))


def fails(capsys, *arguments, status=2):
    """Run a command in this process, and return the one message of its failure."""
    assert main([*map(str, arguments)]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("seq2split: ")
    return err


# The commands


def test_train(trained):
    done, run = trained
    assert done.returncode == 0, done.stderr
    assert "starting a new run" in done.stderr
    assert "step 6: validation loss" in done.stderr
    assert "finished after step 6" in done.stderr
    assert done.stdout.startswith("\nTranslations by the best model:\n\n  source       ")
    assert done.stdout.count("reference") == 2
    assert done.stdout.endswith(f"\nTry:  echo ... | seq2split translate {run.relative_to(run.parent.parent)}\n")
    config = load(run / "config.toml")
    assert (config.training.steps, config.training.samples) == (6, 2), "what --set gave"
    (session,) = read_sessions(run / "run.json")
    assert (session["step"], session["seed"]) == (0, 3)
    assert session["command"].endswith("train tiny.toml " + " ".join(AS_TRAINED))


def test_train_says_nothing_of_tensorflows(trained):
    """No log lines of native code, no warnings: what stands on standard error is ours."""
    assert not re.findall(r"^.*(?:tensorflow|onednn|cuda|absl|Warning).*$", trained[0].stderr, re.M | re.I)


def test_samples_are_those_of_the_trained_model(trained, tmp_path):
    """The best checkpoint is here the last step, whose samples the validation printed."""
    done, _ = trained
    samples = done.stdout.split("best model:\n\n")[1].split("\n\nTry")[0]
    assert samples in done.stderr


def test_translate_standard_input_to_output(translated):
    """Standard output holds translations and nothing else."""
    assert translated.returncode == 0, translated.stderr
    assert translated.stdout.count("\n") == len(LINES)
    assert set(translated.stdout) <= set("abcdefgh \n")
    assert translated.stderr == ""


def test_n_best_and_scores(run, translated, tmp_path, capsys):
    """As Moses writes them: the sentence's number, a translation, its score."""
    (tmp_path / "in").write_text("".join(line + "\n" for line in LINES))
    arguments = ["translate", str(run), "--input", str(tmp_path / "in")]
    assert main([*arguments, "--n-best", "3", "--scores"]) == 0
    rows = [line.split(" ||| ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [str(number) for number in range(len(LINES)) for _ in range(3)]
    assert [text for _, text, _ in rows[::3]] == translated.stdout.splitlines()
    for start in range(0, len(rows), 3):
        scores = [float(score) for _, _, score in rows[start : start + 3]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] < 0
    assert main([*arguments, "--scores"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{text} ||| {score}" for _, text, score in rows[::3]]
    assert main([*arguments, "--n-best", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{number} ||| {text}" for number, text, _ in rows[::3]]


def test_search_options(run, experiment, tmp_path, capsys):
    """They override the run's [search], in both commands."""
    source, reference = experiment.parent / "train.source", experiment.parent / "train.target"
    options = ["--beam", "2", "--length-penalty", "0.3", "--coverage", "0.2", "--min-length-ratio", "1"]
    options += ["--max-length-ratio", "1"]
    arguments = ["evaluate", run, "--source", source, "--reference", reference, "--output", tmp_path / "out", *options]
    assert main([*map(str, arguments)]) == 0
    capsys.readouterr()
    assert main([*map(str, ["translate", run, "--input", source, *options])]) == 0
    assert capsys.readouterr().out == (tmp_path / "out").read_text()
    search = SearchOptions(beam=2, length_penalty=0.3, coverage=0.2, min_length_ratio=1.0, max_length_ratio=1.0)
    translator = Translator.load(run)
    expected, _ = translator.translate(read_lines(source), search=search)
    assert read_lines(tmp_path / "out") == expected
    assert expected != translator.translate(read_lines(source))[0]


def test_skipped_sentences_have_a_line(run, tmp_path, capsys):
    (tmp_path / "in").write_text("a b c d e f g h\nc\n")
    arguments = ["translate", run, "--input", tmp_path / "in", "--overlong", "skip", "--n-best", "2", "--scores"]
    assert main([*map(str, arguments)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "0 |||  ||| -inf"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--beam", "0"], "a beam of 0 follows nothing; expected at least 1"),
        (["--beam", "2", "--n-best", "3"], "3 hypotheses of a sentence were asked for, of a beam of 2"),
        (["--min-length-ratio", "2", "--max-length-ratio", "1"], "min_length_ratio is 2.0, above a max_length_ratio"),
    ],
)
def test_wrong_search_options(run, tmp_path, capsys, options, expected):
    (tmp_path / "in").write_text("a\n")
    assert expected in fails(capsys, "translate", run, "--input", tmp_path / "in", *options)


def test_translate_files(run, translated, tmp_path):
    (tmp_path / "in.gz").write_bytes(gzip.compress("\r\n".join(LINES).encode()))
    assert main(["translate", str(run), "--input", str(tmp_path / "in.gz"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == translated.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.gz", "out"]


def test_translate_nothing(run, tmp_path, capsys):
    (tmp_path / "empty").write_text("")
    assert main(["translate", str(run), "--input", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == ""


def test_evaluate(run, experiment, tmp_path, capsys):
    """The scores are sacreBLEU's of the translations that it writes, with the confidence of its bootstrap."""
    source, reference = experiment.parent / "train.source", experiment.parent / "train.target"
    arguments = ["evaluate", run, "--source", source, "--reference", reference, "--output", tmp_path / "out"]
    longer = ["--beam", "1", "--min-length-ratio", "1"]  # after so short a training many translations are empty
    assert main([*map(str, arguments), *longer]) == 0
    out = capsys.readouterr().out
    hypotheses, references = ((path.read_text().splitlines()) for path in (tmp_path / "out", reference))
    lines = out.splitlines()
    for at, metric in ((0, sacrebleu.BLEU()), (2, sacrebleu.CHRF())):
        assert lines[at] == metric.corpus_score(hypotheses, [references], n_bootstrap=1000).format()
        assert lines[at + 1] == f"  {metric.get_signature()}"
    assert re.match(r"BLEU = .* \(μ = .* ± .*\) ", lines[0])
    assert re.match(r"  nrefs:1\|bs:1000\|seed:12345\|.*tok:13a.*version:", lines[1])
    assert re.match(r"  nrefs:1\|bs:1000\|seed:12345\|.*nc:6.*version:", lines[3])
    assert lines[4] == ""
    assert lines[5].split() == ["source", "pieces", "sentences", "BLEU", "chrF2"]
    assert [line.split()[:4] for line in lines[7:]] == [["1", "to", "3", "30"], ["4", "to", "5", "30"]]


def test_inspect(run, experiment, capsys, tmp_path, monkeypatch):
    """Of a run and of its configuration the same; a run needs no corpus for it."""
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(experiment), "--set", "model.dropout=0.0"]) == 0
    of_config = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    hidden = experiment.parent / "train.source"
    hidden.rename(hidden.with_suffix(".hidden"))
    try:
        assert main(["inspect", str(run)]) == 0
    finally:
        hidden.with_suffix(".hidden").rename(hidden)
    assert capsys.readouterr().out == of_config
    rows = [line.split() for line in of_config.splitlines()]
    assert rows[0] == ["part", "reads", "variables", "parameters", "buckets"]
    assert [row[0] for row in rows if row and row[0] in ("encoder", "decoder")].count("encoder") == 3
    parameters = 21 * 8 + (8 + 8) * 32 + 32
    assert rows[2][:4] == ["encoder", "source", "4", str(parameters)]
    assert "4 part graphs." in of_config


def test_attention(run, tmp_path, capsys):
    output = tmp_path / "map.svg"
    assert main(["attention", str(run), "--source", "a b h", "--target", "c d", "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    shown = re.findall("<!-- (.*?) -->", output.read_text())
    assert shown[:6] == ["▁a", "▁b", "▁h", "&lt;/s&gt;", "▁c", "▁d"]
    message = fails(capsys, "attention", run, "--source", "a", "--source2", "b", "--output", output)
    assert "leave --source2 out" in message
    message = fails(capsys, "attention", run, "--source", "a b c d e f g h", "--output", output)
    assert "the longest has 9: the source that was given. Give a shorter one." in message


def test_plot(run, tmp_path, capsys):
    """Into the first run's directory, or where one says; runs of one name are told apart."""
    first, second = (shutil.copytree(run, tmp_path / name / "run") for name in ("one", "two"))
    assert main(["plot", str(first), str(second)]) == 0
    assert capsys.readouterr().out == f"{first / 'curves.png'}\n"
    assert (first / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert main(["plot", str(first), str(second), "--output", str(tmp_path / "curves.svg")]) == 0
    picture = (tmp_path / "curves.svg").read_text()
    assert f"<!-- {first}: best BLEU" in picture
    assert f"<!-- {second}: best BLEU" in picture
    assert main(["plot", str(run), "--output", str(tmp_path / "curves.svg")]) == 0
    assert "<!-- tiny: best BLEU" in (tmp_path / "curves.svg").read_text()


def test_plot_mistakes(run, tmp_path, capsys, monkeypatch):
    assert "holds no history" in fails(capsys, "plot", run, tmp_path / "none")
    assert "there is no directory" in fails(capsys, "plot", run, "--output", tmp_path / "none" / "curves.png")
    for arguments in (["plot", run], ["attention", run, "--source", "a"]):
        told = fails(capsys, *arguments, "--output", tmp_path / "curves.xyz")
        assert "curves.xyz: expected a picture, whose name ends in" in told
    (tmp_path / "history.jsonl").write_text("")
    assert "has measured nothing yet" in fails(capsys, "plot", tmp_path)
    monkeypatch.setattr(plots, "find_spec", lambda _: None)
    assert "pip install matplotlib" in fails(capsys, "plot", run)


def test_overlong(run, tmp_path, capsys):
    """An error by the run's configuration; with --overlong a count on standard error."""
    (tmp_path / "in").write_text("a b\na b c d e f g h\nc\n")
    message = fails(capsys, "translate", run, "--input", tmp_path / "in")
    assert f"the longest has 9: {tmp_path / 'in'}, line 2. To translate nevertheless give --overlong" in message
    for choice, count in (("truncate", "1 were truncated and 0"), ("skip", "0 were truncated and 1")):
        assert main(["translate", str(run), "--input", str(tmp_path / "in"), "--overlong", choice]) == 0
        out, err = capsys.readouterr()
        assert out.count("\n") == 3
        assert f"of 3 sentences {count}" in err


# Mistakes


def test_failure_of_a_process(experiment, tmp_path):
    """The message, the status, and nothing else: no traceback, no progress, no run directory."""
    done = seq2split("train", experiment, "--run", tmp_path / "run", "--set", "model.unit=16")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == "seq2split: --set model.unit=16: model.unit: unknown key; did you mean `units`?"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("modle.units=16", "did you mean `model`"),
        ("units=16", "`units` belongs in [model]"),
        ("model.units=many", "expected an integer"),
        ("model.units", "expected table.key=value"),
        ("model.cell=ltsm", 'did you mean "lstm"'),
        ("training.stesp=3", "did you mean `steps`"),
    ],
)
def test_typo_in_a_setting(experiment, tmp_path, capsys, setting, expected):
    assert expected in fails(capsys, "train", experiment, "--run", tmp_path / "run", "--set", setting)
    assert not (tmp_path / "run").exists()


def test_typo_in_a_file(experiment, tmp_path, capsys):
    path = tmp_path / "wrong.toml"
    path.write_text(SETTINGS.replace("units =", "unit ="))
    message = fails(capsys, "train", path)
    assert str(path) in message
    assert "did you mean `units`" in message


def test_unknown_command_or_option(capsys):
    for arguments in (["trian"], ["train", "--runs", "x"], ["evaluate", "run"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: seq2split" in capsys.readouterr().err


def test_missing_files(run, experiment, tmp_path, capsys):
    nothing = tmp_path / "nothing"
    for arguments in (
        ("train", nothing),
        ("inspect", nothing),
        ("translate", run, "--input", nothing),
        ("evaluate", run, "--source", nothing, "--reference", experiment),
        ("train", experiment, "--run", tmp_path / "run", "--set", f"data.train_source={nothing}"),
    ):
        assert str(nothing) in fails(capsys, *arguments)


def test_wrong_run(tmp_path, capsys, experiment):
    (tmp_path / "in").write_text("a\n")
    for wrong in (tmp_path, tmp_path / "nothing"):
        assert f"{wrong} is no run directory" in fails(capsys, "translate", wrong, "--input", tmp_path / "in")
    message = fails(capsys, "translate", experiment, "--input", tmp_path / "in")
    assert f"{experiment} is a file; a run needs a directory" in message
    assert f"{tmp_path} is no run directory" in fails(capsys, "inspect", tmp_path)


def test_damaged_runs(run, experiment, tmp_path, capsys):
    (tmp_path / "in").write_text("a\n")
    assert "is a file; a run needs a directory" in fails(capsys, "train", experiment, "--run", tmp_path / "in")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "buckets.json").unlink()
    (copy / "batches.json").unlink()
    assert "buckets.json is missing. Put back" in fails(capsys, "translate", copy, "--input", tmp_path / "in")
    copy = shutil.copytree(run, tmp_path / "cut")
    for data in copy.glob("*/*.data-*"):
        data.write_bytes(data.read_bytes()[:100])
    message = fails(capsys, "translate", copy, "--input", tmp_path / "in")
    assert f"{copy / 'best'}/ckpt-6 is damaged: ckpt-6.data-00000-of-00001 isn't what was written" in message
    assert main(["train", str(experiment), "--run", str(copy), *AS_TRAINED]) == 2
    assert "no checkpoint in" in capsys.readouterr().err


def test_output_by_suffix(run, translated, tmp_path):
    (tmp_path / "in").write_text("".join(line + "\n" for line in LINES))
    assert main(["translate", str(run), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out.gz")]) == 0
    assert read_lines(tmp_path / "out.gz") == translated.stdout.splitlines()


def test_output_into_a_closed_pipe(run, translated):
    """As in `seq2split translate RUN | head -n 1`."""
    with subprocess.Popen(
        command("translate", run),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        process.stdout.close()
        process.stdin.write("".join(line + "\n" for line in LINES).encode())
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_inspect_of_a_run_takes_no_settings(run, capsys):
    assert "--set" in fails(capsys, "inspect", run, "--set", "model.units=4")


def test_output_where_no_folder_is(run, tmp_path, capsys):
    """It is found out before anything is translated."""
    (tmp_path / "in").write_text("a\n")
    output = tmp_path / "none" / "out"
    message = fails(capsys, "translate", run, "--input", tmp_path / "in", "--output", output)
    assert f"there is no directory {output.parent}" in message


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("latin", "gr\xfcn\n".encode("latin-1"), "line 1: expected UTF-8, got byte 0xfc"),
        ("text.gz", b"plain text\n", "is no sound gzip file"),
        ("cut.gz", gzip.compress(b"text\n" * 100, mtime=0)[:-9], "cut short"),
    ],
)
def test_broken_input(run, tmp_path, capsys, name, data, expected):
    (tmp_path / name).write_bytes(data)
    message = fails(capsys, "translate", run, "--input", tmp_path / name)
    assert expected in message
    assert str(tmp_path / name) in message


def test_unequal_files(run, tmp_path, capsys):
    (tmp_path / "two").write_text("a\nb\n")
    (tmp_path / "three").write_text("a\nb\nc\n")
    message = fails(capsys, "evaluate", run, "--source", tmp_path / "two", "--reference", tmp_path / "three")
    assert "two has 2 lines and" in message
    assert "three has 3" in message


def test_other_settings_of_a_run(run, experiment, capsys):
    message = fails(capsys, "train", experiment, "--run", run, "--set", "model.units=16")
    assert f"{run} holds a run with other settings of model.units, model.dropout" in message


def test_a_run_without_a_name(experiment, tmp_path, capsys, monkeypatch):
    """As `--run "$UNSET"` gives it; it would fill the current folder."""
    monkeypatch.chdir(tmp_path)
    for arguments in (["train", experiment, "--run", ""], ["translate", ""], ["plot", ""], ["inspect", ""]):
        with pytest.raises(SystemExit) as caught:
            main([*map(str, arguments)])
        assert caught.value.code == 2
        assert "expected a path, got an empty one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--source", "--reference", "--output"])
def test_an_empty_path(run, capsys, option):
    paths = {"--source": "a", "--reference": "b", "--output": "c"} | {option: ""}
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), *(each for pair in paths.items() for each in pair)])
    assert f"argument {option}: expected a path, got an empty one" in capsys.readouterr().err


def test_settings_that_do_nothing_are_told(experiment, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "Experiment", lambda *_, **__: pytest.fail("that is enough"))
    settings = ["model.architecture=transformer", "model.cell=gru", "optimizer.encoder2.name=sgd"]
    with pytest.raises(pytest.fail.Exception):
        main(["train", str(experiment), "--run", str(tmp_path / "run"), *(f"--set={each}" for each in settings)])
    assert capsys.readouterr().err.splitlines() == [
        "optimizer.encoder2 does nothing: there is no second source, data.train_source2.",
        'model.cell does nothing: only model.architecture = "recurrent" reads it.',
        'model.bidirectional does nothing: only model.architecture = "recurrent" reads it.',
    ]


WRONG_OUTPUTS = {
    "a directory": (".", "it is a directory; give the name of a file"),
    "below a file": ("in/out", "there is no directory"),
    "no directory": ("none/out", "there is no directory"),
    "over the input": ("in", "would be written over the file that is read"),
    "over the input, by a link": ("link", "would be written over the file that is read"),
}


@pytest.mark.parametrize("case", WRONG_OUTPUTS)
@pytest.mark.parametrize("command", ["translate", "evaluate"])
def test_outputs_are_checked_before_the_work(run, tmp_path, capsys, monkeypatch, command, case):
    monkeypatch.setattr(commands, "_load_translator", lambda *_: pytest.fail("loaded a model"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("a\n")
    (tmp_path / "link").symlink_to("in")
    output, message = WRONG_OUTPUTS[case]
    inputs = {"translate": ["--input", "in"], "evaluate": ["--source", "in", "--reference", "in"]}[command]
    told = fails(capsys, command, run, *inputs, "--output", output)
    assert message in told
    assert output in told
    assert (tmp_path / "in").read_text() == "a\n"


# Errors that nobody foresaw


@pytest.fixture
def broken(monkeypatch):
    """Return a function that makes a command raise an error."""

    def breaks(error):
        def plot(chosen):
            raise error

        monkeypatch.setattr(commands, "plot", plot)

    return breaks


UNFORESEEN = {
    "of Python": (KeyError("seconds"), 3, "KeyError: 'seconds'\n  in the architecture own.py:make\n  Nobody foresaw"),
    "of many lines": (RuntimeError("one\ntwo"), 3, "RuntimeError: one ...\n"),
    "of TensorFlow": (
        tf.errors.ResourceExhaustedError(None, None, "OOM"),
        3,
        "there is not enough memory: lower batch",
    ),
    "of memory": (MemoryError(), 3, "there is not enough memory: lower batches.tokens, --beam"),
    "of the system": (
        OSError(5, "Input/output error", "/some/file"),
        2,
        "can't access /some/file: Input/output error\n",
    ),
    "of a number": (OverflowError("too large"), 3, "OverflowError: too large"),
}


@pytest.mark.parametrize("case", UNFORESEEN)
def test_no_traceback_unless_it_is_asked_for(broken, capsys, monkeypatch, case):
    error, status, message = UNFORESEEN[case]
    error.add_note("in the architecture own.py:make")
    broken(error)
    told = fails(capsys, "plot", "run", status=status)
    assert told.startswith(f"seq2split: {message}")
    assert "Traceback" not in told
    assert ("SEQ2SPLIT_TRACEBACK=1" in told) == (status == 3 and "memory" not in message)
    assert "in the architecture own.py:make" in told or "memory" in message
    monkeypatch.setenv("SEQ2SPLIT_TRACEBACK", "1")
    assert main(["plot", "run"]) == status
    assert "Traceback (most recent call last)" in capsys.readouterr().err


# Standard files, locales and arguments, as processes


@pytest.fixture(scope="module")
def umlauts(run, tmp_path_factory):
    """A run whose vocabulary has letters that no one-byte locale has."""
    copy = shutil.copytree(run, tmp_path_factory.mktemp("umlauts") / "run")
    draw = random.Random(1)
    lines = [" ".join(draw.choices("äöüß☃𝄞éñ", k=6)) for _ in range(60)]
    Vocabulary.train(lines, copy / "joint.model", 21, "bpe")
    (copy / "files.sha256").unlink()  # it tells that the vocabulary is another
    return copy


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_output_is_utf_8_whatever_the_locale(umlauts, locale):
    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        command("translate", umlauts, "--min-length-ratio", "1", "--beam", "1"),
        input="ä ö\n☃ 𝄞 ß\n".encode(), capture_output=True, env=environment() | env, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.decode()) == (0, "")
    text = done.stdout.decode()
    assert text.count("\n") == 2
    assert set(text) & set("äöüß☃𝄞éñ")


CLOSED = {
    "input": ("<&-", "{run}", 2, "standard input is closed: open it, or give --input FILE"),
    "output": (">&-", "{run} --input {file}", 2, "standard output is closed, where the translations go: open it; or"),
    "output that is full": (">/dev/full", "{run} --input {file}", 2, "can't write standard output: No space left"),
    "everything": ("<&- >&- 2>&-", "{run} --input {file} --output {file}.out", 0, ""),
    "everything of an error": ("<&- >&- 2>&-", "{run} --input {file}.none --output {file}.out", 2, ""),
}


@pytest.mark.parametrize("case", CLOSED)
def test_standard_files_that_are_closed(run, translated, tmp_path, case):
    closed, arguments, status, message = CLOSED[case]
    (tmp_path / "in").write_text("".join(line + "\n" for line in LINES))
    line = f"exec {sys.executable} -m seq2split translate {arguments.format(run=run, file=tmp_path / 'in')} {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, encoding="utf-8", env=environment(), check=False)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == bool(message)
    written = [path.read_text() for path in tmp_path.glob("*.out")]
    assert written == ([translated.stdout] if status == 0 else [])


@pytest.mark.parametrize("command", [["evaluate", "--source", "a", "--reference", "a"], ["inspect"]])
def test_what_is_printed_needs_standard_output(run, capsys, monkeypatch, command):
    monkeypatch.setattr(sys, "stdout", None)
    assert main([command[0], str(run), *command[1:]]) == 2
    assert "standard output is closed, where the" in capsys.readouterr().err


def test_names_with_bytes_that_are_no_text(run, translated, tmp_path, capsysbinary):
    """They are read and written, and told as they came."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/in\xff")
    Path(name).write_text("".join(line + "\n" for line in LINES))
    assert main(["translate", str(run), "--input", name, "--output", name + ".out"]) == 0
    assert Path(name + ".out").read_text() == translated.stdout
    assert main(["attention", str(run), "--source", "a", "--output", name + ".svg"]) == 0
    assert capsysbinary.readouterr() == (os.fsencode(name) + b".svg\n", b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["translate", "{run}", "--input", "none\udcff"], "there is no file none\\udcff"),
        (["train", "{config}", "--run", "runs/\udcff"], "'runs/\\udcff' is no UTF-8; a run needs a directory"),
        (["train", "{config}", "--set", "model.units=\udcff"], "--set model.units=\\udcff: model.units: got"),
        (["train", "none\udcff.toml"], "none\\udcff.toml: No such file or directory"),
    ],
    ids=["input", "run", "setting", "configuration"],
)
def test_arguments_with_bytes_that_are_no_text(run, experiment, capsys, arguments, message):
    assert message in fails(capsys, *(each.format(run=run, config=experiment) for each in arguments))


def test_text_with_bytes_that_are_no_text(run, capsys):
    with pytest.raises(SystemExit):
        main(["attention", str(run), "--source", "a\udcff"])
    told = capsys.readouterr().err
    assert "argument --source: expected UTF-8, or text in the encoding of the locale, got 'a\\udcff'" in told


def test_text_is_utf_8_whatever_the_locale():
    code = "from seq2split.cli import make_parser; print(ascii(make_parser().parse_args().source))"
    for locale, text in (("C", "ä☃".encode()), ("C.UTF-8", "ä☃".encode())):
        env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        arguments = [sys.executable, "-c", code, "attention", "run", "--source", text]
        done = subprocess.run(arguments, capture_output=True, env=environment() | env, check=False)
        assert done.stdout.strip() == ascii("ä☃").encode(), done.stderr


def test_errors_come_before_the_first_line(run, tmp_path, capsys):
    """To a pipe no translation is written before all are there."""
    (tmp_path / "in").write_text("a b\n" * 300 + "a b c d e f g h\n")
    assert f"{tmp_path / 'in'}, line 301" in fails(capsys, "translate", run, "--input", tmp_path / "in")


# Runs that can't go on


def train_again(run, experiment, tmp_path, *settings):
    """Return the arguments of a training of two more steps of a copy of the run, and the copy."""
    copy = shutil.copytree(run, tmp_path / "copy")
    given = [*AS_TRAINED[2:], "--set", "training.steps=8", "--set", "training.checkpoint_every=1", *settings]
    return ["train", str(experiment), "--run", str(copy), *given], copy


def test_a_run_that_is_being_trained(run, experiment, tmp_path, capsys):
    arguments, copy = train_again(run, experiment, tmp_path)
    with RunDirectory(copy).lock.held():
        assert f"{copy} is being trained by process {os.getpid()} on" in fails(capsys, *arguments)
        assert main(["translate", str(copy), "--input", str(experiment.parent / "valid.source")]) == 0


def test_a_full_disk(run, experiment, tmp_path, capsys, monkeypatch):
    arguments, copy = train_again(run, experiment, tmp_path)

    def fail(_self, path):
        raise tf.errors.ResourceExhaustedError(None, None, f"{path}; No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", fail)
        assert main(arguments) == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seq2split: ")]
    assert told == (
        f"seq2split: checkpoint {copy}/checkpoints/ckpt-7 can't be written: No space left on device; free some space, "
        f"and try again; {copy}/checkpoints/ckpt-6 stands."
    )


def test_a_training_that_diverges(run, experiment, tmp_path, capsys, monkeypatch):
    settings = ["--set", "training.most_left_out=2"]
    arguments, copy = train_again(run, experiment, tmp_path, *settings)
    monkeypatch.setattr(trainer, "accumulate", lambda *given: replace(accumulate(*given), loss=tf.constant(math.nan)))
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert re.search(r"left out: in step 7 the loss is nan.*; batch \d+ of epoch \d+, lines \d+, ", told)
    assert "seq2split: the training diverged: in step 8 the loss is nan" in told
    assert f"The best model, of step 6, is kept. Checkpoint {copy}/checkpoints/ckpt-6 is of before." in told


def test_a_changed_corpus(run, experiment, tmp_path, capsys):
    """Here other files of the same sentences."""
    copy = shutil.copy(experiment.parent / "train.source", tmp_path / "other")
    arguments, run = train_again(run, experiment, tmp_path, "--set", f"data.train_source={copy}")
    assert "another corpus may be given with --changed-corpus" in fails(capsys, *arguments)
    assert main([*arguments, "--set", "training.steps=6", "--changed-corpus"]) == 0


# Help


def test_help_needs_no_tensorflow():
    """It would take seconds."""
    code = """if True:
        import sys
        from seq2split.cli import main
        for command in ([], ["train"], ["evaluate"], ["translate"], ["attention"], ["plot"], ["inspect"]):
            try:
                main([*command, "--help"])
            except SystemExit as stop:
                assert stop.code == 0, command
        loaded = {"tensorflow", "keras", "sacrebleu", "sentencepiece"} & set(sys.modules)
        assert not loaded, loaded
    """
    env = environment() | {"COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    for told in ("--set KEY=VALUE", "--overlong", "--n-best", "--reference", "RUN|CONFIG", "standard input"):
        assert told in done.stdout
    assert done.stdout.count("usage: seq2split") == 7
