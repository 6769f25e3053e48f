"""SplitModel against the unsplit joint graph, whatever the grouping; how often it traces and runs; other DAGs.

`Joint` is the independent reference: one plain `tf.function` with one ordinary `tf.GradientTape` over all callables, on
the whole batch padded to its longest row.
"""

from __future__ import annotations

import functools
import itertools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import seq2split as s2s
from seq2split.buckets import pad_rows
from seq2split.models import RecurrentDecoder, RecurrentEncoder
from seq2split.split import routing
from seq2split.split.sequences import Sequences
from seq2split.split.step import Step

SOURCES, TARGETS, BOS = 11, 9, 2
MEMORY, UNITS = 6, 4
# Every encoder (cell, directions, layers) and every decoder (cell, attention, layers) once.
CONFIGURATIONS = [
    {"cell": cell, "attention": attention, "bidirectional": both, "layers": layers}
    for cell in ("lstm", "gru")
    for attention, both, layers in [
        ("luong", False, 1),
        ("bahdanau", True, 1),
        ("bahdanau", False, 2),
        ("luong", True, 2),
    ]
]
# Lengths of source and target: three of the four bucket pairs, in no order, empty rows among them.
MIXED = ((3, 3), (1, 1), (0, 1), (2, 1), (1, 1), (3, 2), (1, 0))
POSITIONS = sum(target for _, target in MIXED)


def label(options):
    return "-".join(str(value) for value in options.values())


def randomize(variables):
    rng = np.random.default_rng(1)
    for variable in variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)


def make_layers(dtype="float64", *, cell="gru", attention="luong", bidirectional=False, layers=1, dropout=0.0):
    common = {"cell": cell, "layers": layers, "dropout": dropout, "dtype": dtype}
    encoder = RecurrentEncoder(SOURCES, 3, MEMORY, bidirectional=bidirectional, name="encoder", **common)
    decoder = RecurrentDecoder(TARGETS, MEMORY, BOS, 3, UNITS, attention=attention, name="decoder", **common)
    randomize(encoder.trainable_variables + decoder.trainable_variables)
    return encoder, decoder


def split(encoder, decoder, sources=(1, 3), targets=(1, 3), **options):
    return s2s.SplitModel(
        [
            s2s.Node(s2s.Part(encoder, name="encoder"), ["source"], s2s.Buckets(sources)),
            s2s.Node(s2s.Part(decoder, name="decoder"), ["encoder", "target"], s2s.Buckets(targets)),
        ],
        **options,
    )


def make_rows(lengths, vocabulary, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, [length]).tolist() for length in lengths]


def make_batch(pairs=MIXED):
    return {
        "source": make_rows([source for source, _ in pairs], SOURCES),
        "target": make_rows([target for _, target in pairs], TARGETS, seed=1),
    }


def take(batch, rows):
    return {field: [values[row] for row in rows] for field, values in batch.items()}


def sequences(rows, dtype=np.int32, time=None):
    lengths = np.array([len(row) for row in rows], np.int32)
    return Sequences(pad_rows(rows, time or int(lengths.max()), dtype), lengths)


class Joint:
    """The unsplit model.

    Args:
        fn: All parts at once: takes the fields as `Sequences` and returns a nest whose first leaf is the loss sum.
        variables: The variables of each part, by its name.
    """

    def __init__(self, fn, variables):
        self._fn, self._variables = fn, variables
        self._step = tf.function(self._run, autograph=False)

    def __call__(self, batch, positions):
        """The losses for a position, and the gradients by part."""
        fields = [each if isinstance(each, Sequences) else sequences(each) for each in batch]
        losses, gradients = self._step(*tf.nest.map_structure(tf.convert_to_tensor, fields))
        gradients = iter([None if each is None else each / positions for each in gradients])
        found = {name: [next(gradients) for _ in variables] for name, variables in self._variables.items()}
        return [loss / positions for loss in losses], found

    def _run(self, *fields):
        values = [
            variable.value if isinstance(variable, keras.Variable) else variable
            for variables in self._variables.values()
            for variable in variables
        ]
        with tf.GradientTape() as tape:
            tape.watch(values)
            losses = tf.nest.flatten(self._fn(*fields))
        dense = [each if each is None else tf.convert_to_tensor(each) for each in tape.gradient(losses[0], values)]
        return losses, dense


def joint_of(encoder, decoder):
    variables = {layer.name: layer.trainable_variables for layer in (encoder, decoder)}
    return Joint(lambda source, target: decoder(encoder(source, training=True), target, training=True), variables)


def dense(gradients):
    return {
        name: [None if each is None else tf.convert_to_tensor(each) for each in part]
        for name, part in gradients.items()
    }


def assert_close(found, expected, tolerance=1e-12, *, cancelling=False):
    """Losses and gradients, each relative to its largest entry.

    Where sums cancel in float32, the rounding of their terms is all that is left of a gradient: then relative to the
    largest entry of all.
    """
    for left, right in zip(tf.nest.flatten(found[0]), tf.nest.flatten(expected[0]), strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance)
    left, right = dense(found[1]), dense(expected[1])
    assert left.keys() == right.keys()
    largest = max(np.abs(each).max() for part in right.values() for each in part if each is not None)
    for name in right:
        for one, other in zip(left[name], right[name], strict=True):
            assert (one is None) == (other is None)
            if other is not None:
                scale = np.abs(other).max()
                assert scale > 0
                np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * (largest if cancelling else scale))


@functools.cache
def shared():
    """A small model in float64 for the properties of the grouping, built once."""
    encoder, decoder = make_layers(attention="bahdanau")
    return SimpleNamespace(encoder=encoder, decoder=decoder, model=split(encoder, decoder, (1, 3, 5), (1, 3, 4)))


# Equal to the joint graph


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=label)
def test_mixed_batch_equals_joint(options):
    encoder, decoder = make_layers(**options)
    found = split(encoder, decoder).loss_and_gradients(make_batch())
    expected = joint_of(encoder, decoder)(make_batch().values(), POSITIONS)
    assert_close(found, expected)


@pytest.mark.parametrize("options", [CONFIGURATIONS[1]], ids=label)
def test_mixed_batch_equals_joint_in_float32(options):
    encoder, decoder = make_layers("float32", **options)
    found = split(encoder, decoder).loss_and_gradients(make_batch())
    assert_close(found, joint_of(encoder, decoder)(make_batch().values(), POSITIONS), 1e-5, cancelling=True)


def test_mixed_batch_equals_homogeneous_batches():
    """Each weighted by its target positions."""
    batch, by_pair = make_batch(), {}
    for row, (source, target) in enumerate(MIXED):
        by_pair.setdefault((source > 1, target > 1), []).append(row)
    assert len(by_pair) == 3
    losses, gradients = 0.0, []
    for rows in by_pair.values():
        weight = sum(MIXED[row][1] for row in rows) / POSITIONS
        loss, found = shared().model.loss_and_gradients(take(batch, rows))
        losses += weight * np.array(loss)
        gradients.append({name: [each * weight for each in part] for name, part in dense(found).items()})
    total = {name: [sum(each) for each in zip(*[one[name] for one in gradients], strict=True)] for name in gradients[0]}
    assert_close((tuple(losses), total), shared().model.loss_and_gradients(batch))


def test_filler_rows_change_nothing():
    case = shared()
    padded = split(case.encoder, case.decoder, row_multiple=5)
    assert_close(padded.loss_and_gradients(make_batch()), case.model.loss_and_gradients(make_batch()))
    np.testing.assert_allclose(padded.losses(make_batch())[0], case.model.losses(make_batch())[0], rtol=1e-12)
    found, expected = (each.infer(make_batch(), "encoder") for each in (padded, case.model))
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-14)


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("threads", [2, 3, 50])
def test_threads_change_nothing(threads, multiple):
    case = shared()
    threaded = split(case.encoder, case.decoder, threads=threads, row_multiple=multiple)
    for pairs in (MIXED, [(3, 3)] * 5, [(2, 2)]):
        batch = make_batch(pairs)
        assert_close(threaded.loss_and_gradients(batch), case.model.loss_and_gradients(batch))
        np.testing.assert_allclose(threaded.losses(batch)[0], case.model.losses(batch)[0], rtol=1e-12)
        found, expected = (each.infer(batch, "encoder") for each in (threaded, case.model))
        for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-14)


def test_an_error_in_a_thread_is_raised():
    def fails(source):
        tf.debugging.assert_equal(source.values, 0)
        return source.values

    nodes = [
        s2s.Node(s2s.Part(fails, variables=[], name="fails"), ["source"], s2s.Buckets([3])),
        s2s.Node(s2s.Part(lambda x, y: tf.reduce_sum(x), variables=[], name="last"), ["fails", "y"], s2s.Buckets([3])),
    ]
    threaded = s2s.SplitModel(nodes, threads=2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        threaded.losses({"source": [[0], [1]], "y": [[1], [1]]})


def test_rows_are_rounded_up_to_the_multiple():
    case = shared()
    padded = split(case.encoder, case.decoder, row_multiple=4)
    groups = Step(padded, make_batch(), padded.nodes).groups
    assert {name: [group.size for group in each] for name, each in groups.items()} == {
        "encoder": [4, 4],
        "decoder": [8, 4],
    }


FORMS = {
    "lists": lambda rows: rows,
    "arrays": lambda rows: [np.array(row, np.int64) for row in rows],
    "sequences of arrays": sequences,
    "sequences of tensors": lambda rows: Sequences(*map(tf.constant, sequences(rows))),
    "wide sequences": lambda rows: sequences(rows, time=9),
    "int64 sequences": lambda rows: Sequences(sequences(rows).values.astype(np.int64), sequences(rows).lengths),
    "garbage in the padding": lambda rows: with_garbage(sequences(rows, time=5)),
}


def with_garbage(given):
    padding = np.arange(given.values.shape[1]) >= given.lengths[:, None]
    return Sequences(np.where(padding, -100, given.values), given.lengths)


@pytest.mark.parametrize("form", FORMS)
def test_form_of_the_batch(form):
    batch = {field: FORMS[form](rows) for field, rows in make_batch().items()}
    assert_close(shared().model.loss_and_gradients(batch), shared().model.loss_and_gradients(make_batch()))


def test_fields_that_no_part_reads_are_ignored():
    batch = make_batch() | {"names": ["x"]}
    assert_close(shared().model.loss_and_gradients(batch), shared().model.loss_and_gradients(make_batch()))


@pytest.mark.parametrize("seed", range(4))
def test_order_of_the_rows_changes_nothing(seed):
    order = np.random.default_rng(seed).permutation(len(MIXED))
    found = shared().model.loss_and_gradients(take(make_batch(), order))
    assert_close(found, shared().model.loss_and_gradients(make_batch()))


@pytest.mark.parametrize("kind", ["recurrent", "grid"])
@pytest.mark.parametrize("pair", [(1, 1), (2, 1), (0, 1), (3, 2)])
def test_a_pair_is_the_same_in_every_bucket(kind, pair):
    """Every source bucket that holds it × every target bucket that holds it, by hand."""
    case, batch = shared() if kind == "recurrent" else grid(), make_batch([pair])
    fitting = [
        [length for length in node.buckets.boundaries if length >= longest]
        for node, longest in zip(case.model.nodes.values(), pair, strict=True)
    ]
    found = [in_buckets(case.model, batch, *lengths) for lengths in itertools.product(*fitting)]
    assert len(found) >= 4
    for losses, gradients in found[1:]:
        if min(pair) > 1:
            assert_close((losses, gradients), found[0])
            continue
        # One piece or none: nothing reaches what reads the state before, and no gradient has a scale of its own.
        np.testing.assert_allclose(tf.nest.flatten(losses), tf.nest.flatten(found[0][0]), rtol=1e-12)
        for one, other in zip(*(tf.nest.flatten(dense(each)) for each in (gradients, found[0][1])), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
        assert pair[0] or not any(np.any(each) for each in dense(gradients)["encoder"])


def in_buckets(split_model, batch, source, target):
    """Losses and gradients of a batch in one bucket pair."""
    encoder, decoder = split_model.graph("encoder", source), split_model.graph("decoder", target)
    encoded, residuals = encoder.forward(sequences(batch["source"], time=source))
    losses, (encoded_ct, _), gradients = decoder.value_and_gradients(encoded, sequences(batch["target"], time=target))
    return losses, {"encoder": encoder.backward(residuals, encoded_ct)[1], "decoder": gradients}


# Traces and runs


class Tower(keras.Layer):
    """An encoder that is cheap to trace: embeddings, a dense layer, and a masked mean.

    The padded positions of its memory are not zero, so that whoever forgets a mask is caught.
    """

    def __init__(self, features=MEMORY, dtype="float64", name=None):
        super().__init__(dtype=dtype, name=name)
        self.table = self.add_weight(shape=(SOURCES, 3), name="table")
        self.kernel = self.add_weight(shape=(3, features), name="kernel")

    def call(self, source):
        values = tf.tanh(tf.gather(self.table.value, source.values) @ self.kernel.value + 0.5)
        memory = Sequences(values, source.lengths)
        return {"memory": memory, "mean": masked_mean(memory)}


def masked_mean(memory):
    """`[rows, features]`; zero for an empty row."""
    real = tf.sequence_mask(memory.lengths, tf.shape(memory.values)[1], memory.values.dtype)
    sums = tf.reduce_sum(memory.values * real[:, :, None], 1)
    return sums / tf.maximum(tf.reduce_sum(real, 1), 1.0)[:, None]


class Reader(keras.Layer):
    """A decoder that is cheap to trace: predicts pieces from the summaries of any number of encoders."""

    def __init__(self, features, dtype="float64", name=None):
        super().__init__(dtype=dtype, name=name)
        self.table = self.add_weight(shape=(TARGETS, features), name="table")
        self.kernel = self.add_weight(shape=(features, TARGETS), name="kernel")

    def call(self, *args):
        *encodeds, target = args
        read = tf.concat([tf.concat([masked_mean(each["memory"]), each["mean"]], 1) for each in encodeds], 1)
        previous = tf.pad(target.values[:, :-1], [[0, 0], [1, 0]])
        logits = tf.tanh(tf.gather(self.table.value, previous) + read[:, None]) @ self.kernel.value
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target.values, logits)
        real = tf.sequence_mask(target.lengths, tf.shape(target.values)[1], losses.dtype)
        return {"loss": tf.reduce_sum(losses * real), "squares": tf.reduce_sum(losses**2 * real)}


@functools.cache
def grid():
    """A model with six buckets on each side, and how often each pass of its encoder ran."""
    encoder, decoder = Tower(), Reader(2 * MEMORY)
    randomize(encoder.trainable_variables + decoder.trainable_variables)
    counts = SimpleNamespace(forward=tf.Variable(0, trainable=False), backward=tf.Variable(0, trainable=False))

    @tf.custom_gradient
    def counted(values):
        counts.forward.assign_add(1)

        def backward(values_ct):
            counts.backward.assign_add(1)
            return values_ct

        return tf.identity(values), backward

    def encode(source):
        encoded = encoder(source)
        return encoded | {"mean": counted(encoded["mean"])}

    part = s2s.Part(encode, name="encoder", variables=encoder.trainable_variables)
    nodes = [
        s2s.Node(part, ["source"], s2s.Buckets(range(1, 7))),
        s2s.Node(s2s.Part(decoder, name="decoder"), ["encoder", "target"], s2s.Buckets(range(1, 7))),
    ]
    return SimpleNamespace(nodes=nodes, counts=counts, model=s2s.SplitModel(nodes), encoder=encoder, decoder=decoder)


ALL_PAIRS = tuple(itertools.product(range(1, 7), range(1, 7)))


def test_a_grid_of_36_pairs_takes_12_part_graphs():
    case = grid()
    lazy, built = s2s.SplitModel(case.nodes), s2s.SplitModel(case.nodes)
    lazy.loss_and_gradients(make_batch(ALL_PAIRS[::5]))
    assert len(lazy.graphs) <= 12
    found = lazy.loss_and_gradients(make_batch(ALL_PAIRS))
    expected_graphs = {(part, length) for part in ("encoder", "decoder") for length in range(1, 7)}
    assert lazy.graphs.keys() == expected_graphs
    before = lazy.traces
    for rows in (range(36), range(35, -1, -1), range(0, 36, 7), [4]):
        lazy.loss_and_gradients(take(make_batch(ALL_PAIRS), rows))
    assert lazy.traces == before  # seen buckets trace nothing, whatever the rows

    built.build(progress=False)
    assert built.graphs.keys() == expected_graphs
    assert built.traces == before + 12  # they share their parts, which count the traces
    assert_close(built.loss_and_gradients(make_batch(ALL_PAIRS)), found)
    for pair in ALL_PAIRS:
        built.loss_and_gradients(make_batch([pair, (1, 1)]))
    built.build(progress=False)
    assert built.traces == before + 12
    assert built.graphs.keys() == expected_graphs


def test_grid_equals_joint():
    case = grid()
    variables = {"encoder": case.encoder.trainable_variables, "decoder": case.decoder.trainable_variables}
    joint = Joint(lambda source, target: case.decoder(case.encoder(source), target), variables)
    found = case.model.loss_and_gradients(make_batch(ALL_PAIRS))
    assert_close(found, joint(make_batch(ALL_PAIRS).values(), sum(target for _, target in ALL_PAIRS)))


def test_recurrent_models_trace_each_part_graph_once():
    built = split(*make_layers(attention="bahdanau"), sources=(1, 2), targets=(1, 2))
    built.build(progress=False)
    assert (len(built.graphs), built.traces) == (4, 4)
    built.loss_and_gradients(make_batch([(2, 1), (1, 2), (1, 1)]))
    assert built.traces == 4


def test_build_shows_its_progress(capsys):
    split(Tower(name="encoder"), Reader(2 * MEMORY, name="decoder"), sources=[2], targets=[2]).build()
    assert "2/2" in capsys.readouterr().err


def test_graph_is_the_part_graph_that_a_step_uses():
    case = grid()
    assert case.model.graph("encoder", 3) is case.model.graphs["encoder", 3]
    assert case.model.graph("encoder", 3).part is case.nodes[0].part
    assert case.model.graph("decoder", 3).input_specs[1].values.shape.as_list() == [None, 3]


@pytest.mark.parametrize("pairs", [ALL_PAIRS, [(1, 5), (1, 2), (1, 1)], [(3, 3)]])
def test_each_pass_runs_once_for_each_group(pairs):
    case, groups = grid(), len({source for source, _ in pairs})
    before = case.counts.forward.numpy(), case.counts.backward.numpy()
    case.model.loss_and_gradients(make_batch(pairs))
    assert case.counts.forward.numpy() - before[0] == groups
    assert case.counts.backward.numpy() - before[1] == groups


def test_no_residuals_are_left():
    case = grid()
    case.model.loss_and_gradients(make_batch(ALL_PAIRS))
    assert [graph.live_residuals for graph in case.model.graphs.values()] == [0] * len(case.model.graphs)


def refuse(monkeypatch, *operations):
    """Lets `carry` fail when it calls one of these operations of TensorFlow."""

    def failing(*args, **kwargs):
        raise AssertionError("carry moved rows")

    monkeypatch.setattr(
        routing, "tf", SimpleNamespace(**{**vars(tf), "nest": tf.nest, **dict.fromkeys(operations, failing)})
    )


def test_homogeneous_batch_moves_no_rows(monkeypatch):
    batch = make_batch([(5, 4), (5, 4), (5, 4)])
    expected = grid().model.loss_and_gradients(batch)
    refuse(monkeypatch, "gather", "concat", "pad", "zeros")
    assert_close(grid().model.loss_and_gradients(batch), expected)
    with pytest.raises(AssertionError, match="carry moved rows"):
        grid().model.loss_and_gradients(make_batch([(5, 4), (5, 4), (4, 4)]))


def test_mixed_batch_gathers_nothing(monkeypatch):
    """Between one encoder and one decoder the rows that travel together stand together."""
    expected = grid().model.loss_and_gradients(make_batch(ALL_PAIRS[::-1]))
    refuse(monkeypatch, "gather")
    assert_close(grid().model.loss_and_gradients(make_batch(ALL_PAIRS[::-1])), expected)


def test_gradients_stay_sparse():
    _, gradients = shared().model.loss_and_gradients(make_batch())
    for name, layer in (("encoder", shared().encoder), ("decoder", shared().decoder)):
        kinds = {
            variable.name: isinstance(each, tf.IndexedSlices)
            for variable, each in zip(layer.trainable_variables, gradients[name], strict=True)
        }
        assert [variable for variable, sparse in kinds.items() if sparse] == ["embeddings"]
        slices = gradients[name][list(kinds).index("embeddings")]
        assert slices.dense_shape.numpy().tolist() == list(layer.embeddings.shape)
    assert len(gradients["encoder"][0].indices) == 4 * 1 + 3 * 3  # four rows of one step, three of three


# Dropout and inference


@pytest.mark.parametrize("threads", [1, 2])
def test_dropout_can_be_repeated(threads):
    """Whatever the threads' order, the masks are those of the rows and the weights."""
    encoder, decoder = make_layers(dropout=0.4)
    dropping = split(encoder, decoder, threads=threads)
    first, expected = dropping.loss_and_gradients(make_batch())
    for _ in range(5):
        second, gradients = dropping.loss_and_gradients(make_batch())
        assert float(first[0]) == float(second[0])
        for one, other in zip(tf.nest.flatten(dense(expected)), tf.nest.flatten(dense(gradients)), strict=True):
            np.testing.assert_array_equal(one, other)
    decoder.output_projection.bias.assign_add(np.full(decoder.output_projection.bias.shape, 1e-6))
    assert abs(float(dropping.loss_and_gradients(make_batch())[0][0]) / float(first[0]) - 1) > 1e-4
    source, target = (sequences(rows) for rows in make_batch().values())
    plain = float(decoder(encoder(source), target)[0]) / POSITIONS
    assert float(dropping.losses(make_batch())[0]) == pytest.approx(plain, rel=1e-12)


def test_losses_are_those_of_training_without_dropout():
    found, (expected, _) = shared().model.losses(make_batch()), shared().model.loss_and_gradients(make_batch())
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12)


def test_infer_is_in_the_order_of_the_batch():
    """And needs no field that the part doesn't depend on."""
    case, batch = shared(), make_batch()
    for order in (range(len(MIXED)), [2, 0, 6, 5, 1, 4, 3]):
        chosen = take({"source": batch["source"]}, order)
        found = case.model.infer(chosen, "encoder")
        expected = case.encoder(sequences(chosen["source"]))
        real = tf.sequence_mask(expected.outputs.lengths, 3, tf.float64)[:, :, None]
        np.testing.assert_allclose(found.outputs.values * real, expected.outputs.values * real, atol=1e-13)
        np.testing.assert_array_equal(found.outputs.lengths, expected.outputs.lengths)
        np.testing.assert_allclose(found.summary, expected.summary, atol=1e-13)


def test_infer_pads_to_the_longest_bucket_that_occurs():
    for pairs, time in [([(1, 1)], 1), ([(1, 1), (3, 1)], 3)]:
        assert shared().model.infer(make_batch(pairs), "encoder").outputs.values.shape == (len(pairs), time, MEMORY)


# Other DAGs: what each part reads, and the joint callable


def tower(name):
    layer = Tower(name=name)
    randomize(layer.trainable_variables)
    return layer


def reader(count):
    layer = Reader(2 * MEMORY * count, name="reader")
    randomize(layer.trainable_variables)
    return layer


def bridge(name):
    """A part that reads no field: a plain function, whose variables are named."""
    kernel = tf.Variable(np.random.default_rng(7).normal(size=[MEMORY, MEMORY]) * 0.4)
    return bend(kernel), [kernel], name


def bend(kernel):
    def call(encoded):
        memory = Sequences(tf.sin(encoded["memory"].values @ kernel), encoded["memory"].lengths)
        return {"memory": memory, "mean": encoded["mean"] @ kernel}

    return call


class Second(tf.Module):
    """An encoder that reads another's outputs beside a field of its own."""

    def __init__(self):
        super().__init__("second")
        self.table = tf.Variable(np.random.default_rng(8).normal(size=[SOURCES, MEMORY]), name="table")

    def __call__(self, encoded, source):
        values = tf.tanh(tf.gather(self.table, source.values) + masked_mean(encoded["memory"])[:, None] + 0.2)
        return {"memory": Sequences(values, source.lengths), "mean": encoded["mean"] * masked_mean(encoded["memory"])}


def two_encoders():
    first, second, last = tower("first"), tower("second"), reader(2)
    nodes = [
        s2s.Node(s2s.Part(first), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(second), ["two"], s2s.Buckets([1, 3, 5])),
        s2s.Node(s2s.Part(last), ["first", "second", "target"], s2s.Buckets([2, 3])),
    ]
    layers = {"first": first, "second": second, "reader": last}
    return nodes, lambda one, two, target: last(first(one), second(two), target), layers, 2 + 3 + 2


def encoder_bridge_decoder():
    first, (middle, kernel, name), last = tower("first"), bridge("bridge"), reader(1)
    nodes = [
        s2s.Node(s2s.Part(first), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(middle, variables=kernel, name=name), ["first"]),
        s2s.Node(s2s.Part(last), ["bridge", "target"], s2s.Buckets([2, 3])),
    ]
    layers = {"first": first, "bridge": kernel, "reader": last}
    return nodes, lambda one, two, target: last(middle(first(one)), target), layers, 2 + 2 + 2


def read_twice():
    """The outputs of the encoder go to a bridge and to the decoder, and the bridge's twice to it."""
    first, (middle, kernel, name), last = tower("first"), bridge("bridge"), reader(3)
    nodes = [
        s2s.Node(s2s.Part(first), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(middle, variables=kernel, name=name), ["first"]),
        s2s.Node(s2s.Part(last), ["first", "bridge", "bridge", "target"], s2s.Buckets([2, 3])),
    ]

    def joint(one, two, target):
        encoded = first(one)
        return last(encoded, middle(encoded), middle(encoded), target)

    return nodes, joint, {"first": first, "bridge": kernel, "reader": last}, 2 + 2 + 2


def chain_of_fields():
    """Three groupings in a row, and one encoder read by the two others."""
    first, second, last = tower("first"), Second(), reader(2)
    nodes = [
        s2s.Node(s2s.Part(first), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(second, name="second"), ["first", "two"], s2s.Buckets([1, 3, 5])),
        s2s.Node(s2s.Part(last), ["second", "first", "target"], s2s.Buckets([2, 3])),
    ]

    def joint(one, two, target):
        encoded = first(one)
        return last(second(encoded, two), encoded, target)

    return nodes, joint, {"first": first, "second": second, "reader": last}, 2 + 3 + 2


def one_field_twice():
    """Two encoders of the same field, each in its own buckets."""
    first, second, last = tower("first"), tower("second"), reader(2)
    nodes = [
        s2s.Node(s2s.Part(first), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(second), ["one"], s2s.Buckets([1, 3, 4])),
        s2s.Node(s2s.Part(last), ["first", "second", "target"], s2s.Buckets([2, 3])),
    ]
    layers = {"first": first, "second": second, "reader": last}
    return nodes, lambda one, two, target: last(first(one), second(one), target), layers, 2 + 3 + 2


DAGS = [two_encoders, encoder_bridge_decoder, read_twice, chain_of_fields, one_field_twice]
TRIPLES = ((4, 1, 3), (1, 5, 1), (0, 2, 2), (3, 3, 1), (2, 1, 3), (2, 4, 2), (1, 0, 2), (3, 5, 3))


def dag_batch():
    lengths = zip(*TRIPLES, strict=True)
    vocabularies = {"one": SOURCES, "two": SOURCES, "target": TARGETS}
    fields = zip(vocabularies.items(), lengths, strict=True)
    return {name: make_rows(each, vocabulary, seed=len(name)) for (name, vocabulary), each in fields}


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("make", DAGS)
def test_dag_equals_joint(make, multiple):
    nodes, fn, layers, graphs = make()
    variables = {name: getattr(layer, "trainable_variables", layer) for name, layer in layers.items()}
    dag = s2s.SplitModel(nodes, row_multiple=multiple)
    expected = Joint(fn, variables)(dag_batch().values(), sum(target for *_, target in TRIPLES))
    found = dag.loss_and_gradients(dag_batch())
    assert list(found[1]) == [node.name for node in nodes]
    assert_close(found, (dict(zip(found[0], expected[0], strict=True)), expected[1]))
    assert len(dag.graphs) == graphs
    before = dag.traces
    dag.loss_and_gradients(take(dag_batch(), range(7, -1, -1)))
    assert dag.traces == before
    np.testing.assert_allclose(dag.losses(dag_batch())["loss"], expected[0][0], rtol=1e-12)


@pytest.mark.parametrize("make", DAGS)
def test_dag_runs_each_forward_once_for_each_group(make):
    """By a side effect inside each part; of a part without a field the groups are those of the first that it reads."""
    nodes, *_ = make()
    counters = {node.name: tf.Variable(0, trainable=False) for node in nodes}
    for node in nodes:
        node.part.fn = counted(node.part.fn, counters[node.name])
    s2s.SplitModel(nodes).loss_and_gradients(dag_batch())
    lengths = dict(zip(("one", "two", "target"), zip(*TRIPLES, strict=True), strict=True))
    groups = {}
    for node in nodes:
        own = node.reads[-1] if node.buckets else None
        groups[node.name] = len(set(node.buckets.assign(lengths[own]))) if own else groups[node.reads[0]]
    assert {name: int(counter) for name, counter in counters.items()} == groups


def counted(fn, counter):
    def call(*args, **options):
        counter.assign_add(1)
        return fn(*args, **options)

    return call


@pytest.mark.parametrize("make", [encoder_bridge_decoder, chain_of_fields])
def test_dag_infers_a_part_in_the_middle(make):
    nodes, _, layers, _ = make()
    dag = s2s.SplitModel(nodes, row_multiple=3)
    name = nodes[1].name
    found = dag.infer(dag_batch(), name)
    encoded = layers["first"](sequences(dag_batch()["one"]))
    expected = (
        nodes[1].part.fn(encoded) if name == "bridge" else layers["second"](encoded, sequences(dag_batch()["two"]))
    )
    np.testing.assert_allclose(found["mean"], expected["mean"], atol=1e-13)
    real = tf.sequence_mask(expected["memory"].lengths, expected["memory"].values.shape[1], tf.float64)[:, :, None]
    np.testing.assert_allclose(found["memory"].values * real, expected["memory"].values * real, atol=1e-13)


@pytest.mark.parametrize("make", DAGS)
def test_dag_builds_ahead(make):
    nodes, _, _, graphs = make()
    dag = s2s.SplitModel(nodes)
    dag.build(progress=False)
    before = dag.traces
    dag.loss_and_gradients(dag_batch())
    assert dag.traces == before
    assert len(dag.graphs) == graphs


class Embedder(tf.Module):
    """An encoder whose embeddings a decoder may share."""

    def __init__(self):
        super().__init__("embedder")
        self.table = tf.Variable(np.random.default_rng(9).normal(size=[SOURCES, MEMORY]), name="table")

    def encode(self, source):
        values = tf.tanh(tf.gather(self.table, source.values))
        return {"memory": Sequences(values, source.lengths), "mean": masked_mean(Sequences(values, source.lengths))}

    def decode(self, encoded, target):
        """A sum over the target's positions in which the embeddings are multiplied, so that their gradient is dense."""
        scores = tf.einsum("rf,vf->rv", encoded["mean"] + masked_mean(encoded["memory"]), self.table)
        losses = tf.reduce_logsumexp(scores, axis=1)[:, None] - tf.gather(scores, target.values % SOURCES, batch_dims=1)
        return tf.reduce_sum(losses * tf.sequence_mask(target.lengths, losses.shape[1], losses.dtype))


def test_a_variable_of_two_parts_gets_one_summed_gradient():
    """Tied embeddings: sparse in the encoder, dense in the decoder, and in two decoders besides."""
    tied, last = Embedder(), Embedder()
    last.table = tied.table
    nodes = [
        s2s.Node(s2s.Part(tied.encode, variables=[tied.table], name="encoder"), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(
            s2s.Part(tied.decode, variables=[tied.table], name="decoder"), ["encoder", "target"], s2s.Buckets([2, 3])
        ),
        s2s.Node(s2s.Part(last.decode, variables=[last.table], name="other"), ["encoder", "two"], s2s.Buckets([5])),
    ]
    batch, counts = dag_batch(), [sum(lengths) for lengths in zip(*TRIPLES, strict=True)]
    with tf.GradientTape() as tape:
        encoded = tied.encode(sequences(batch["one"]))
        means = [
            tied.decode(encoded, sequences(batch["target"])) / counts[2],
            last.decode(encoded, sequences(batch["two"])) / counts[1],
        ]
        loss = tf.add_n(means)
    expected = tf.convert_to_tensor(tape.gradient(loss, tied.table))
    found, gradients = s2s.SplitModel(nodes).loss_and_gradients(batch)
    np.testing.assert_allclose([found["decoder"], found["other"]], means, rtol=1e-12)
    assert {name: len(each) for name, each in gradients.items()} == {"encoder": 1, "decoder": 1, "other": 1}
    assert gradients["decoder"] == gradients["other"] == [None]
    np.testing.assert_allclose(tf.convert_to_tensor(gradients["encoder"][0]), expected, atol=1e-12)
    _, gradients = s2s.SplitModel(nodes).loss_and_gradients(batch, frozen=["encoder"])
    assert gradients["encoder"] == gradients["other"] == [None]
    assert gradients["decoder"][0] is not None


@pytest.mark.parametrize("multiple", [1, 4])
def test_one_encoder_feeds_two_decoders(multiple):
    """Their cotangents add up; each loss is a mean over the positions of its own field."""
    first, one, two = tower("first"), reader(1), Reader(2 * MEMORY, name="second_reader")
    randomize(two.trainable_variables)
    nodes = [
        s2s.Node(s2s.Part(first), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(one), ["first", "target"], s2s.Buckets([2, 3])),
        s2s.Node(s2s.Part(two), ["first", "two"], s2s.Buckets([1, 3, 5])),
    ]
    dag = s2s.SplitModel(nodes, row_multiple=multiple)
    batch, counts = dag_batch(), [sum(lengths) for lengths in zip(*TRIPLES, strict=True)]
    batch["two"] = [[piece % TARGETS for piece in row] for row in batch["two"]]
    layers = {"first": first, "reader": one, "second_reader": two}
    sources = {name: layer.trainable_variables for name, layer in layers.items()}
    with tf.GradientTape() as tape:
        encoded = first(sequences(batch["one"]))
        losses = {
            "reader": one(encoded, sequences(batch["target"]))["loss"] / counts[2],
            "second_reader": two(encoded, sequences(batch["two"]))["loss"] / counts[1],
        }
        total = tf.add_n(list(losses.values()))
    expected = dict(zip(sources, tape.gradient(total, list(sources.values())), strict=True))
    means, gradients = dag.loss_and_gradients(batch)
    assert_close(({name: each["loss"] for name, each in means.items()}, gradients), (losses, expected))
    assert len(dag.graphs) == 2 + 2 + 3
    evaluated = dag.losses(batch)
    np.testing.assert_allclose([evaluated[name]["loss"] for name in losses], list(losses.values()), rtol=1e-12)


def test_frozen_parts_have_no_gradients_and_those_behind_them_run_no_backward(monkeypatch):
    nodes, _, _, _ = chain_of_fields()
    dag = s2s.SplitModel(nodes)
    _, expected = dag.loss_and_gradients(dag_batch())
    ran = []
    backward = s2s.PartGraph.backward
    monkeypatch.setattr(
        s2s.PartGraph, "backward", lambda graph, *args: ran.append(graph.part.name) or backward(graph, *args)
    )
    for frozen, needed in {
        ("first",): {"second"},
        ("second",): {"first", "second"},
        ("first", "second"): set(),
    }.items():
        ran.clear()
        _, gradients = dag.loss_and_gradients(dag_batch(), frozen=frozen)
        assert set(ran) == needed
        for name, each in dense(gradients).items():
            assert len(each) == len(expected[name])
            for one, other in zip(each, dense(expected)[name], strict=True):
                assert one is None if name in frozen else np.array_equal(one, other)
    assert all(graph.live_residuals == 0 for graph in dag.graphs.values())
    with pytest.raises(ValueError, match=r"no parts \['frist'\] to freeze; the parts are \['first'"):
        dag.loss_and_gradients(dag_batch(), frozen=["frist"])


def test_an_unread_part_is_said_to_be_taken_for_the_loss():
    nodes = [
        s2s.Node(s2s.Part(tower("first")), ["one"], s2s.Buckets([2, 4])),
        s2s.Node(s2s.Part(tower("second")), ["two"], s2s.Buckets([5])),
        s2s.Node(s2s.Part(reader(1)), ["first", "target"], s2s.Buckets([3])),
    ]
    with pytest.raises(ValueError, match="scalar loss") as caught:
        s2s.SplitModel(nodes).loss_and_gradients(dag_batch())
    assert "no part reads the outputs of 'second'" in caught.value.__notes__[-1]


def test_float_features():
    """Audio: rows of `[time, 3]`."""
    kernel = tf.Variable(np.random.default_rng(4).normal(size=[3, MEMORY]).astype(np.float32))

    def listen(audio):
        memory = Sequences(tf.tanh(audio.values @ kernel + 0.3), audio.lengths)
        return {"memory": memory, "mean": masked_mean(memory)}

    last = Reader(2 * MEMORY, dtype="float32", name="reader")
    nodes = [
        s2s.Node(s2s.Part(listen, variables=[kernel]), ["audio"], s2s.Buckets([2, 6])),
        s2s.Node(s2s.Part(last), ["listen", "target"], s2s.Buckets([2, 3])),
    ]
    hearing = s2s.SplitModel(nodes, fields={"audio": tf.TensorSpec([3], tf.float32)}, row_multiple=2)
    rng = np.random.default_rng(5)
    audio = [rng.normal(size=[time, 3]) for time in (6, 1, 0, 5, 2)]
    target = make_rows([3, 1, 2, 2, 3], TARGETS)
    padded = sequences(audio, np.float32)
    joint = Joint(lambda a, t: last(listen(a), t), {"listen": [kernel], "reader": last.trainable_variables})
    losses, gradients = joint([padded, target], 11)
    for given in (audio, padded, Sequences(padded.values.astype(np.float64), padded.lengths)):
        found = hearing.loss_and_gradients({"audio": given, "target": target})
        assert_close(found, (dict(zip(found[0], losses, strict=True)), gradients), 1e-5)


def test_a_path_that_one_bucket_lacks_counts_as_zeros():
    """The decoder of the short bucket doesn't read the encoder: its cotangents are None there, and there alone."""
    first, last = tower("first"), reader(1)

    def read(encoded, target):
        if target.values.shape[1] == 1:
            encoded = tf.nest.map_structure(tf.zeros_like, encoded)
            encoded = tf.nest.map_structure(tf.stop_gradient, encoded)
        return last(encoded, target)

    nodes = [
        s2s.Node(s2s.Part(first), ["source"], s2s.Buckets([4])),
        s2s.Node(s2s.Part(read, variables=last.trainable_variables), ["first", "target"], s2s.Buckets([1, 3])),
    ]
    partial = s2s.SplitModel(nodes)
    batch = make_batch([(2, 1), (4, 3), (3, 1), (1, 2)])
    (_, gradients), (_, expected) = (partial.loss_and_gradients(each) for each in (batch, take(batch, [1, 3])))
    for found, alone in zip(dense(gradients)["first"], dense(expected)["first"], strict=True):
        np.testing.assert_allclose(found * 7, alone * 5, atol=1e-12)


# Errors


def node(name, reads, buckets=None):
    return s2s.Node(s2s.Part(lambda *args: args[0], name=name, variables=[]), reads, buckets)


SHORT = s2s.Buckets([2])
LAST = node("last", ["first", "target"], SHORT)
WIRINGS = {
    "two fields": ([node("first", ["one", "two"], SHORT), LAST], r"'first' reads \['one', 'two'\].*at most one field"),
    "no buckets": (
        [node("first", ["one"]), LAST],
        r"'first' reads.*\['one'\] are batch fields, and its buckets are None",
    ),
    "buckets alone": ([node("first", ["one"], SHORT), node("last", ["first"], SHORT)], r"has buckets if it reads one"),
    "later part": (
        [node("middle", ["first"]), node("first", ["one"], SHORT), node("last", ["middle", "first", "target"], SHORT)],
        r"part 'middle' reads \['first'\].*stand before it: \[\]",
    ),
    "itself": ([node("first", ["first"]), LAST], r"part 'first' reads \['first'\]"),
    "nothing": ([node("first", []), LAST], r"part 'first' reads nothing"),
    "unread": (
        [node("first", ["one"], SHORT), node("other", ["first"]), LAST],
        r"no part reads the outputs of 'other', so that it holds a loss",
    ),
    "no last field": (
        [node("first", ["one"], SHORT), node("last", ["first"])],
        r"outputs of 'last', so that it holds a loss, but it reads no batch field",
    ),
    "one name twice": ([node("first", ["one"], SHORT), node("first", ["two"], SHORT), LAST], r"'first'.*name"),
    "no parts": ([], r"no parts|at least one"),
}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_wiring_errors(wiring):
    nodes, message = WIRINGS[wiring]
    with pytest.raises(ValueError, match=message):
        s2s.SplitModel(nodes)


BATCHES = {
    "missing field": ({"source": [[1]]}, r"has the fields \['source'\]; the model reads \['target'\]"),
    "differing rows": ({"source": [[1]], "target": [[1], [2]]}, r"\{'source': 1, 'target': 2\} rows"),
    "no rows": ({"source": [], "target": []}, r"one or more"),
    "floats for integers": ({"source": [[0.5]], "target": [[1]]}, r"'source' can't be read as int32 positions"),
    "float array": (
        {"source": Sequences(np.ones([1, 2]), np.array([1])), "target": [[1]]},
        r"'source' can't be read as int32 positions.*fields=",
    ),
    "long lengths": (
        {"source": Sequences(np.ones([1, 2], int), np.array([3])), "target": [[1]]},
        r"'source' has values \[1, 2\].*no length above the time",
    ),
    "lengths of other rows": (
        {"source": Sequences(np.ones([1, 2], int), np.array([1, 1])), "target": [[1]]},
        r"'source' has values \[1, 2\] and lengths \[2\]",
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batch_errors(name):
    batch, message = BATCHES[name]
    for call in (shared().model.loss_and_gradients, shared().model.losses):
        with pytest.raises(ValueError, match=message):
            call(batch)


@pytest.mark.parametrize("field", ["source", "target"])
def test_overlong_row_is_named(field):
    batch = {"source": [[1]], "target": [[1]]} | {field: [[1] * 7]}
    with pytest.raises(s2s.OverlongError, match="longest is 7") as caught:
        shared().model.loss_and_gradients(batch)
    reading = {"source": "encoder", "target": "decoder"}[field]
    assert f"in batch field {field!r}, which part {reading!r} reads" in caught.value.__notes__


@pytest.mark.parametrize("name", ["decoder", "other"])
def test_infer_names_the_parts_that_it_takes(name):
    """The last part has losses, not rows; another isn't known."""
    with pytest.raises(ValueError, match=rf"'{name}'.*\['encoder'\]"):
        shared().model.infer(make_batch(), name)


@pytest.mark.parametrize(
    "values",
    [
        lambda x: tf.reduce_sum(x),
        lambda x: Sequences(x[:, 0, 0], tf.zeros([2])),
        lambda x: (x, None),
    ],
)
def test_what_crosses_has_rows(values):
    def first(audio):
        return values(audio.values)

    nodes = [s2s.Node(s2s.Part(first, variables=[]), ["audio"], SHORT), LAST]
    crossing = s2s.SplitModel(nodes, fields={"audio": tf.TensorSpec([3], tf.float32)})
    with pytest.raises(ValueError, match=r"part 'first' hands over (float32|None).*rows as its first axis"):
        crossing.loss_and_gradients({"audio": [np.ones([2, 3])] * 2, "target": [[1], [1]]})
