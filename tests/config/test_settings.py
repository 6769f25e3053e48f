"""The configuration: what it reads and writes, and what it says of every kind of mistake."""

import dataclasses
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2split.config import settings as config_module
from seq2split.config.settings import (
    BatchesConfig,
    BucketsConfig,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainingConfig,
    VocabularyConfig,
    differences,
    dumps,
    load,
)

DEFAULT = Path(__file__).parents[2] / "data" / "default.toml"
DATA = """
[data]
train_source = "train.en"
train_target = "train.de"
valid_source = ["valid.en"]
valid_target = ["valid.de"]
"""


@pytest.fixture
def write(tmp_path):
    """Writes a configuration file (with a valid [data] unless told otherwise); returns its path."""

    def write_text(text: str = "", data: str = DATA) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text + data)
        return path

    return write_text


def problems_of(path, overrides=()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def only_problem_of(path, overrides=()) -> str:
    problems = problems_of(path, overrides)
    assert len(problems) == 1, problems
    return problems[0]


def config_with(**tables) -> Config:
    data = DataConfig(train_source=("/a",), train_target=("/b",), valid_source=("/c",), valid_target=("/d",))
    return Config(**{"data": data, **tables})


# --- Reading.


def test_keys_left_out_have_their_defaults(write):
    read = load(write())
    assert read == Config(data=read.data)
    assert (read.precision, read.seed, read.model.units, read.optimizer.encoder) == ("float32", 1, 256, None)


def test_values_are_read_as_their_types(write):
    text = """
    seed = 7
    [buckets]
    source = [8, 16]
    target = 3
    [training]
    clip_norm = 5
    build_ahead = true
    """
    read = load(write(text))
    assert (read.seed, read.buckets, read.training.build_ahead) == (7, BucketsConfig(source=(8, 16), target=3), True)
    assert read.training.clip_norm == 5.0
    assert isinstance(read.training.clip_norm, float)
    assert hash(read) == hash(load(write(text)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 0),
        ("seed", 2**32 - 1),
        ("model.dropout", 0),
        ("model.label_smoothing", 0.999),
        ("optimizer.learning_rate", 1e-9),
        ("optimizer.warmup_steps", 0),
        ("training.clip_norm", 0),
        ("training.patience", 0),
        ("training.samples", 0),
        ("training.steps", 1),
        ("search.beam", 1),
        ("search.min_length_ratio", 7),  # of a maximum of 0, which is none
    ],
)
def test_the_edges_of_ranges_are_accepted(write, key, value):
    read = load(write(), [f"{key}={value}"])
    for name in key.split("."):
        read = getattr(read, name)
    assert read == value


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf" + DATA.encode())
    assert load(path).seed == 1


# --- Paths.


def test_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    text = '[vocabulary]\njoint = false\nsource_model = "models/../en.model"\ntarget_model = "/abs/de.model"\n'
    path = write(text)
    monkeypatch.chdir("/")
    read = load(path)
    assert read.data.train_source == (str(tmp_path / "train.en"),)
    assert read.data.valid_target == (str(tmp_path / "valid.de"),)
    assert read.vocabulary.source_model == str(tmp_path / "en.model")
    assert read.vocabulary.target_model == "/abs/de.model"


def test_paths_of_a_relative_file_are_absolute(write, tmp_path, monkeypatch):
    path = write()
    monkeypatch.chdir(path.parent)
    assert load("run.toml").data.train_target == (str(tmp_path / "train.de"),)


def test_an_empty_model_path_stays_empty(write):
    assert load(write('[vocabulary]\nsource_model = ""\n')).vocabulary.source_model == ""


def test_paths_of_overrides_are_relative_to_the_current_directory(write, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = write()
    monkeypatch.chdir(elsewhere)
    read = load(path, ["data.train_source=new.en", 'data.train_target=["new.de"]', "vocabulary.source_model=m.model"])
    assert read.data.train_source == (str(elsewhere / "new.en"),)
    assert read.data.train_target == (str(elsewhere / "new.de"),)
    assert read.data.valid_source == (str(tmp_path / "valid.en"),)
    assert read.vocabulary.source_model == str(elsewhere / "m.model")


# --- Overrides.


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("seed=3", "seed", 3),
        ("model.cell=gru", "model.cell", "gru"),
        ('model.cell="gru"', "model.cell", "gru"),
        (" model . cell = gru ", "model.cell", "gru"),
        ("optimizer.learning_rate=1e-4", "optimizer.learning_rate", 1e-4),
        ("buckets.source=[8, 16]", "buckets.source", (8, 16)),
        ("model.bidirectional=false", "model.bidirectional", False),
        ("vocabulary.source_model=", "vocabulary.source_model", ""),
        ("vocabulary.source_model=/a=b", "vocabulary.source_model", "/a=b"),
        ("model={units = 5}", "model.units", 5),
    ],
)
def test_an_override_is_toml_or_a_bare_string(write, override, key, expected):
    read = load(write("[model]\nunits = 4\nembedding = 12\n"), [override])
    assert read.model.embedding == 12
    for name in key.split("."):
        read = getattr(read, name)
    assert read == expected


def test_the_later_override_wins(write):
    assert load(write("seed = 2\n"), ["seed=3", "seed=4"]).seed == 4


def test_an_override_can_give_a_required_key(write):
    path = write(data=DATA.replace('train_source = "train.en"\n', ""))
    assert load(path, ["data.train_source=/t.en"]).data.train_source == ("/t.en",)


def test_an_override_can_add_a_sub_table(write):
    read = load(write("[optimizer]\nwarmup_steps = 9\n"), ["optimizer.encoder.learning_rate=1e-4"])
    assert read.optimizer.encoder == OptimizerConfig(learning_rate=1e-4, warmup_steps=9)
    assert read.optimizer.decoder is None


# --- The optimizers of parts.


def test_sub_tables_inherit_what_they_leave_out(write):
    text = """
    [optimizer.encoder]
    learning_rate = 0.5
    [optimizer]
    name = "sgd"
    learning_rate = 0.25
    schedule = "cosine"
    warmup_steps = 3
    weight_decay = 0.125
    [optimizer.decoder]
    name = "adagrad"
    schedule = "linear"
    warmup_steps = 4
    weight_decay = 0.0
    """
    read = load(write(text)).optimizer
    assert read.encoder == OptimizerConfig(
        name="sgd", learning_rate=0.5, schedule="cosine", warmup_steps=3, weight_decay=0.125
    )
    assert read.decoder == OptimizerConfig(
        name="adagrad", learning_rate=0.25, schedule="linear", warmup_steps=4, weight_decay=0.0
    )


def test_an_empty_sub_table_is_an_optimizer_of_its_own(write):
    read = load(write('[optimizer]\nname = "sgd"\n[optimizer.encoder]\n')).optimizer
    assert read.encoder == OptimizerConfig(name="sgd")


def test_groups_are_tables_by_regular_expression(write):
    """In the order of the file; a key may need quotes, in the file, in an override and in what is written."""
    text = """
    [optimizer]
    warmup_steps = 7
    [optimizer.groups.".*/embeddings"]
    frozen = true
    [optimizer.groups.kernel]
    every = 3
    """
    overrides = ['optimizer.groups.".*/embeddings".last_step=5', "optimizer.groups.'x=[0-9]'.name = sgd"]
    with pytest.raises(ConfigError, match=r"expected table\.key=value"):
        load(write(text), overrides)  # the key ends at the first equals sign
    read = load(write(text), overrides[:1])
    assert list(read.optimizer.groups.items()) == [
        (".*/embeddings", OptimizerConfig(warmup_steps=7, frozen=True, last_step=5)),
        ("kernel", OptimizerConfig(warmup_steps=7, every=3)),
    ]
    assert '[optimizer.groups.".*/embeddings"]' in dumps(read)
    assert load(write(dumps(read), data="")) == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\ngroups = 3\n", 'groups: got 3 (an integer), expected tables: write [optimizer.groups."REG'),
        ('[optimizer.groups]\n"a" = 3\n', "optimizer.groups.a: got 3 (an integer), expected a table"),
        ('[optimizer.groups."("]\nevery = 3\n', 'optimizer.groups."(": no regular expression: missing )'),
        ('[optimizer.groups."a.b"]\nevry = 3\n', 'optimizer.groups."a.b".evry: unknown key; did you mean `every`?'),
        ("[optimizer.groups.a.encoder]\n", "optimizer.groups.a.encoder: unknown table"),
        ("[optimizer.groups.a.groups.b]\n", "optimizer.groups.a.groups: unknown table"),
    ],
)
def test_mistakes_in_groups(write, text, message):
    assert message in only_problem_of(write(text))


def test_a_mistake_is_reported_once_where_it_is_inherited(write):
    assert "optimizer.name: got" in only_problem_of(write('[optimizer]\nname = "x"\n[optimizer.encoder]\n'))


# --- Mistakes.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # unknown keys and tables
        ("precison = 3\n", "run.toml: precison: unknown key; did you mean `precision`?"),
        ("[model]\nunit = 3\n", "run.toml: model.unit: unknown key; did you mean `units`?"),
        ("[training]\nunits = 3\n", "run.toml: training.units: unknown key; `units` belongs in [model]"),
        ("units = 3\n", "run.toml: units: unknown key; `units` belongs in [model]"),
        ("[training]\nunitz = 3\n", "training.unitz: unknown key; did you mean `units` in [model]?"),
        ("[model]\nseed = 3\n", "model.seed: unknown key; `seed` belongs at the top of the file, above every table"),
        ("[batches]\nsource = 3\n", "batches.source: unknown key; `source` belongs in [buckets]"),
        ("[batches]\nlr = 3\n", "batches.lr: unknown key; the keys in [batches] are mode, tokens, row_multiple"),
        (
            "[batches]\nmodel = 3\n",
            "unknown key; `model` belongs at the top of the file, above every table, or did you",
        ),
        ("[optimiser]\nname = 'sgd'\n", "run.toml: optimiser: unknown table; did you mean `optimizer`?"),
        ("[encoder]\nname = 'sgd'\n", "run.toml: encoder: unknown table; `encoder` belongs in [optimizer]"),
        ("[optimizer.encoder]\nname_ = 3\n", "optimizer.encoder.name_: unknown key; did you mean `name`?"),
        ("[optimizer.encoder.decoder]\n", "optimizer.encoder.decoder: unknown table; `decoder` belongs in [optimizer]"),
        # ill-typed: what was given, what was expected
        ("seed = '1'\n", 'run.toml: seed: got "1" (a string), expected an integer, at least 0'),
        ("seed = true\n", "seed: got true (a boolean), expected an integer"),
        ("seed = 1.0\n", "seed: got 1.0 (a float), expected an integer"),
        ("seed = 2020-01-01\n", "seed: got 2020-01-01 (a date or time), expected an integer"),
        ("[model]\nunits = 'big'\n", '"big" (a string), expected an integer, at least 1 (default: 256)'),
        ("[model.units]\nx = 1\n", "model.units: got a table with the keys x, expected an integer"),
        ("[model]\nbidirectional = 1\n", "bidirectional: got 1 (an integer), expected true or false (default: true)"),
        ("[model]\ndropout = '0'\n", 'dropout: got "0" (a string), expected a number, at least 0 and below 1'),
        ("[model]\ndropout = false\n", "dropout: got false (a boolean), expected a number"),
        ("[model]\ncell = 3\n", 'model.cell: got 3 (an integer), expected one of "lstm", "gru" (default: "lstm")'),
        ("[model]\ncell = ['lstm']\n", "model.cell: got ['lstm'] (a list), expected one of"),
        ("[vocabulary]\nsource_model = 3\n", "source_model: got 3 (an integer), expected a path in quotes"),
        ("model = 3\n", "run.toml: model: got 3 (an integer), expected a table: write [model]"),
        ("[[model]]\nunits = 3\n", "(a list), expected a table: write [model]"),
        ("[optimizer]\nencoder = 3\n", "encoder: got 3 (an integer), expected a table: write [optimizer.encoder]"),
        ("[buckets]\nsource = ['8']\n", "buckets.source: got ['8'] (a list), expected a count"),
        ("[buckets]\nsource = [true, 8]\n", "expected a count (an integer, at least 1), or a list of strictly"),
        # out of range
        ("seed = -1\n", "seed: got -1 (an integer), expected an integer, at least 0 and below 4294967296"),
        ("seed = 4294967296\n", "expected an integer, at least 0 and below 4294967296 (default: 1)"),
        ("[model]\nunits = 0\n", "model.units: got 0 (an integer), expected an integer, at least 1"),
        ("[model]\ndropout = 1.0\n", "got 1.0 (a float), expected a number, at least 0 and below 1 (default: 0.3)"),
        ("[model]\nlabel_smoothing = -0.1\n", "label_smoothing: got -0.1 (a float), expected a number, at least 0"),
        ("[model]\ndropout = nan\n", "dropout: got nan (a float), expected a number"),
        ("[optimizer]\nlearning_rate = 0\n", "got 0 (an integer), expected a number, above 0 (default: 0.001)"),
        ("[optimizer]\nlearning_rate = inf\n", "learning_rate: got inf (a float), expected a number, above 0"),
        (
            "[optimizer]\nlearning_rate = 1" + "0" * 400 + "\n",
            "000... (an integer), expected a number, above 0",
        ),
        ("[optimizer]\nwarmup_steps = -1\n", "warmup_steps: got -1 (an integer), expected an integer, at least 0"),
        ("[training]\nsteps = 0\n", "training.steps: got 0 (an integer), expected an integer, at least 1"),
        ("[buckets]\nsource = 0\n", "buckets.source: got 0 (an integer), expected a count (an integer, at least 1)"),
        ("[buckets]\ntarget = []\n", "buckets.target: got [] (a list), expected a count"),
        (
            "[buckets]\ntarget = [8, 8]\n",
            "got [8, 8] (a list), expected a count (an integer, at least 1), or a list of",
        ),
        ("[buckets]\ntarget = [0, 8]\n", "a list of strictly increasing integers, at least 1 (default: 6)"),
        (
            "[model]\ncell = 'GRU'\n",
            '"GRU" (a string), expected one of "lstm", "gru" (default: "lstm"); did you mean "gru"?',
        ),
        # keys at odds with each other
        (
            "[model]\ntied_embeddings = true\nunits = 8\n",
            "run.toml: got model.tied_embeddings = true, model.embedding = 256, model.units = 8; expected embedding",
        ),
        (
            "[vocabulary]\ntarget_model = '/t.model'\n",
            'got vocabulary.joint = true, vocabulary.target_model = "/t.model"; expected no target_model',
        ),
        (
            "[search]\nmin_length_ratio = 2\nmax_length_ratio = 1.5\n",
            "got search.min_length_ratio = 2.0, search.max_length_ratio = 1.5; expected no minimum above the maximum",
        ),
    ],
)
def test_each_mistake_names_the_key_and_the_mend(write, text, expected):
    problem = only_problem_of(write(text))
    assert expected in problem
    assert "run.toml: " in problem


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'train_source = "train.en"\n',
            "",
            "data.train_source: missing; add train_source under [data]: expected a path",
        ),
        ('"train.en"', '""', 'train_source: got "" (a string), expected a path in quotes, or a list of paths'),
        ('"train.en"', "[]", "train_source: got [] (a list), expected a path"),
        ('"train.en"', '["a", 3]', "train_source: got ['a', 3] (a list), expected a path"),
        ('"train.en"', '["/a", "/b"]', 'data.train_source = ["/a", "/b"], data.train_target = ["'),
        ('["valid.de"]', '["/a", "/b"]', 'data.valid_target = ["/a", "/b"]; expected as many source as target files'),
    ],
)
def test_each_mistake_in_data(write, old, new, expected):
    assert old in DATA
    assert expected in only_problem_of(write(data=DATA.replace(old, new)))


def test_missing_required_keys_are_all_reported(write):
    problems = problems_of(write(data=""))
    assert [problem.split(": ")[1] for problem in problems] == [
        "data.train_source",
        "data.train_target",
        "data.valid_source",
        "data.valid_target",
    ]


def test_all_problems_are_reported_together(write):
    text = "sed = 1\n[model]\nunits = 'x'\ndropout = 2\n[vocabulary]\ntarget_model = 'x'\n"
    problems = problems_of(write(text), ["batches", "batches.tokens=0"])
    keys = ["sed:", "model.units:", "model.dropout:", "vocabulary.target_model =", "--set batches:", "batches.tokens:"]
    assert len(problems) == len(keys)
    assert all(sum(key in problem for problem in problems) == 1 for key in keys)


def test_rules_are_not_checked_on_values_that_are_invalid(write):
    assert "model.units: got" in only_problem_of(write("[model]\ntied_embeddings = true\nunits = 'x'\nembedding = 8\n"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.units", "--set model.units: expected table.key=value, for example --set model.units=256"),
        ("model..units=3", "--set model..units=3: expected table.key=value"),
        ("=3", "--set =3: expected table.key=value"),
        ("training.units=3", "--set training.units=3: training.units: unknown key; `units` belongs in [model]"),
        ("model.units=big", '--set model.units=big: model.units: got "big" (a string), expected an integer'),
        ("model.bidirectional=True", 'model.bidirectional: got "True" (a string), expected true or false'),
        ("seed=1\nx = 2", 'seed: got "1\\nx = 2" (a string), expected an integer'),
        ("model=3", "--set model=3: model: got 3 (an integer), expected a table"),
        ("model.units=9", "run.toml, --set model.units=9: got model.tied_embeddings = true"),
    ],
)
def test_each_mistake_in_an_override_names_the_override(write, override, expected):
    assert expected in only_problem_of(write("[model]\ntied_embeddings = true\n"), [override])


@pytest.mark.parametrize(
    ("content", "line", "expected"),
    [
        (
            b"seed = 1\n[model]\ncell = lstm\n",
            3,
            "not valid TOML: Invalid value (at line 3, column 8), in `cell = lstm`",
        ),
        (b"seed = 1\nseed = 2\n", 2, "Cannot overwrite a value"),
        (b"[buckets]\nsource = [8,\n16\n\n\n", 3, "Unclosed array (at end of document), in `16`"),
        (b"seed = 1\n# caf\xe9\n", 2, "not UTF-8 text, as TOML must be; save the file as UTF-8"),
    ],
)
def test_malformed_toml_names_file_and_line(tmp_path, content, line, expected):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    problem = only_problem_of(path)
    assert problem.startswith(f"{path}, line {line}: ")
    assert expected in problem


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = only_problem_of("none.toml")
    assert problem.startswith(f"none.toml: No such file or directory (current directory {tmp_path}); give the path")
    assert "Is a directory" in only_problem_of(tmp_path)


# --- Writing.


def numbers(**bounds):
    return st.floats(**bounds, allow_nan=False, allow_infinity=False)


counts = st.integers(1, 2**63 - 1)
paths = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1).map(
    lambda name: os.path.abspath(f"/x/{name}")
)
lengths = counts | st.sets(counts, min_size=1).map(lambda values: tuple(sorted(values)))
optimizers = st.builds(
    OptimizerConfig,
    learning_rate=numbers(min_value=0, exclude_min=True),
    warmup_steps=st.integers(0, 2**63 - 1),
    weight_decay=numbers(min_value=0),
    frozen=st.booleans(),
    first_step=counts,
    every=counts,
    encoder=st.none(),
    encoder2=st.none(),
    decoder=st.none(),
    groups=st.just({}),
)
configs = st.builds(
    Config,
    seed=st.integers(0, 2**32 - 1),
    data=st.lists(paths, min_size=1).map(
        lambda files: DataConfig(**dict.fromkeys(get_type_hints(DataConfig).keys() - {"overlong"}, tuple(files)))
    ),
    vocabulary=st.builds(
        VocabularyConfig,
        joint=st.just(False),
        size=counts,
        source_model=paths,
        source2_model=paths,
        target_model=paths,
    ),
    buckets=st.builds(BucketsConfig, source=lengths, target=lengths),
    batches=st.builds(BatchesConfig, tokens=counts),
    model=st.builds(
        ModelConfig,
        embedding=counts,
        units=counts,
        encoder_layers=counts,
        decoder_layers=counts,
        dropout=numbers(min_value=0, max_value=1, exclude_max=True),
        label_smoothing=numbers(min_value=0, max_value=1, exclude_max=True),
        tied_embeddings=st.just(False),
    ),
    optimizer=st.builds(
        dataclasses.replace,
        optimizers,
        encoder=st.none() | optimizers,
        encoder2=st.none() | optimizers,
        decoder=st.none() | optimizers,
        groups=st.dictionaries(st.text().map(re.escape), optimizers, max_size=3),
    ),
    training=st.builds(
        TrainingConfig,
        clip_norm=numbers(min_value=0),
        build_ahead=st.booleans(),
        steps=counts,
        criterion=st.just("loss"),
    ),
    search=st.builds(
        SearchConfig,
        beam=counts,
        length_penalty=numbers(min_value=0),
        coverage=numbers(min_value=0),
        min_length_ratio=numbers(min_value=0),
    ),
)


@given(config=configs)
def test_what_is_written_reads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(dumps(config), encoding="utf-8")
    read = load(path)
    assert read == config
    assert differences(read, config) == []


def test_the_default_reads_back_equal(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(dumps(load(DEFAULT)))
    assert load(path) == load(DEFAULT)


def test_every_key_is_written():
    written = tomllib.loads(dumps(config_with(optimizer=OptimizerConfig(encoder=OptimizerConfig()))))
    assert written.keys() == set(keys_of(Config))
    for name, cls in TABLES.items():
        assert written[name].keys() - {"encoder"} == set(keys_of(cls)) - OPTIMIZERS
    assert written["optimizer"]["encoder"].keys() == set(keys_of(OptimizerConfig)) - OPTIMIZERS


def test_a_string_that_toml_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match=r"'/\\udcff': expected valid Unicode text"):
        dumps(config_with(vocabulary=VocabularyConfig(source_model="/\udcff")))


# --- Differences.


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"seed": 2}, ["seed"]),
        ({"training": TrainingConfig(steps=3), "model": ModelConfig(units=3)}, ["model.units", "training.steps"]),
        ({"optimizer": OptimizerConfig(encoder=OptimizerConfig())}, ["optimizer.encoder"]),
        ({"optimizer": OptimizerConfig(groups={"a.*": OptimizerConfig()})}, ['optimizer.groups."a.*"']),
    ],
)
def test_differences_are_dotted_keys(change, expected):
    assert differences(config_with(), config_with(**change)) == expected
    assert differences(config_with(**change), config_with()) == expected


def test_differences_reach_into_sub_tables():
    ours = config_with(optimizer=OptimizerConfig(encoder=OptimizerConfig(name="sgd")))
    theirs = config_with(optimizer=OptimizerConfig(encoder=OptimizerConfig(learning_rate=1.0)))
    assert differences(ours, theirs) == ["optimizer.encoder.name", "optimizer.encoder.learning_rate"]
    ours, theirs = (
        config_with(optimizer=OptimizerConfig(groups={"a": OptimizerConfig(every=each), "b.": OptimizerConfig()}))
        for each in (2, 3)
    )
    assert differences(ours, theirs) == ["optimizer.groups.a.every"]


# --- The dataclasses and the example that shows all of them.

TABLES = {name: cls for name, cls in get_type_hints(Config).items() if dataclasses.is_dataclass(cls)}


OPTIMIZERS = {"encoder", "encoder2", "decoder", "groups"}
HIDDEN = {"optimizer.encoder", "optimizer.encoder2", "optimizer.decoder", 'optimizer.groups.".*/embeddings"'}
"""The tables of the example that are commented out."""


def keys_of(cls) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def keys_by_table() -> dict[str, list[str]]:
    """The keys that are no tables, of the top of the file ("") and of every table and sub-table."""
    keys = {name: [key for key in keys_of(cls) if key not in OPTIMIZERS] for name, cls in TABLES.items()}
    keys[""] = [key for key in keys_of(Config) if key not in TABLES]
    return keys | dict.fromkeys(HIDDEN, keys["optimizer"])


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
        written = "Required." if required else f"Default: {config_module._toml(field.default)}"
        assert comment.endswith(written), field.name
        assert len(comment.removesuffix(written).strip()) > 10, field.name
        for text in accepted(get_type_hints(cls, include_extras=True)[field.name]):
            assert text in comment, field.name


def accepted(hint) -> list[str]:
    """What a comment must tell of a type: its choices, or its range."""
    base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    choices = [f'"{choice}"' for choice in get_args(base)] if get_origin(base) is Literal else []
    return choices + [str(mark) for mark in marks if isinstance(mark, config_module.Range)]


def test_the_example_loads_also_with_what_is_commented_out(tmp_path):
    text = re.sub(r"(?m)^#(?=\S)", "", DEFAULT.read_text())
    path = tmp_path / "run.toml"
    path.write_text(text)
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
