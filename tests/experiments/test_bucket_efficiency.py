"""The benchmark's harness, not its timings: who is measured, what is counted, and that bad input is told so."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
sys.path.append(str(EXPERIMENTS))

from efficiency import (  # noqa: E402
    agreement,
    batches,
    comparison,
    layouts,
    packed,
    peer_choice,
    plan,
    products,
    records,
    residuals,
    scaling,
    targets,
    timing,
)
from efficiency.machine import Machine, this_machine  # noqa: E402
from efficiency.making import make  # noqa: E402
from efficiency.peer_process import PeerError  # noqa: E402
from efficiency.run import Bench  # noqa: E402
from efficiency.setting import Setting  # noqa: E402

COUNTS = plan.QUICK.counts
FEW, MANY = COUNTS
BUILT = ("split", "joint-pairs", "joint-pairs-mixed")
PRECISION = "float32"
(WORKLOAD,) = plan.QUICK.workloads
RECURRENT = tuple(name for name in plan.SUBJECTS if name != "packed")
MACHINE = Machine("A processor", ("AVX2",), 2, 23, {"Python": "3.11.7"})


def run(*arguments):
    """Run the script as a user would, who has no tuned allocator."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    command = [sys.executable, EXPERIMENTS / "bucket_efficiency.py", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run without the peers and building, in one precision: its records, what it printed, and its folder."""
    return _run_quick(tmp_path_factory.mktemp("quick"), *RECURRENT, "--rounds", 2, "--skip", "building")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Building alone, of two kinds of graphs: each takes a process for each number of buckets."""
    return _run_quick(
        tmp_path_factory.mktemp("built"), *BUILT, "--rounds", 1, "--skip", "speed", "pairs", "runs", "counts"
    )


def _run_quick(folder, *options):
    drawn = ["--plot", folder / "figures"] if _has_matplotlib() else []
    common = ["--json", folder / "found.json", "--precisions", PRECISION, *drawn]
    done = run("--quick", *common, "--subjects", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return records.Records.load(folder / "found.json"), done.stdout, folder


def _has_matplotlib():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def by_subject(found, **wanted):
    return {each.subject: each.median for each in found.get(**wanted)}


def measured_at(name):
    """The number of buckets a side at which everything of a subject is measured."""
    return plan.QUICK.fine if name == plan.FINE else FEW


def test_the_file_holds_the_machine_and_records(quick):
    found = json.loads((quick[2] / "found.json").read_text())
    assert found["machine"]["cores"] == this_machine().cores
    assert found["machine"]["versions"]["tensorflow"] == tf.__version__
    assert quick[1].splitlines()[0] == f"Measured on {this_machine().text}"
    given = found["records"]
    keys = ["workload", "buckets", "precision", "model", "subject", "measure", "median", "low", "high", "n"]
    assert given
    assert all(list(each) == keys for each in given)
    assert {each["workload"] for each in given} == {WORKLOAD}
    assert {each["precision"] for each in given} == {PRECISION, "any"}
    noted = [tuple(each[key] for key in keys[:6]) for each in given]
    assert len(set(noted)) == len(noted)


@pytest.mark.parametrize(
    "measure",
    ["tokens/s", "speed of split over it", "padding share", "forward runs, encoder", "forward runs, decoder"],
)
def test_every_subject_has_every_measure(quick, measure):
    found = {name: quick[0].value(measure=measure, subject=name, buckets=measured_at(name)) for name in RECURRENT}
    assert None not in found.values()
    assert min(found.values()) > 0


@pytest.mark.parametrize("measure", ["seconds to build", "memory growth, bytes", "resident memory, bytes"])
@pytest.mark.parametrize("count", COUNTS)
def test_building_is_measured(built, measure, count):
    found = by_subject(built[0], measure=measure, buckets=count)
    assert set(found) == set(BUILT if count == FEW else plan.GROWING)
    assert min(found.values()) > 0


def test_steps_are_repeated(quick):
    assert {each.n for each in quick[0].get(measure="tokens/s")} == {2}


def test_ratios_are_of_the_speeds_of_one_round():
    """Not of the medians of all rounds."""
    bench = Bench(replace(plan.QUICK, precisions=(PRECISION,)), threads=1)
    speeds = {
        "split": [4.0, 6.0],
        "tape": [4.0, 1.0],
        "split-mixed": [2.0, 4.0],
        "joint-pairs-mixed": [4.0, 1.0],
        "products": [8.0, 24.0],
    }
    bench._note_speeds("embedded", PRECISION, {name: np.array(each) for name, each in speeds.items()})
    found = {name: by_subject(bench.records, measure=name) for name in (each.measure for each in bench.records.all)}
    assert found == {
        "share of the step of split": {"products": 0.375},
        "tokens/s": {"split": 5.0, "tape": 2.5, "split-mixed": 3.0, "joint-pairs-mixed": 2.5},
        "speed of split over it": {"split": 1.0, "tape": 3.5, "split-mixed": 1.75, "joint-pairs-mixed": 3.5},
        "speed of split-mixed over it": {"joint-pairs-mixed": 2.25},
    }


@pytest.mark.parametrize("count", COUNTS)
def test_graphs_are_counted(built, count):
    expected = {"split": 2 * count, "joint-pairs": count**2}
    if count == FEW:  # those on mixed batches have the same graphs
        expected["joint-pairs-mixed"] = count**2
    assert by_subject(built[0], measure="graphs", buckets=count) == expected


def test_forwards_run_once_but_where_they_are_run_again(quick):
    again = {"encoder": {"rerun", "rerun-encoder"}, "decoder": {"rerun"}}
    for part, names in again.items():
        found = by_subject(quick[0], measure=f"forward runs, {part}")
        assert found == {name: 2 if name in names else 1 for name in RECURRENT}


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_split_keeps_least(quick, part):
    found = by_subject(quick[0], measure=f"residual bytes, {part}")
    assert set(found) == {"split", "split-mixed", "tape", "cache-all"}
    assert 0 < found["split"] == found["split-mixed"] < min(found["tape"], found["cache-all"])


@pytest.mark.parametrize("count", COUNTS)
def test_padding_is_that_of_plain_arithmetic(quick, count):
    corpus = layouts.workloads.load(WORKLOAD)
    pairs = [(len(source), len(target)) for source, target in zip(*corpus.fields.values(), strict=True)]
    real = sum(map(sum, pairs))
    bounds = [layouts.workloads.fit(WORKLOAD, count)[side].boundaries for side in ("source", "target")]
    bucketed = sum(
        next(bound for bound in side if bound >= length)
        for pair in pairs
        for side, length in zip(bounds, pair, strict=True)
    )
    both = layouts.diagonal_pairs(WORKLOAD, count)
    diagonal = sum(sum(next(each for each in both if max(each) >= max(pair))) for pair in pairs)
    longest = sum(max(lengths) for lengths in zip(*pairs, strict=True))
    found = by_subject(quick[0], measure="padding share", buckets=count)
    for name in ("split", "split-mixed", "joint-pairs", "tape"):
        assert 1 - real / bucketed <= found[name] < found["padded"]  # rows of small groups go up
    assert found["split"] == found["joint-pairs"] == found["tape"]
    assert found["diagonal"] == pytest.approx(1 - real / diagonal)
    assert found["padded"] == pytest.approx(1 - real / (longest * len(pairs)))
    assert 0 < found["dynamic"] < found["split"]


def test_every_bucket_pair_is_timed(quick):
    bounds = [layouts.workloads.fit(WORKLOAD, FEW)[side].boundaries for side in ("source", "target")]
    expected = {f"step over joint-pairs, {source} x {target}" for source in bounds[0] for target in bounds[1]}
    assert {each.measure for each in quick[0].get(subject="split") if targets.is_pair(each.measure)} == expected


def test_products_are_part_of_the_step(quick):
    assert 0 < quick[0].value(subject="products", measure="share of the step of split") < 1


def test_tables_show_every_subject_and_the_targets(quick, built):
    found, printed, _ = quick
    lines = printed.splitlines()
    for name in RECURRENT:
        assert sum(line.split()[:1] == [name] for line in lines) >= 2  # speed, forward runs
    titles = ("Training", "Step of split", "Tokens/s", "Residuals", "Forward executions", "Targets")
    assert _titled(lines, titles) == dict.fromkeys(titles, True)
    of_building = built[1].splitlines()
    assert _titled(of_building, ["Building", "Tokens/s"]) == {"Building": True}
    rows = {("split", count, 2 * count) for count in COUNTS} | {("joint-pairs", count, count**2) for count in COUNTS}
    assert {tuple(map(str, row)) for row in rows} <= {tuple(line.split()[:3]) for line in of_building}
    judged = targets.judge(found, replace(plan.QUICK, precisions=(PRECISION,)))
    shown = {line.split("  ")[0]: line.split()[-1] for line in lines if any(line.startswith(t.name) for t in judged)}
    verdicts = {True: "yes", False: "no", None: "measured"}
    assert shown == {each.name: verdicts[each.met] for each in judged}


def _titled(lines, titles):
    """Which titles are shown, and whether each names the model."""
    return {title: ", lstm" in line for line in lines for title in titles if line.startswith(title)}


def test_figures_are_drawn(quick, built):
    if not _has_matplotlib():
        pytest.skip("matplotlib, which draws them, is not installed")
    common = {"lstm_padding"}
    of_quick = {f"lstm_speed_{WORKLOAD}", "lstm_speed_by_buckets", f"lstm_pairs_{PRECISION}"}
    for (_, _, folder), own in ((quick, of_quick), (built, {"lstm_building"})):
        written = {path.stem: path.read_bytes() for path in (folder / "figures").iterdir()}
        assert set(written) == common | own
        assert all(content.startswith(b"\x89PNG") for content in written.values())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rounds", "0"], "--rounds 0: give at least 1"),
        (["--threads", "0"], "--threads 0: give at least 1"),
        (["--buckets", "2", "0"], "--buckets 0: give at least 1"),
        (["--json", "/nowhere/found.json"], "--json /nowhere/found.json: give a file in a directory that exists"),
        (["--workloads", "wmt"], "invalid choice: 'wmt'"),
        (["--scaling", "0"], "--scaling 0: give at least 1"),
        (["--scaling", "4096"], "--scaling 4096: this process may use"),
        (["--compare", "/nowhere/found.json"], "No such file or directory"),
    ],
)
def test_bad_input_is_told(arguments, told):
    done = run("--quick", *arguments)
    assert done.returncode != 0
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def setting():
    sizes = plan.Sizes(vocabulary=20, units=4)
    return Setting(sizes, PRECISION, 2, source=(2, 4), target=(3, 5), diagonal=((2, 3), (4, 5)))


def mixed_batch():
    """Nine sentence pairs of three bucket pairs, one of them of two rows."""
    random = np.random.default_rng(0)
    lengths = {"source": [1, 2, 4, 3, 4, 3, 4, 2, 1], "target": [3, 2, 4, 5, 5, 4, 4, 5, 5]}
    return {
        side: batches.Sequences(
            batches.pad_rows([random.integers(4, 20, length) for length in each], max(each)), np.array(each, np.int32)
        )
        for side, each in lengths.items()
    }


DIFFERENT = [name for name in RECURRENT if not name.endswith(("-mixed", "-fine"))]


@pytest.mark.long
def test_subjects_agree_on_mixed_batches(setting):
    made = {name: make(name, setting) for name in DIFFERENT}
    for subject in made.values():
        subject.build()
    parts = dict.fromkeys(("split", "tape", "rerun", "rerun-encoder", "cache-all"), 2 * 2)
    joint = {"joint-pairs": 2**2, "diagonal": 2, "dynamic": 1, "padded": 1}
    assert {name: subject.graphs for name, subject in made.items()} == parts | joint
    agreement.check(made, mixed_batch(), PRECISION)


def widths_of(subject):
    """The last dimensions of the variables of an encoder, which tell what it is made of."""
    return {variable.shape[-1] for variable in subject.layers["encoder"].trainable_variables}


def test_subjects_of_the_other_cell_agree(setting):
    of_gru = replace(setting, sizes=replace(setting.sizes, model="gru"))
    made = {name: make(name, of_gru) for name in ("split", "joint-pairs", "dynamic")}
    gates = {"lstm": 4 * of_gru.sizes.units, "gru": 3 * of_gru.sizes.units}
    assert all(
        gates["gru"] in widths_of(subject) and gates["lstm"] not in widths_of(subject) for subject in made.values()
    )
    agreement.check(made, mixed_batch(), PRECISION)


def test_subjects_of_a_transformer_agree(setting):
    """Each way to build it, once: with one target bucket there are fewer graphs."""
    sizes = plan.Sizes("transformer", vocabulary=20, units=8, layers=1)
    transformer = replace(setting, sizes=sizes, target=(5,), diagonal=((4, 5),))
    made = {name: make(name, transformer) for name in (*DIFFERENT, "packed")}
    assert all(sizes.feedforward in widths_of(subject) for subject in made.values())
    agreement.check(made, mixed_batch(), PRECISION)


def test_a_subject_that_computes_another_thing_is_told(setting):
    made = {name: make(name, setting) for name in ("joint-pairs", "tape")}
    bias = made["tape"].layers["encoder"].stack[0][0].bias
    bias.assign(bias.numpy() + 1e-2)
    with pytest.raises(agreement.DisagreementError, match="of tape"):
        agreement.check(made, mixed_batch(), PRECISION)


def test_agreement_in_bfloat16_is_of_gradients(setting):
    """A network whose loss is as good as the same, but which is another, is found out."""
    of_bfloat16 = replace(setting, precision="mixed_bfloat16")
    made = {name: make(name, of_bfloat16) for name in ("joint-pairs", "tape")}
    agreement.check(made, mixed_batch(), "mixed_bfloat16")
    kernel = made["tape"].layers["encoder"].stack[0][0].kernel
    kernel.assign(-kernel.numpy())
    with pytest.raises(agreement.DisagreementError, match=r"the gradient of .* of tape differs"):
        agreement.check(made, mixed_batch(), "mixed_bfloat16")


def test_what_is_skipped_is_not_measured():
    bench = Bench(replace(plan.QUICK, precisions=(PRECISION,), skip=plan.STAGES), threads=1)
    assert [stage.func.__name__ for stage in bench.stages()] == ["measure_padding"]


def test_steps_train(setting):
    subject = make("split", setting)
    losses = [subject.step(mixed_batch()) for _ in range(5)]
    assert losses == sorted(set(losses), reverse=True)


def test_subjects_agree_again_after_a_reset(setting):
    made = {name: make(name, setting) for name in ("joint-pairs", "padded")}
    made["padded"].step(mixed_batch())
    made["padded"].step(mixed_batch())
    before = float(made["joint-pairs"].loss_and_gradients(mixed_batch())[0])
    assert float(made["padded"].loss_and_gradients(mixed_batch())[0]) != pytest.approx(before, rel=1e-6)
    made["padded"].model.reset()
    agreement.check(made, mixed_batch(), PRECISION)


def test_the_shapes_of_split_are_those_of_its_groups(setting):
    shapes = make("split", setting).shapes(batches.full_batch(4, 5, 24 * 9, 20))
    assert sorted(shapes) == [(12, 4), (12, 4), (12, 4, 5), (12, 4, 5)]


def test_a_setting_survives_json(setting):
    assert Setting.loads(setting.dumps()) == setting


def test_deal_gives_each_thread_its_share():
    source, target = np.array([2] * 40 + [4] * 3), np.array([3] * 40 + [5] * 3)
    shards = batches.deal(source, target, threads=2)
    assert sorted(np.concatenate([rows for rows, *_ in shards])) == list(range(43))
    assert [(len(rows), *pair) for rows, *pair in shards] == [(20, 2, 3), (20, 2, 3), (3, 4, 5)]


@pytest.mark.parametrize("name", list(layouts.LAYOUTS))
def test_every_sentence_stands_in_one_batch_of_the_budget(name):
    corpus = layouts.workloads.load("embedded")
    layout = layouts.lay_out(name, "embedded", 3, 512)
    assert sorted(np.concatenate(layout.batches)) == list(range(len(corpus)))
    for side in ("source", "target"):
        assert np.all(getattr(layout, side) >= corpus.lengths[side])
    # A bucket whose rows go up to a longer one costs less than a group of its own.
    up = sum(sum(buckets.boundaries[:-1]) for buckets in layouts.workloads.fit("embedded", 3).values())
    most = 512 + layouts.GROUP_OVERHEAD * up * (name in ("homogeneous", "mixed"))
    assert max((layout.source[rows] + layout.target[rows]).sum() for rows in layout.batches) <= most


def test_a_sample_is_spread_evenly_over_the_sizes():
    source = np.repeat(np.arange(1, 101), 2)
    rows = np.random.default_rng(0).permutation(np.arange(200).reshape(100, 2))
    layout = layouts.Layout(source, source, list(rows))
    batches, weights = layout.sample(4)
    assert [int(source[drawn].mean()) for drawn in batches] == [13, 38, 63, 88]
    assert weights == [25.0] * 4
    assert layout.sample(500)[1] == [1.0] * 100


@pytest.mark.parametrize(("count", "expected"), [(1, [18, 2]), (4, [6, 6, 6, 2]), (10, [2] * 10), (99, [1] * 20)])
def test_mixed_batches_count_for_as_many_as_there_are(count, expected):
    source = np.array([4] * 36 + [4, 5] * 2)  # of 20 batches the last two are mixed
    layout = layouts.Layout(source, source, list(np.arange(40).reshape(20, 2)))
    batches, weights = layout.sample(count)
    assert weights == expected
    assert sum(weights[at] for at, rows in enumerate(batches) if len(set(source[rows])) > 1) == 2


def test_padding_share_by_hand():
    corpus = layouts.Corpus({"source": [np.zeros(2), np.zeros(3)], "target": [np.zeros(1), np.zeros(4)]})
    layout = layouts.Layout(np.array([4, 4]), np.array([4, 4]), [np.array([0, 1])])
    assert layout.padding(corpus) == pytest.approx(1 - 10 / 16)


def test_everyone_runs_every_item_a_few_in_a_row_and_all_orders_change():
    items = {"a": list(range(6)), "b": list(range(6)), "c": [0]}
    turns = [list(timing.in_turn(items, number)) for number in range(20)]
    orders = []
    for turn in turns:
        assert sorted(turn) == [(name, item) for name, each in items.items() for item in each]
        names = "".join(name for name, _ in turn)
        assert sorted(names[:9]) == sorted("aaaabbbbc")
        orders.append("".join(name for name, _ in groupby(names[:9])))
    assert set(orders) == {"abc", "acb", "bac", "bca", "cab", "cba"}
    assert len({tuple(item for name, item in turn if name == "a") for turn in turns}) > 10


def test_speed_is_tokens_over_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def wait(seconds):
        clock[0] += seconds

    works = {
        "slow": timing.Work(timing.timed(wait), [2.0, 3.0], [4, 6], [1.0, 1.0]),
        "fast": timing.Work(timing.timed(wait), [1.0], [10], [1.0]),
        "weighted": timing.Work(timing.timed(wait), [2.0, 3.0], [4, 6], [4.0, 1.0]),
        "few tokens": timing.Work(timing.timed(wait), [1.0, 2.0], [4, 1], [1.0, 3.0]),
    }
    found = {name: each.tolist() for name, each in timing.speeds(works, rounds=2, label="").items()}
    assert found == {"slow": [2.0] * 2, "fast": [10.0] * 2, "weighted": [2.0] * 2, "few tokens": [1.0] * 2}


def test_bytes_of_views_count_once():
    block = tf.random.stateless_uniform([16, 64], [1, 2])
    beside = tf.random.stateless_uniform([16, 64], [3, 4])
    views = [tf.reshape(block, [64, 16]), tf.identity(block), *tf.unstack(block)]
    assert residuals.bytes_of([block, *views], []) == 16 * 64 * 4
    assert residuals.bytes_of([block, beside], [tf.reshape(block, [-1])]) == 16 * 64 * 4


def test_products_are_those_of_the_model():
    """The vocabulary adds three products; a step of either side adds its own, and two at that step."""
    rows, units = 4, 8

    def operations(pieces, source, target):
        sizes = plan.Sizes("lstm", pieces, units)
        shapes = (rows, source), (rows, source, target)
        return sum(each.operations for shape in shapes for each in products.products_of(sizes, shape))

    assert operations(110, 3, 5) - operations(10, 3, 5) == 3 * 2 * (rows * 5) * units * 100
    layer = 3 * 2 * rows * units * 4 * units  # of the inputs, and again of the recurrence
    keys, attention = 3 * 2 * rows * units * units, 6 * 2 * rows * units * 5
    assert operations(10, 4, 5) - operations(10, 3, 5) == 2 * layer + keys + attention


def test_products_of_a_transformer_are_those_of_its_graph():
    rows, source, target, sizes = 4, 3, 5, plan.Sizes("transformer", vocabulary=40, units=16, layers=2)
    encoder, decoder = Setting(sizes, PRECISION, 1, (source,), (target,), ()).layers()
    variables = [variable.value for variable in encoder.trainable_variables + decoder.trainable_variables]

    def gradients(*fields):
        with tf.GradientTape() as tape:
            loss, _ = decoder(encoder(fields[0], training=True), fields[1], training=True)
        return tape.gradient(loss, variables)

    specs = [
        batches.Sequences(tf.TensorSpec([rows, time], tf.int32), tf.TensorSpec([rows], tf.int32))
        for time in (source, target)
    ]
    graph = tf.function(gradients, autograph=False).get_concrete_function(*specs).graph
    traced = sum(_operations(op) for op in graph.get_operations() if "MatMul" in op.type)
    of_bias = 2 * rows * target * sizes.vocabulary * (32 - sizes.units + 1)  # it widens a product; its gradient is one
    shapes = (rows, source), (rows, source, target)
    found = [each for shape in shapes for each in products.products_of(sizes, shape)]
    assert sum(each.operations for each in found) == traced - of_bias


def _operations(product):
    """Multiplications and additions of a traced matrix product."""
    turned = product.get_attr("transpose_a" if product.type == "MatMul" else "adj_x")
    inner = product.inputs[0].shape[-2 if turned else -1]
    return 2 * product.outputs[0].shape.num_elements() * inner


@pytest.mark.parametrize(("precision", "dtype"), [("float32", tf.float32), ("mixed_bfloat16", tf.bfloat16)])
def test_every_product_runs_once(setting, precision, dtype):
    """The number that comes of a group is the sum of one entry of each of its products."""
    shapes = [(8, 2), (8, 2, 3), (8, 2, 3)]
    sums = [_sum_of_products(products.products_of(setting.sizes, shape), dtype) for shape in shapes]
    found = products.runner(setting.sizes, precision, shapes, threads=2)()
    assert {each.dtype for (each,) in found} == {dtype}
    rounding = 1e-5 if dtype == tf.float32 else 0.05
    assert sorted(float(each) for (each,) in found) == pytest.approx(sorted(sums), rel=rounding, abs=rounding)


def _sum_of_products(group, dtype):
    total = 0.0
    for product in group:
        right, *lefts = (tf.cast(factor, tf.float64).numpy() for factor in products._factors(product, dtype))
        assert len(lefts) == product.times
        total += sum((left @ right).flat[0] for left in lefts)
    return total


def test_records_are_checked():
    found = records.Records("lstm", MACHINE)
    found.add("embedded", 2, PRECISION, "split", "tokens/s", 3.0, 1.0, 2.0)
    (record,) = found.all
    assert (record.median, record.low, record.high, record.n) == (2.0, 1.5, 2.5, 3)
    good = vars(record)
    records.validate(good)
    for wrong in ({"median": float("nan")}, {"low": 9.0}, {"buckets": "2"}, {"n": 0}, {"unit": "s"}):
        with pytest.raises(ValueError, match="a record has"):
            records.validate(good | wrong)


def test_records_that_are_wrong_are_not_written(tmp_path):
    found = records.Records("lstm", MACHINE)
    found.all = [records.Record("embedded", 2, PRECISION, "lstm", "split", "tokens/s", 1.0, 1.0, float("inf"), 1)]
    with pytest.raises(ValueError, match="a record has the figures"):
        found.save(tmp_path / "found.json")
    assert not (tmp_path / "found.json").exists()


def test_targets_are_judged():
    found = records.Records("lstm", MACHINE)
    for subject, seconds in (("split", 2.0), ("joint-pairs", 8.0)):
        found.add("embedded", 12, "mixed_bfloat16", subject, "seconds to build", seconds)
    found.add(WORKLOAD, FEW, "mixed_bfloat16", "tape", "speed of split over it", 1.2, 1.4, 1.1)
    for subject, speed in (
        ("split", 100.0),
        ("split-fine", 108.0),
        ("dynamic", 90.0),
        ("diagonal", 100.0),
        ("jax", 109.0),
    ):
        found.add(WORKLOAD, measured_at(subject), PRECISION, subject, "tokens/s", speed)
    judged = {each.name: (each.reached, each.met) for each in targets.judge(found, plan.QUICK)}
    assert judged["build time, 12 x 12 buckets, split / joint-pairs"] == (0.25, False)
    assert judged["memory growth of building, 12 x 12 buckets, split / joint-pairs"] == (None, None)
    assert judged["split / tape, tokens/s, bfloat16"] == (1.2, True)
    ours, others = "split or split-fine", "dynamic, joint-pairs, diagonal, packed"
    assert judged[f"{ours} / the best of {others}, float32"] == (1.08, True)
    assert judged[f"{ours} / the best of {others}, bfloat16"] == (None, None)
    assert judged[f"{ours} / the best of torch, torch-compile, jax, float32"] == (108.0 / 109.0, False)
    with_amx = records.Records("lstm", replace(MACHINE, extensions=("AMX",)))
    with_amx.all = found.all
    assert {each.name: each.met for each in targets.judge(with_amx, plan.QUICK)}[
        f"{ours} / the best of torch, torch-compile, jax, float32"
    ]


def test_peers_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(peer_choice, "find_spec", lambda module: None if module == "torch" else True)
    bfloat16 = replace(plan.QUICK, subjects=plan.SUBJECTS + plan.PEERS, precisions=("mixed_bfloat16",))
    bench = Bench(bfloat16, threads=1)
    told = dict(bench.records.failures)
    assert told["torch"] == told["torch-compile"] == "is left out: No module named 'torch'"
    assert told["jax"] == "is left out: it is measured in float32 alone"
    assert told["packed"].startswith("is left out: only a Transformer")
    assert bench.names == list(RECURRENT)
    told = dict(Bench(replace(bfloat16, model="gru", precisions=(PRECISION,)), threads=1).records.failures)
    assert told["jax"] == "is left out: it is not written for the GRU"


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(peer_choice, "find_spec", lambda _: True)
    monkeypatch.setattr(peer_choice.shutil, "which", lambda _: None)
    (reason,) = peer_choice.left_out(replace(plan.QUICK, subjects=("torch", "torch-compile"))).values()
    assert reason.startswith("no C++ compiler is found: install one of g++")


PEER_PLAN = replace(plan.QUICK, subjects=("torch", "jax"), precisions=(PRECISION,), units=8, rounds=2)


def bench_with(monkeypatch, **factories):
    """A bench whose peers are made by functions of `fake_peers`, one for each way."""
    made = {name: {} for name in ("torch", "torch-compile", "jax")}
    for way, name in factories.items():
        made[way.partition("_")[0]][way.replace("_", "-")] = peer_choice.Peer(f"fake_peers:{name}", ())
    monkeypatch.setattr(peer_choice, "WAYS", made)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    return Bench(PEER_PLAN, threads=1)


@pytest.mark.parametrize(
    ("fake", "told"),
    [
        ("imports_what_is_missing", "ModuleNotFoundError: No module named 'no_such_framework'"),
        ("crashes_at_once", "its process was killed by SIGSEGV: about to crash"),
        ("crashes_in_mid_run", "its process was killed by SIGKILL, as where memory runs out"),
        ("raises_in_a_step", "RuntimeError: out of luck"),
    ],
)
def test_a_peer_that_fails_is_a_line_of_the_report(monkeypatch, fake, told):
    """It is not the end of the run, nor of the other peer."""
    bench = bench_with(monkeypatch, torch=fake, jax="agrees")
    bench.measure_speed(WORKLOAD, PRECISION)
    assert bench.records.failures == [("torch", f"failed ({WORKLOAD}, {PRECISION}): {told}")]
    assert set(by_subject(bench.records, measure="tokens/s")) == {"jax"}


def test_the_best_way_of_a_peer_counts(monkeypatch):
    """Its time is what its own process says."""
    bench = bench_with(monkeypatch, torch_slow="sleeps", torch_fast="agrees")
    bench.measure_speed(WORKLOAD, PRECISION)
    speeds = by_subject(bench.records, measure="tokens/s")
    ways = {each.measure: each.median for each in bench.records.get(subject="torch") if "as " in each.measure}
    assert set(speeds) == {"torch"}
    assert speeds["torch"] == ways["tokens/s, as fast"] > ways["tokens/s, as slow"]
    assert bench.records.failures == []


def test_a_peer_that_computes_another_thing_is_told(monkeypatch):
    bench = bench_with(monkeypatch, torch="agrees", jax="disagrees")
    with pytest.raises(agreement.DisagreementError, match="of jax"):
        bench.measure_speed(WORKLOAD, PRECISION)


def test_a_peer_stays_dead(monkeypatch):
    bench = bench_with(monkeypatch, torch="raises_in_a_step")
    peer = peer_choice.start(peer_choice.WAYS["torch"]["torch"], bench._setting(WORKLOAD, FEW, PRECISION))
    for _ in range(2):
        with pytest.raises(PeerError, match="out of luck"):
            peer.step(mixed_batch())
    assert peer._process.returncode == 0


def test_a_peer_holds_no_tensorflow():
    """Nor do the modules that it imports of ours."""
    modules = "efficiency.peers", "efficiency.peer_server", "efficiency.peer_inputs", "efficiency.naming"
    code = f"import sys, {', '.join(modules)}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXPERIMENTS), str(EXPERIMENTS.parent)])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_packed_rows_hold_every_piece_once():
    batch = mixed_batch()
    sides = packed.pack(batch, (8, 8))
    assert len({len(side.pieces) for side in sides}) == 1
    for side, field in zip(sides, batch.values(), strict=True):
        found = {}
        for at in zip(*np.nonzero(side.segments), strict=True):
            found.setdefault((at[0], side.segments[at]), []).append((int(side.positions[at]), int(side.pieces[at])))
        sentences = [found[key] for key in sorted(found)]
        assert [[place for place, _ in each] for each in sentences] == [list(range(n)) for n in field.lengths]
        assert [[piece for _, piece in each] for each in sentences] == [
            row[:length].tolist() for row, length in zip(field.values, field.lengths, strict=True)
        ]
    assert len(sides[0].pieces) == 7  # of nine sentences


def test_speed_on_some_cores():
    small = replace(plan.QUICK, subjects=("padded",), precisions=(PRECISION,), rounds=1, units=8)
    found = scaling.speeds_on(1, small)
    assert found.machine.cores == 1
    assert set(by_subject(found, measure="tokens/s")) == {"padded"}


def test_machines_stand_side_by_side(tmp_path):
    """The fastest in bold; a subject that was not measured is a dash."""
    other = replace(MACHINE, processor="Another", extensions=("AMX", "AVX-512"))
    for name, machine, speed in (("one", MACHINE, 900.0), ("other", other, 1100.0)):
        found = records.Records("lstm", machine)
        for subject, each in (("split", 1000.0), ("dynamic", speed)):
            found.add("multi30k", 6, PRECISION, subject, "tokens/s", each)
            found.add("multi30k", 6, PRECISION, subject, "speed of split over it", 1000.0 / each)
        found.fail("torch", "failed (multi30k, float32): its process was killed by SIGSEGV")
        found.save(tmp_path / name)
    lines = comparison.compare([tmp_path / "one", tmp_path / "other"]).splitlines()
    assert [line.split(" | ")[3:7] for line in lines[2:4]] == [
        ["A processor, AVX2, no AMX, 2 cores", "**1,000**", "-", "-"],
        ["Another, AVX-512, AMX, 2 cores", "1,000", "-", "-"],
    ]
    assert "**1,100**" in lines[3]
    assert f"- {MACHINE.text}" in lines
    assert sum("SIGSEGV" in line for line in lines) == 2


def test_a_file_without_a_machine_is_told(tmp_path):
    (tmp_path / "old.json").write_text("[]")
    with pytest.raises(ValueError, match="holds no records of a machine"):
        comparison.compare([tmp_path / "old.json"])
