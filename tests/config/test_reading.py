"""What is read, and what is told of every kind of mistake."""

import datetime

import pytest
from configurations import DATA, only_problem_of, problems_of

from seq2split.config import Config, ConfigError, OptimizerConfig, dumps, load


def test_keys_left_out_have_their_defaults(write):
    read = load(write())
    assert read == Config(data=read.data)
    assert (read.precision, read.seed, read.model.units, read.optimizer.encoder) == ("float32", 1, 256, None)


def test_an_override_can_give_a_required_key(write):
    path = write(data=DATA.replace('train_source = "train.en"\n', ""))
    assert load(path, ["data.train_source=/t.en"]).data.train_source == ("/t.en",)


def test_an_override_can_add_a_sub_table(write):
    read = load(write("[optimizer]\nwarmup_steps = 9\n"), ["optimizer.encoder.learning_rate=1e-4"])
    assert read.optimizer.encoder == OptimizerConfig(learning_rate=1e-4, warmup_steps=9)
    assert read.optimizer.decoder is None


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
        (
            "[model]\nunits = 'big'\n",
            '"big" (a string), expected an integer, at least 1 and at most 1048576 (default: 256)',
        ),
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
        ("[buckets]\nsource = ['8']\n", "buckets.source: got ['8'] (a list), expected \"auto\", a count"),
        ("[buckets]\nsource = [true, 8]\n", 'expected "auto", a count (an integer, at least 1), or a list of strictly'),
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
        (
            "[optimizer]\nfirst_step = 9\nlast_step = 3\n[optimizer.encoder]\nname = 'sgd'\n",
            "run.toml: optimizer: got first_step = 9 and last_step = 3, so that no step updates; raise last_step",
        ),
        (
            "[optimizer]\nlast_step = 3\n[optimizer.groups.'a.*']\nfirst_step = 4\n",
            'optimizer.groups."a.*": got first_step = 4 and last_step = 3, so that no step updates',
        ),
        ("[training]\nsteps = 0\n", "training.steps: got 0 (an integer), expected an integer, at least 1"),
        (
            "[buckets]\nsource = 0\n",
            'buckets.source: got 0 (an integer), expected "auto", a count (an integer, at least 1)',
        ),
        ("[buckets]\ntarget = []\n", 'buckets.target: got [] (a list), expected "auto", a count'),
        (
            "[buckets]\ntarget = [8, 8]\n",
            'got [8, 8] (a list), expected "auto", a count (an integer, at least 1), or a list of',
        ),
        (
            "[buckets]\ntarget = [0, 8]\n",
            'a list of strictly increasing integers, at least 1 and at most 1048576 (default: "auto")',
        ),
        (
            "[model]\ncell = 'GRU'\n",
            '"GRU" (a string), expected one of "lstm", "gru" (default: "lstm"); did you mean "gru"?',
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


# --- Architectures of one's own.

OWN = '[model]\narchitecture = "mine.py:make"\n'


def test_options_are_kept_as_they_are_written(write, tmp_path):
    text = """
    [model.options]
    kinds = ["a", 1, 2.0, {deep = [true]}]
    [model.options.nested]
    "odd key" = 1979-05-27
    [model.options.nested.empty]
    """
    model = load(write(OWN + text), ["model.options.nested.more=x", "model.options.last=3"]).model
    assert (model.architecture, model.is_built_in) == (f"{tmp_path}/mine.py:make", False)
    nested = {"odd key": datetime.date(1979, 5, 27), "empty": {}, "more": "x"}
    assert model.options == {"kinds": ["a", 1, 2.0, {"deep": [True]}], "nested": nested, "last": 3}
    assert [type(item) for item in model.options["kinds"]] == [str, int, float, dict]
    assert (list(model.options), list(model.options["nested"])) == (["kinds", "nested", "last"], list(nested))


def test_a_built_in_architecture_has_no_options(write):
    model = load(write("[model]\narchitecture = 'transformer'\n[model.options]\n")).model
    assert (model.architecture, model.is_built_in, model.options) == ("transformer", True, {})


def test_an_architecture_in_an_override_is_relative_to_the_current_directory(write, tmp_path, monkeypatch):
    path = write()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(path, ["model.architecture=my.py:f"]).model.architecture == str(tmp_path / "elsewhere" / "my.py:f")
    assert load(path, ["model.architecture=my.module:f"]).model.architecture == "my.module:f"


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (
            "[model]\narchitecture = 'transfomer'\n",
            [],
            'got "transfomer" (a string), expected "recurrent" or "transformer", or a function of your own: '
            '"package.module:function" or "file.py:function" (default: "recurrent"); did you mean "transformer"?',
        ),
        ("[model]\narchitecture = 'mine.py'\n", [], 'or a function of your own: "package.module:function" or'),
        ("[model]\narchitecture = 3\n", [], 'got 3 (an integer), expected "recurrent" or "transformer", or a function'),
        (
            "[model.options]\nwidth = 3\n",
            ["model.options.depth=2"],
            "run.toml, --set model.options.depth=2: got model.options.width, model.options.depth with "
            'model.architecture = "recurrent"; options are for an architecture of your own, named as a function',
        ),
        (
            OWN + "heads = 2\n",
            ["model.units=3"],
            "run.toml: got model.units, model.heads with model.architecture = ",
        ),
        (OWN + "units = 256\n", [], "these; put what an architecture of your own needs under [model.options]"),
        (
            OWN + "width = 256\n",
            [],
            "model.width: unknown key; put what an architecture of your own needs under [model",
        ),
        (
            OWN + "[model.option]\nx = 1\n",
            [],
            "model.option: unknown table; put what an architecture of your own needs",
        ),
        (OWN + "options = 3\n", [], "model.options: got 3 (an integer), expected a table: write [model.options] and"),
        ("[options]\nwidth = 3\n", [], "run.toml: options: unknown table; `options` belongs in [model]"),
    ],
)
def test_mistakes_about_architectures(write, text, overrides, expected):
    assert expected in only_problem_of(write(text), overrides)


def test_rules_of_the_built_in_architectures_are_not_applied_to_others(write):
    """What they are about is to be moved, which is told once."""
    assert "got model.units, model.tied" in only_problem_of(write(OWN + "units = 3\ntied_embeddings = true\n"))


def test_an_invalid_architecture_says_nothing_of_other_keys(write):
    text = "[model]\narchitecture = 'x'\nunits = 3\n[model.options]\nwidth = 3\n"
    assert "model.architecture: got" in only_problem_of(write(text))
