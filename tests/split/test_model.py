"""SplitModel against the unsplit joint graph, whatever the grouping and the wiring; inference."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from split_dags import DAGS, TRIPLES, Embedder, chain_of_fields, dag_batch, encoder_bridge_decoder, reader, tower
from split_models import (
    ALL_PAIRS,
    FEATURES,
    MIXED,
    POSITIONS,
    TARGETS,
    Joint,
    Reader,
    assert_close,
    dense,
    figures,
    grid,
    joint_of,
    make_batch,
    make_layers,
    randomize,
    sequences,
    shared,
    split,
    take,
)
from tiny_models import make_model, make_rows

import seq2split as s2s

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


def label(options):
    return "-".join(str(value) for value in options.values())


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


@pytest.mark.parametrize("options", CONFIGURATIONS[1:5:3], ids=label)
@pytest.mark.parametrize("save", ["needed", "inputs", "products"])
def test_a_split_model_in_loops_equals_a_joint_one_without(options, save):
    encoder, decoder = make_layers(**options, unroll=False)
    model = split(s2s.Part(encoder, save=save, name="encoder"), decoder)
    assert_close(
        model.loss_and_gradients(make_batch()),
        joint_of(*make_layers(**options, unroll=True))(make_batch().values(), POSITIONS),
    )
    if save == "inputs":  # nothing of what its loops write to is kept
        kept = model.graphs["encoder", 3].residual_specs
        assert {each.kind for each in kept if f"/{options['cell']}_" in each.name} == {"variable"}


def test_mixed_batch_equals_homogeneous_batches():
    """Each weighted by its target positions."""
    batch, by_pair = make_batch(), {}
    for row, (source, target) in enumerate(MIXED):
        by_pair.setdefault((source > 1, target > 1), []).append(row)
    assert len(by_pair) == 3
    losses, gradients = 0.0, []
    for rows in by_pair.values():
        weight = sum(MIXED[row][1] for row in rows) / POSITIONS
        found = shared().model.loss_and_gradients(take(batch, rows))
        losses += weight * np.array(figures(found))
        gradients.append({name: [each * weight for each in part] for name, part in dense(found.gradients).items()})
    total = {name: [sum(each) for each in zip(*[one[name] for one in gradients], strict=True)] for name in gradients[0]}
    assert_close((losses, total), shared().model.loss_and_gradients(batch))


def test_filler_rows_change_nothing():
    case = shared()
    padded = split(case.encoder, case.decoder, row_multiple=5)
    assert_close(padded.loss_and_gradients(make_batch()), case.model.loss_and_gradients(make_batch()))
    np.testing.assert_allclose(*(figures(each.losses(make_batch())) for each in (padded, case.model)), rtol=1e-12)
    found, expected = (each.infer(make_batch(), "encoder") for each in (padded, case.model))
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-14)


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"jit_compile": True, "rows": 4}], ids=label)
def test_rows_that_go_up_to_a_longer_bucket_change_nothing(options):
    case = shared()
    merged = split(case.encoder, case.decoder, group_overhead=100, **options)
    assert_close(merged.loss_and_gradients(make_batch()), case.model.loss_and_gradients(make_batch()))
    assert len(merged.graphs) == 2, "one bucket of each part ran, the longest of the batch"
    np.testing.assert_allclose(*(figures(each.losses(make_batch())) for each in (merged, case.model)), rtol=1e-12)


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("threads", [2, 3, 50])
def test_threads_change_nothing(threads, multiple):
    case = shared()
    threaded = split(case.encoder, case.decoder, threads=threads, row_multiple=multiple)
    for pairs in (MIXED, [(3, 3)] * 5, [(2, 2)]):
        batch = make_batch(pairs)
        assert_close(threaded.loss_and_gradients(batch), case.model.loss_and_gradients(batch))
        np.testing.assert_allclose(*(figures(each.losses(batch)) for each in (threaded, case.model)), rtol=1e-12)
        found, expected = (each.infer(batch, "encoder") for each in (threaded, case.model))
        for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-14)


def test_an_error_in_a_thread_is_raised():
    def fails(source):
        tf.debugging.assert_equal(source.values, 0)
        return source.values

    nodes = [
        s2s.Node(fails, "source", s2s.Buckets([3])),
        s2s.Node(lambda x, y: tf.reduce_sum(x), ["fails", "y"], s2s.Buckets([3]), loss=True),
    ]
    threaded = s2s.SplitModel(nodes, threads=2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        threaded.losses({"source": [[0], [1]], "y": [[1], [1]]})


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
    case.model.build(progress=False)
    fitting = [
        [length for length in part.buckets.boundaries if length >= longest]
        for part, longest in zip(case.model.parts.values(), pair, strict=True)
    ]
    found = [in_buckets(case.model, batch, *lengths) for lengths in itertools.product(*fitting)]
    assert len(found) >= 4
    for losses, gradients in found[1:]:
        if min(pair) > 1:
            assert_close((losses, gradients), found[0])
            continue
        # One piece or none: nothing reaches what reads the state before, and no gradient has a scale of its own.
        np.testing.assert_allclose(losses, found[0][0], rtol=1e-12)
        for one, other in zip(*(tf.nest.flatten(dense(each)) for each in (gradients, found[0][1])), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
        assert pair[0] or not any(np.any(each) for each in dense(gradients)["encoder"])


def in_buckets(split_model, batch, source, target):
    """Return the losses and the gradients of a batch in one bucket pair."""
    encoder, decoder = split_model.graphs["encoder", source], split_model.graphs["decoder", target]
    encoded, residuals = encoder.forward(sequences(batch["source"], time=source))
    losses, (encoded_ct, _), gradients = decoder.value_and_gradients(encoded, sequences(batch["target"], time=target))
    _, encoder_gradients = encoder.backward(residuals, encoded_ct)
    return tf.nest.flatten(losses), {"encoder": encoder_gradients, "decoder": gradients}


def test_grid_equals_joint():
    case = grid()
    variables = {"encoder": case.encoder.trainable_variables, "decoder": case.decoder.trainable_variables}
    joint = Joint(lambda source, target: case.decoder(case.encoder(source), target), variables)
    found = case.model.loss_and_gradients(make_batch(ALL_PAIRS))
    assert_close(found, joint(make_batch(ALL_PAIRS).values(), sum(target for _, target in ALL_PAIRS)))


# Dropout and inference


@pytest.mark.parametrize("threads", [1, 2])
def test_dropout_can_be_repeated(threads):
    """Whatever the threads' order, the masks are those of the rows and the weights."""
    encoder, decoder = make_layers(dropout=0.4)
    dropping = split(encoder, decoder, threads=threads)
    first, expected = dropping.loss_and_gradients(make_batch())
    for _ in range(5):
        second, gradients = dropping.loss_and_gradients(make_batch())
        assert float(first) == float(second)
        for one, other in zip(tf.nest.flatten(dense(expected)), tf.nest.flatten(dense(gradients)), strict=True):
            np.testing.assert_array_equal(one, other)
    for variable in decoder.trainable_variables:
        variable.assign(variable + 1e-6)
    assert abs(float(dropping.loss_and_gradients(make_batch()).loss) / float(first) - 1) > 1e-4
    source, target = (sequences(rows) for rows in make_batch().values())
    plain = float(decoder(encoder(source), target)[0]) / POSITIONS
    assert float(dropping.losses(make_batch()).loss) == pytest.approx(plain, rel=1e-12)


def test_losses_are_those_of_training_without_dropout():
    found, expected = shared().model.losses(make_batch()), shared().model.loss_and_gradients(make_batch())
    np.testing.assert_allclose(figures(found), figures(expected), rtol=1e-12)
    assert found.weights == expected.weights == {"decoder": POSITIONS}


def test_infer_is_in_the_order_of_the_batch():
    """And needs no field that the part doesn't depend on."""
    case, batch = shared(), make_batch()
    for order in (range(len(MIXED)), [2, 0, 6, 5, 1, 4, 3]):
        chosen = take({"source": batch["source"]}, order)
        states, summary = case.model.infer(chosen, "encoder")
        expected, expected_summary = case.encoder(sequences(chosen["source"]))
        real = tf.sequence_mask(expected.lengths, 3, tf.float64)[:, :, None]
        np.testing.assert_allclose(states.values * real, expected.values * real, atol=1e-13)
        np.testing.assert_array_equal(states.lengths, expected.lengths)
        np.testing.assert_allclose(summary, expected_summary, atol=1e-13)


def test_infer_pads_to_the_longest_bucket_that_occurs():
    for pairs, time in [([(1, 1)], 1), ([(1, 1), (3, 1)], 3)]:
        states, _ = shared().model.infer(make_batch(pairs), "encoder")
        assert states.values.shape == (len(pairs), time, FEATURES)


# Several parts


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("make", DAGS)
def test_dag_equals_joint(make, multiple):
    case = make()
    dag = s2s.SplitModel(case.nodes, row_multiple=multiple)
    expected = Joint(case.joint, case.variables)(dag_batch().values(), sum(target for *_, target in TRIPLES))
    found = dag.loss_and_gradients(dag_batch())
    assert list(found.gradients) == [node.name for node in case.nodes]
    assert_close(found, expected)
    assert len(dag.graphs) == case.graphs
    before = dag.traces
    dag.loss_and_gradients(take(dag_batch(), range(7, -1, -1)))
    assert dag.traces == before
    np.testing.assert_allclose(figures(dag.losses(dag_batch())), expected[0], rtol=1e-12)


@pytest.mark.parametrize("make", [encoder_bridge_decoder, chain_of_fields])
def test_dag_infers_a_part_in_the_middle(make):
    nodes, _, layers, _ = make()
    dag = s2s.SplitModel(nodes, row_multiple=3)
    fn, fields = nodes[1].part.fn, nodes[1].reads[1:]
    found = dag.infer(dag_batch(), nodes[1].name)
    encoded = layers["first"](sequences(dag_batch()["one"]))
    expected = fn(encoded, *(sequences(dag_batch()[field]) for field in fields))
    np.testing.assert_allclose(found["mean"], expected["mean"], atol=1e-13)
    real = tf.sequence_mask(expected["states"].lengths, expected["states"].values.shape[1], tf.float64)[:, :, None]
    np.testing.assert_allclose(found["states"].values * real, expected["states"].values * real, atol=1e-13)


@pytest.mark.parametrize("multiple", [1, 4])
def test_one_encoder_feeds_two_decoders(multiple):
    """Their cotangents add up; each loss is a mean over the positions of its own field, and they are summed."""
    first, one, two = tower("first"), reader(1), Reader(2 * FEATURES, name="second_reader")
    randomize(two.trainable_variables)
    nodes = [
        s2s.Node(first, "one", s2s.Buckets([2, 4])),
        s2s.Node(one, ["first", "target"], s2s.Buckets([2, 3]), loss=True),
        s2s.Node(two, ["first", "two"], s2s.Buckets([1, 3, 5]), loss=True),
    ]
    dag = s2s.SplitModel(nodes, row_multiple=multiple)
    batch, counts = dag_batch(), [sum(lengths) for lengths in zip(*TRIPLES, strict=True)]
    batch["two"] = [[piece % TARGETS for piece in row] for row in batch["two"]]
    layers = {"first": first, "reader": one, "second_reader": two}
    sources = {name: layer.trainable_variables for name, layer in layers.items()}
    with tf.GradientTape() as tape:
        encoded = first(sequences(batch["one"]))
        means = [
            *(each / counts[2] for each in one(encoded, sequences(batch["target"]))),
            *(each / counts[1] for each in two(encoded, sequences(batch["two"]))),
        ]
        total = means[0] + means[2]
    expected = dict(zip(sources, tape.gradient(total, list(sources.values())), strict=True))
    found = dag.loss_and_gradients(batch)
    assert_close(found, ([total, *means], expected))
    assert list(found.metrics) == ["reader/loss", "reader/squares", "second_reader/loss", "second_reader/squares"]
    assert found.weights == dag.weights(batch) == {"reader": counts[2], "second_reader": counts[1]}
    assert len(dag.graphs) == 2 + 2 + 3
    np.testing.assert_allclose(figures(dag.losses(batch)), [total, *means], rtol=1e-12)


# A tape around it


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", ["loss_and_gradients", "losses", "infer"])
def test_a_tape_around_a_model_returns_no_wrong_gradient(call, threads):
    """Not through the loss, what is inferred or a gradient, whether or not other threads ran the parts."""
    model, batch = make_model(threads=threads), make_rows(4)
    weight = model.trainable_variables[0].value
    with tf.GradientTape() as tape:
        if call == "infer":
            total = tf.reduce_sum(model.infer(batch, "encoder").values)
        else:
            total = getattr(model, call)(batch).loss
        total += tf.reduce_sum(weight**2)
    with pytest.raises(LookupError, match="was called while a gradient tape was recording"):
        tape.gradient(total, weight)


def test_gradients_under_a_tape_are_the_same():
    model, batch = make_model(threads=2), make_rows(4)
    expected = model.loss_and_gradients(batch)
    with tf.GradientTape() as tape:
        found = model.loss_and_gradients(batch)
        total = tf.add_n([tf.reduce_sum(tf.convert_to_tensor(each)) for each in found.gradients["encoder"]])
    tf.nest.map_structure(tf.debugging.assert_equal, tuple(found), tuple(expected), expand_composites=True)
    with pytest.raises(LookupError):
        tape.gradient(total, model.trainable_variables[0].value)


# What a model tells of itself


def test_parts_tell_how_they_are_wired():
    parts = s2s.SplitModel(chain_of_fields().nodes).parts
    assert {name: part.reads for name, part in parts.items()} == {
        "first": ("one",),
        "second": ("first", "two"),
        "reader": ("second", "first", "target"),
    }
    assert [name for name, part in parts.items() if part.loss] == ["reader"]
    assert parts["second"].buckets.boundaries == (1, 3, 5)


def chain_of_fields_model():
    return s2s.SplitModel(chain_of_fields().nodes)


class Encode(keras.Layer):
    """An encoder whose layer is built when it is first called."""

    def __init__(self):
        super().__init__()
        self.project = keras.layers.Dense(3)

    def call(self, source):
        return s2s.Sequences(self.project(tf.one_hot(source.values, 5)), source.lengths)


class Decode(keras.Layer):
    """A decoder likewise."""

    def __init__(self):
        super().__init__()
        self.score = keras.layers.Dense(1)

    def call(self, encoded, target):
        return tf.reduce_sum(self.score(tf.reduce_sum(encoded.values, 1)))


def test_variables_of_layers_that_nobody_has_called_are_made():
    """In the shortest bucket of each part; who asks again traces nothing."""
    encoder, decoder = Encode(), Decode()
    first = s2s.Node(encoder, "source", s2s.Buckets([3, 5]))
    model = s2s.SplitModel([first, s2s.Node(decoder, [first, "target"], s2s.Buckets([2, 4]), loss=True)])
    assert (model.traces, encoder.trainable_variables, decoder.trainable_variables) == (0, [], [])
    variables = model.trainable_variables
    assert len(variables) == 4
    wanted = encoder.trainable_variables + decoder.trainable_variables
    assert all(one is other for one, other in zip(variables, wanted, strict=True))
    assert model.graphs.keys() == {("encode", 3), ("decode", 2)}
    before = model.traces
    model.create_variables()
    assert len(model.trainable_variables) == 4
    assert model.traces == before


def test_trainable_variables_are_each_there_once():
    """Those that are shared, and those that aren't trainable."""
    tied, kernel = Embedder(), tf.Variable(1.0, trainable=False)
    middle = s2s.Part(lambda encoded: encoded, variables=[tied.table, kernel], name="middle")
    first = s2s.Node(s2s.Part(tied.encode, variables=[tied.table]), "source", s2s.Buckets([3]))
    last = s2s.Part(tied.decode, variables=[tied.table])
    nodes = [first, s2s.Node(middle, first), s2s.Node(last, ["middle", "target"], s2s.Buckets([3]), loss=True)]
    (found,) = s2s.SplitModel(nodes).trainable_variables
    assert found is tied.table


# Errors


@pytest.mark.parametrize("name", ["decoder", "other"])
def test_infer_names_the_parts_that_it_takes(name):
    """The last part returns losses, not rows; another isn't known."""
    with pytest.raises(ValueError, match=rf"'{name}'.*\['encoder'\]"):
        shared().model.infer(make_batch(), name)


def summed(decoder_loss):
    """A model of one part with a loss, whose rows are integers."""
    part = s2s.Part(decoder_loss, variables=[])
    return s2s.SplitModel([s2s.Node(part, "target", s2s.Buckets([2, 4]), loss=True, name="decoder")], row_multiple=4)


def real(target):
    return tf.sequence_mask(target.lengths, tf.shape(target.values)[1], tf.float32)


NO_SUMS = {
    "a mean over rows": lambda target: tf.reduce_mean(tf.cast(target.values, tf.float32)),
    "a mean over real positions": lambda target: (
        tf.reduce_sum(tf.cast(target.values, tf.float32) * real(target)) / tf.reduce_sum(real(target))
    ),
    "a sum that padding adds to": lambda target: tf.reduce_sum(tf.cast(target.values, tf.float32) + 1.0),
}


@pytest.mark.parametrize("loss", NO_SUMS.values(), ids=NO_SUMS)
def test_a_loss_that_is_no_sum_is_told(loss):
    with pytest.warns(UserWarning, match=r"'decoder' returns a loss that doesn't seem to be a sum.*tf.reduce_sum"):
        summed(loss).check_losses({"target": [[], [5, 6, 7], [1]]})


def test_a_sum_is_no_cause_for_a_warning(recwarn):
    model = summed(lambda target: tf.reduce_sum(tf.cast(target.values, tf.float32) * real(target)))
    model.check_losses({"target": [[], [5, 6, 7], [1]]})
    assert not recwarn.list
