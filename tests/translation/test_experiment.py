"""A translation experiment: what it learns, measures and says, what may change in a run, and its processes."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf
from corpora import SETTINGS, command, configure, environment, seq2split, write_experiment
from run_states import assert_same_state, contents, measured, measured_in, parts_state, scalars, state, texts

from seq2split.config import ConfigError
from seq2split.corpus.vocabulary import Vocabulary
from seq2split.runs.directory import RunDirectory
from seq2split.runs.history import read_history
from seq2split.runs.sessions import read_sessions
from seq2split.translation.experiment import Experiment
from seq2split.translation.experiment_files import ExperimentFiles
from seq2split.translation.translator import Translator


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The path of a tiny configuration."""
    return write_experiment(tmp_path_factory.mktemp("experiment"))


def train(experiment, run, **overrides):
    made = Experiment(configure(experiment, **overrides), run)
    made.train()
    return made


@pytest.fixture(scope="module")
def short_run(experiment, tmp_path_factory):
    """The directory of a run of two steps, to be copied."""
    run = tmp_path_factory.mktemp("short") / "run"
    train(experiment, run, training__steps=2)
    return run


@pytest.fixture
def copied(short_run, tmp_path):
    """A run of two steps of one's own."""
    shutil.copytree(short_run, tmp_path / "run")
    return tmp_path / "run"


# Learning


def test_loss_falls(experiment, tmp_path, capsys):
    """And is written, with the other figures and samples, for TensorBoard."""
    train(experiment, tmp_path / "run", training__steps=40, training__validate_every=20, training__samples=1)
    found = scalars(tmp_path / "run")
    assert found["loss"][40] < found["loss"][2] - 0.3
    assert found["validation_loss"][40] < found["validation_loss"][20]
    steps = set(range(2, 41, 2))
    for name in ("loss", "nll", "perplexity", "tokens_per_second", "padding", "learning_rate"):
        assert set(found[name]) == steps, name
    assert set(found["validation_bleu"]) == set(found["validation_perplexity"]) == {20, 40}
    assert found["perplexity"][2] == pytest.approx(21, rel=0.3), "that of a uniform guess over the pieces"
    assert found["validation_perplexity"][40] == pytest.approx(math.exp(found["validation_loss"][40]), rel=1e-5)
    assert list(found["learning_rate"].values()) == pytest.approx([0.01] * 20)
    assert all(0 <= share < 0.6 for share in found["padding"].values())
    samples = texts(tmp_path / "run", "samples")
    assert len(samples) == 2
    told = capsys.readouterr().err
    assert "step 20: validation loss" in told
    assert "finished after step 40; best validation bleu" in told
    first = (experiment.parent / "valid.source").read_text().splitlines()[0]
    assert told.count(f"  source       {first}\n") == 2
    assert all(text.startswith(f"  source       {first}  \n") for text in samples)


def test_history(experiment, tmp_path):
    """Entries of steps and of validations, and the same numbers when the run is run again."""
    for name in ("one", "two"):
        train(experiment, tmp_path / name, training__steps=4, training__validate_every=3)
    entries = read_history(tmp_path / "one" / "history.jsonl")
    assert [entry["step"] for entry in entries] == [2, 3, 4, 4]
    assert entries[0]["perplexity"] == pytest.approx(math.exp(entries[0]["nll"]))
    assert measured(entries) == measured_in(tmp_path / "two")


def test_trains_in_mixed_precision(experiment, tmp_path):
    made = train(experiment, tmp_path, precision="mixed_bfloat16", training__steps=30)
    found = scalars(tmp_path)
    assert made.translator.encoders["source"].compute_dtype == "bfloat16"
    assert made.translator.encoders["source"].variable_dtype == "float32"
    assert found["loss"][30] < found["loss"][2] - 0.2
    assert_same_state(parts_state(Translator.load(tmp_path).model), parts_state(made.translator.model))


def test_build_ahead(experiment, tmp_path):
    made = train(experiment, tmp_path, training__build_ahead=True, training__steps=1)
    buckets = made.translator.buckets
    sides = (("encoder", "source"), ("decoder", "target"))
    expected = {(part, length) for part, side in sides for length in buckets[side].boundaries}
    assert set(made.translator.model.graphs) == expected


def test_settings_reach_the_trainer(experiment, tmp_path, monkeypatch):
    """Each key of [training], in what the trainer and its fit are given."""
    settings = {
        "clip_norm": 0.5, "accumulate": 2, "ema": 0.25, "average": 3, "average_of": '"last"', "steps": 7,
        "validate_every": 3, "criterion": '"loss"', "patience": 4, "checkpoint_every": 5, "log_every": 6,
        "most_left_out": 8,
    }  # fmt: skip
    made = Experiment(configure(experiment, **{f"training__{key}": value for key, value in settings.items()}), tmp_path)
    trainer, given = made.trainer, {}
    assert (trainer._clip_norm, trainer._accumulate, trainer._moving._decay) == (0.5, 2, 0.25)
    assert trainer._divergence._most == 8
    assert (trainer._records.candidates._count, trainer._records.candidates._choice) == (3, "last")
    monkeypatch.setattr(trainer, "fit", lambda batches, **options: given.update(options, batches=batches))
    made.train()
    assert given == {
        "batches": made.batches, "steps": 7, "validation": made.validation, "validate_every": 3, "monitor": "loss",
        "mode": "min", "patience": 4, "checkpoint_every": 5, "log_every": 6, "callbacks": [], "changed_batches": False,
    }  # fmt: skip
    assert made.batches.fingerprint()["seed"] == 3


# What may change in a run


def test_training_goes_on_when_steps_are_raised(experiment, copied, capsys):
    made = train(
        experiment, copied, training__steps=3, training__log_every=1, optimizer__learning_rate=0.02, search__beam=2
    )
    told = capsys.readouterr().err
    assert "changed in this run: optimizer.learning_rate, training.steps, training.log_every, search.beam" in told
    assert int(made.trainer.progress.step) == 3
    assert scalars(copied)["learning_rate"][3] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ({"model__units": 16}, ["model.units"]),
        ({"batches__tokens": 500, "seed": 4, "training__steps": 9}, ["seed", "batches.tokens"]),
        ({"training__criterion": "loss"}, ["training.criterion"]),
        ({"optimizer__name": "sgd"}, ["optimizer.name"]),
        ({"training__ema": 0.9}, ["training.ema"]),
    ],
    ids=str,
)
def test_refuses_other_settings(experiment, copied, overrides, keys):
    run = copied
    before = contents(run)
    with pytest.raises(ConfigError) as caught:
        Experiment(configure(experiment, **({"training__steps": 2} | overrides)), run)
    message = str(caught.value)
    assert f"{run} holds a run with other settings of {', '.join(keys)}," in message
    assert "--run" in message
    assert contents(run) == before


def test_freezing_and_unfreezing_in_a_run(experiment, tmp_path, capsys):
    """By changing the configuration between two commands; what is frozen stays bit for bit."""

    def encoder_and_decoder(made):
        found = parts_state(made.translator.model)
        return [
            {name: each for name, each in found.items() if name.startswith(part)} for part in ("encoder", "decoder")
        ]

    def same(left, right):
        return all(np.array_equal(left[name], right[name]) for name in left if "seed" not in name)

    group = {'optimizer__groups__"encoder/.*"__frozen': True}
    start = encoder_and_decoder(Experiment(configure(experiment, **group, training__steps=1), tmp_path / "run"))
    frozen = train(experiment, tmp_path / "run", **group, training__steps=1)
    before = encoder_and_decoder(frozen)
    assert (same(start[0], before[0]), same(start[1], before[1])) == (True, False)
    assert all(graph.live_residuals == 0 for graph in frozen.translator.model.graphs.values())
    unfrozen = {
        'optimizer__groups__"encoder/.*"__frozen': False,
        'optimizer__groups__"encoder/.*"__last_step': 2,
        "optimizer__last_step": 1,
    }
    after = encoder_and_decoder(train(experiment, tmp_path / "run", **unfrozen, training__steps=2))
    assert 'optimizer.last_step, optimizer.groups."encoder/.*".frozen' in capsys.readouterr().err
    assert (same(before[0], after[0]), same(before[1], after[1])) == (False, True)


def test_a_group_that_matches_nothing(experiment, tmp_path):
    with pytest.raises(ValueError, match=r"optimizer\.groups has 'encodr/\.\*'.*The paths are encoder/embeddings"):
        Experiment(configure(experiment, **{'optimizer__groups__"encodr/.*"__frozen': True}), tmp_path)


def test_own_optimizers_may_change_their_rate(experiment, copied, capsys):
    """Both keys are told: the encoder's optimizer has its rate from [optimizer]."""
    own, files = {"optimizer__encoder__name": "adam"}, ExperimentFiles(copied)
    files._config.write_text(files._config.read_text() + "")
    changed = files.freeze(configure(experiment, optimizer__learning_rate=0.5, training__steps=2))
    assert changed == ["optimizer.learning_rate"]
    shutil.rmtree(copied / "checkpoints")
    shutil.rmtree(copied / "best")
    files.freeze(configure(experiment, **own, training__steps=1))
    (copied / "best").mkdir()
    (copied / "best" / "ckpt-1.index").touch()
    changed = files.freeze(configure(experiment, **own, optimizer__learning_rate=0.5, training__steps=2))
    assert changed == ["optimizer.learning_rate", "optimizer.encoder.learning_rate", "training.steps"]


def test_mistakes_can_be_mended_before_the_first_checkpoint(experiment, tmp_path):
    """The settings of a run that never began are no reason to refuse; nothing that they made is kept."""
    run = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match=r"missing\.source"):
        Experiment(configure(experiment, data__valid_source=tmp_path / "missing.source"), run)
    with pytest.raises(ValueError, match=r"vocabulary\.size"):
        Experiment(configure(experiment, vocabulary__size=5), run)
    Experiment(configure(experiment, vocabulary__size=20, buckets__source=1, buckets__target=1), run)
    made = Experiment(configure(experiment), run)
    assert made.translator.vocabularies["source"].size == 21
    assert len(made.translator.buckets["source"]) == 2


WRONG_INPUTS = {
    "no training corpus": ({"data__train_source": "none"}, "there is no file"),
    "a folder for a corpus": ({"data__train_target": "."}, "can't read .*: Is a directory"),
    "no validation corpus": ({"data__valid_target": "none"}, "there is no file"),
    "another validation corpus": ({"data__valid_source": "train.source"}, "has 60 lines and .*valid.target has 6"),
    "no vocabulary": ({"vocabulary__source_model": "none"}, "there is no vocabulary"),
    "a wrong vocabulary": ({"vocabulary__source_model": "train.source"}, "is no SentencePiece model"),
    "no architecture": ({"model__architecture": "none.py:make"}, "can't be imported: there is no file"),
    "a huge model": ({"model__units": 2**20}, r"variables of at least [\d,]{5,} GiB, and this machine has \d+ GiB"),
    "huge embeddings": ({"model__embedding": 2**20, "vocabulary__size": 2**20}, r"embeddings of 1048576\) have var"),
    "a huge Transformer": (
        {"model__architecture": "transformer", "model__units": 2**20, "model__embedding": 2**20},
        "GiB",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_wrong_inputs_are_found_before_a_run_begins(experiment, tmp_path, monkeypatch, case):
    """No directory is made, and no vocabulary is trained."""
    overrides, message = WRONG_INPUTS[case]
    monkeypatch.chdir(experiment.parent)
    monkeypatch.setattr(Vocabulary, "train", lambda *_: pytest.fail("trained a vocabulary"))
    path = experiment.with_name("defaults.toml")
    path.write_text(re.sub(r"(?s)\[model\].*?(?=\[)", "", SETTINGS))
    with pytest.raises((ValueError, OSError), match=message):
        Experiment(configure(path, **overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("buckets", ["2", "auto"])
def test_a_batch_too_small_for_a_row_names_the_keys(experiment, tmp_path, buckets):
    with pytest.raises(ValueError, match="a budget of 5 tokens holds not one row") as caught:
        Experiment(configure(experiment, batches__tokens=5, buckets__source=buckets), tmp_path)
    assert caught.value.__notes__ == ["The budget is batches.tokens, and the padded lengths are those of [buckets]."]


# Another corpus


@pytest.fixture(scope="module")
def changeable(experiment, tmp_path_factory):
    """A copy of the experiment, and a run of it of two steps."""
    folder = tmp_path_factory.mktemp("changeable")
    path = shutil.copytree(experiment.parent, folder / "data") / experiment.name
    train(path, folder / "run", training__steps=2)
    return path, folder / "run"


@pytest.fixture
def other_corpus(changeable, tmp_path):
    """A copy of the experiment, whose corpus may be changed, and a run of it."""
    path, run = changeable
    before = contents(path.parent)
    yield path, shutil.copytree(run, tmp_path / "changed")
    for each, data in before.items():
        each.write_bytes(data)


CHANGES = {
    "a pair removed": ("train", lambda lines: lines[1:], "rows 60 -> 59"),
    "the validation": ("valid", lambda lines: lines[::-1], "validation digest"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_corpus(other_corpus, change):
    """Is refused; going on with it is asked for by --changed-corpus, and recorded."""
    (path, run), (split, harm, named) = other_corpus, CHANGES[change]
    before = contents(run)
    for side in ("source", "target"):
        file = path.parent / f"{split}.{side}"
        file.write_text("".join(line + "\n" for line in harm(file.read_text().splitlines())))
    with pytest.raises(ValueError, match=rf"on other batches \(.*{named}.*--changed-corpus"):
        train(path, run, training__steps=2)
    assert contents(run) == before
    made = Experiment(configure(path, training__steps=3), run, changed_corpus=True)
    made.train()
    assert int(made.trainer.progress.step) == 3
    changed = read_sessions(run / "run.json")[-1]["changed"]
    before, now = changed["validation" if split == "valid" else "digest"]
    assert before != now
    train(path, run, training__steps=3)


def test_other_files_of_a_corpus(other_corpus, copied):
    """With the same sentences they are another setting, which may change likewise."""
    path, _ = other_corpus
    with pytest.raises(ConfigError, match=r"data\.train_source.* \(another corpus may be given with --changed-corpus"):
        Experiment(configure(path, training__steps=2), copied)
    Experiment(configure(path, training__steps=2), copied, changed_corpus=True).train()
    more = {f"data__{split}_source2": path.parent / f"{split}.source" for split in ("train", "valid")}
    with pytest.raises(ConfigError, match=r"data\.train_source2"):
        Experiment(configure(path, training__steps=2, **more), copied, changed_corpus=True)


# Damaged and lost files


HARMS = {
    "lost": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x00\xff{"),
    "flipped": lambda path: path.write_bytes(bytes([*path.read_bytes()[:-3], path.read_bytes()[-3] ^ 1])),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["joint.model", "buckets.json", "config.toml", "files.sha256"])
def test_a_damaged_file_is_made_again(experiment, copied, capsys, name, harm):
    """Where that is certain, which is told; translating with it is an error, or tells it."""
    whole = (copied / name).read_bytes()
    HARMS[harm](copied / name)
    if name in ("joint.model", "config.toml"):
        with pytest.raises(ValueError, match=rf"{name} is.* Put back a copy of it; or start the training again"):
            Translator.load(copied)
    elif (name, harm) not in {("files.sha256", "lost"), ("files.sha256", "emptied")}:  # a run may have none
        Translator.load(copied)
        assert name in capsys.readouterr().err
    made = train(experiment, copied, training__steps=2)
    told = capsys.readouterr().err
    assert int(made.trainer.progress.step) == 2
    if name != "files.sha256":
        assert f"{copied / name} is" in told
        assert "again, and is the same" in told or "it is written again" in told
    assert (copied / name).read_bytes() == whole


def test_a_configuration_changed_by_hand(experiment, copied, capsys):
    """Or by a flipped bit: who can tell. It is told."""
    path = copied / "config.toml"
    path.write_text(path.read_text().replace("beam = 5", "beam = 4"))
    assert Translator.load(copied).search_options.beam == 4
    assert (
        "config.toml isn't what was written (its digest is another): it was changed by hand, or"
        in capsys.readouterr().err
    )
    train(experiment, copied, training__steps=2)
    told = capsys.readouterr().err
    assert "config.toml isn't what was written (its digest is another): it is written again" in told
    assert "changed in this run: search.beam" in told


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["joint.model", "config.toml"])
def test_a_damaged_file_is_no_other(other_corpus, name, harm):
    """Of another corpus, or another configuration, nothing is made in place of what the run was trained with."""
    path, run = other_corpus
    HARMS[harm](run / name)
    before = contents(run)
    source = path.parent / "train.source"
    source.write_text(source.read_text().replace("a", "b"))
    with pytest.raises(ValueError, match=rf"{name} is.*put back a copy of "):
        train(path, run, training__steps=2 if name == "joint.model" else 3)
    assert contents(run) == before


def test_buckets_are_known_by_the_batches_too(experiment, copied):
    """Or by the corpus; where neither tells them for certain, it is an error."""
    (copied / "buckets.json").unlink()
    (copied / "batches.json").unlink()
    with pytest.raises(ValueError, match=r"buckets\.json is missing\. Put back a copy"):
        Translator.load(copied)
    train(experiment, copied, training__steps=2)
    (copied / "buckets.json").unlink()
    (copied / "batches.json").unlink()
    (copied / "files.sha256").unlink()
    with pytest.raises(ValueError, match=r"can't be made again for certain: the corpus is another one, or its digest"):
        train(experiment, copied, training__steps=2)


def test_a_second_training_in_one_directory(experiment, copied):
    """Is refused before it has written anything; with the lock in hand an experiment can be made and trained."""
    run, before = RunDirectory(copied), contents(copied)
    with run.lock.held():
        with pytest.raises(BlockingIOError, match=r"is being trained by process \d+ on"):
            Experiment(configure(experiment, search__beam=2), copied)
        Translator.load(copied)
        Experiment(configure(experiment, training__steps=3), run).train()
    changed = {path.name for path, data in contents(copied).items() if before.get(path) != data}
    assert "config.toml" in changed
    assert "beam = 5" in (copied / "config.toml").read_text()


# Overlong sentences


LONG = {"buckets__source": "[2,4]"}


def overlong_counts(experiment, vocabulary):
    lines = (experiment.parent / "train.source").read_text().splitlines()
    return sum(len(row) > 4 for row in vocabulary.encode(lines))


def test_overlong_is_an_error(experiment, tmp_path):
    with pytest.raises(
        ValueError, match=r"training corpus: \d+ of 60 source .* the last bucket of that side, 4;"
    ) as caught:
        Experiment(configure(experiment, **LONG), tmp_path)
    found = re.search(r"the longest has 5: (.*), line (\d+)\. Raise .* or set data\.overlong to", str(caught.value))
    assert found[1] == str(experiment.parent / "train.source")
    assert len((experiment.parent / "train.source").read_text().splitlines()[int(found[2]) - 1].split()) == 4


def test_overlong_in_the_validation_corpus(experiment, tmp_path):
    """It is named too, and not found out after hours of training."""
    source = experiment.parent / "valid.source"
    long = tmp_path / "valid.source"
    long.write_text(source.read_text().replace("\n", " a b c d e\n", 1))
    with pytest.raises(ValueError, match=rf"validation corpus: 1 of 6 source .* has 7: {long}, line 1\. Raise"):
        Experiment(configure(experiment, data__valid_source=long), tmp_path / "run")


def test_overlong_truncated_or_skipped(experiment, tmp_path, capsys):
    made = Experiment(configure(experiment, data__overlong="truncate", **LONG), tmp_path / "cut")
    count = overlong_counts(experiment, made.translator.vocabularies["source"])
    assert 0 < count < len(made.batches.corpus.fields["source"]) == 60
    assert f"training corpus: truncated {count} source sentences, longer than" in capsys.readouterr().err
    cut = [row for row in made.batches.corpus.fields["source"] if len(row) == 4]
    assert len(cut) >= count
    assert all(row[-1] == made.translator.vocabularies["source"].eos for row in made.batches.corpus.fields["source"])

    made = Experiment(configure(experiment, data__overlong="skip", **LONG), tmp_path / "skip")
    assert f"training corpus: skipped {count} of 60 pairs, longer than" in capsys.readouterr().err
    assert [len(rows) for rows in made.batches.corpus.fields.values()] == [60 - count] * 2


def test_all_skipped(experiment, tmp_path):
    with pytest.raises(ValueError, match=r"all 60 pairs of the training corpus.*\[buckets\]"):
        Experiment(configure(experiment, data__overlong="skip", buckets__source="[1]"), tmp_path)


def test_given_vocabularies(experiment, tmp_path):
    """Those that the configuration names are copied into the run."""
    lines = (experiment.parent / "train.source").read_text().splitlines()
    given = Vocabulary.train(lines, tmp_path / "given.model", 20, "bpe").path
    config = configure(experiment, vocabulary__joint=False, vocabulary__source_model=given)
    Experiment(config, tmp_path / "run")
    given.unlink()
    made = Experiment(config, tmp_path / "run")
    assert [made.translator.vocabularies[side].size for side in ("source", "target")] == [20, 21]


# Killed and stopped, as processes


@pytest.fixture
def start(experiment):
    """Start a training as a process; none outlives the test."""
    started = []

    def begin(run, *settings):
        pairs = [argument for setting in settings for argument in ("--set", setting)]
        arguments = command("train", experiment, "--run", run, *pairs)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        started.append(subprocess.Popen(arguments, env=environment(), **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_for(path, process, seconds=120):
    """Wait until a file is there, for as long as the process runs."""
    until = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.005)


LONG_RUN = {"checkpoint_every": 1, "validate_every": 1000, "steps": 30, "patience": 0}


@pytest.mark.long
def test_killed_at_any_moment(experiment, start, tmp_path):
    """In start-up, when the vocabulary is written, and while checkpoints are written all the time."""
    run, settings = tmp_path / "run", [f"training.{key}={value}" for key, value in LONG_RUN.items()]
    moments = [None, run / ".*.tmp", run / "checkpoints" / "checkpoint"]
    random.seed(os.getpid())
    steps = []
    for moment in moments:
        process = start(run, *settings)
        if moment is None:
            time.sleep(random.uniform(0, 3))
        else:
            wait_first(moment, run / "checkpoints" / "checkpoint", process)
            time.sleep(random.uniform(0, 0.5))
        process.kill()
        told = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL
        steps += [int(step) for step in re.findall(r"resuming from .*: (\d+) steps are done", told)]
    final = seq2split("train", experiment, "--run", run, *[a for s in settings for a in ("--set", s)])
    assert final.returncode == 0, final.stderr
    resumed = re.search(r"resuming from (\S+ckpt-(\d+)): (\d+) steps are done, next is batch", final.stderr)
    assert resumed, final.stderr
    assert resumed[2] == resumed[3]
    assert "finished after step 30" in final.stderr
    assert [*steps, int(resumed[3])] == sorted([*steps, int(resumed[3])])
    config = configure(experiment, **{f"training__{key}": value for key, value in LONG_RUN.items()})
    straight = seq2split("train", experiment, "--run", tmp_path / "whole", *[a for s in settings for a in ("--set", s)])
    assert straight.returncode == 0, straight.stderr
    whole, resumed = (Experiment(config, path).trainer for path in (tmp_path / "whole", run))
    for trainer in (whole, resumed):
        trainer._records._checkpoints.restore()
    assert_same_state(state(resumed), state(whole))


def wait_first(moment, other, process):
    """Wait for a short-lived file; where it is missed, for the other."""
    until = time.monotonic() + 120
    while not list(moment.parent.glob(moment.name)) and not other.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_asked_to_stop(experiment, start, tmp_path, number):
    """It ends the step, saves, says how to go on, and exits with the shell's status of an interrupt."""
    process = start(tmp_path, "training.steps=100000", "training.checkpoint_every=10")
    wait_for(tmp_path / "checkpoints" / "checkpoint", process)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    found = re.search(r"seq2split: stopped after step (\d+); start it again to resume", told)
    assert found, told
    assert "Traceback" not in told
    saved = tf.train.latest_checkpoint(tmp_path / "checkpoints")
    assert saved.endswith(f"-{found[1]}")
    shutil.rmtree(tmp_path / "events")
    again = Experiment(configure(experiment, training__steps=100000, training__checkpoint_every=10), tmp_path)
    assert f"{found[1]} steps are done" in again.trainer._records._checkpoints.restore()[0]
