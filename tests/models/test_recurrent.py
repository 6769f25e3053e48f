"""Ready encoders and decoders: padding, causality, search steps, dropout, smoothing, names and precision."""

from __future__ import annotations

import functools
import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import as_spec
from engine_trials import operations

import seq2split as s2s
from seq2split.models import Encoded, RecurrentDecoder, RecurrentEncoder
from seq2split.split.sequences import Sequences

SOURCES, TARGETS, BOS = 11, 9, 2
ENCODED, UNITS = 6, 4
ENCODERS = [
    {"cell": cell, "bidirectional": both, "layers": layers}
    for cell, both, layers in itertools.product(["lstm", "gru"], [False, True], [1, 2])
]
DECODERS = [
    {"cell": cell, "attention": attention, "layers": layers, "tied_embeddings": layers == 2}
    for cell, attention, layers in itertools.product(["lstm", "gru"], ["luong", "bahdanau"], [1, 2])
]


def label(options):
    return "-".join(str(value) for value in options.values())


every_encoder = pytest.mark.parametrize("options", ENCODERS, ids=label)
every_decoder = pytest.mark.parametrize("options", DECODERS, ids=label)


def randomize(layer):
    """Biases too are random, so that none hides behind zeros."""
    rng = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    return layer


def make_encoder(dtype="float64", embedding=3, **options):
    return randomize(RecurrentEncoder(SOURCES, embedding, ENCODED, dtype=dtype, **options))


def make_decoder(dtype="float64", embedding=UNITS, **options):
    return randomize(RecurrentDecoder(TARGETS, ENCODED, BOS, embedding, UNITS, dtype=dtype, **options))


def copy_weights(source, target):
    for left, right in zip(source.trainable_variables, target.trainable_variables, strict=True):
        right.assign(left.numpy())


def pieces(rows, time, vocabulary, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary, [rows, time]).astype(np.int32)


def make_encoded(rows=3, time=4, dtype="float64", lengths=(4, 1, 2)):
    rng = np.random.default_rng(2)
    outputs = Sequences(tf.constant(rng.normal(size=[rows, time, ENCODED]), dtype), tf.constant(lengths))
    return Encoded(outputs, tf.constant(rng.normal(size=[rows, ENCODED]), dtype))


SOURCE = Sequences(pieces(4, 4, SOURCES), np.array([4, 1, 0, 3], np.int32))
TARGET = Sequences(pieces(3, 5, TARGETS), np.array([5, 3, 4], np.int32))


def assert_close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max(initial=0)))


def gradients_of(layer, loss_of):
    """The loss and its gradients, dense, by path under the layer."""
    with tf.GradientTape() as tape:
        loss = loss_of()
    values = [variable.value for variable in layer.trainable_variables]
    found = tape.gradient(loss, values)
    names = [variable.path.split("/", 1)[1] for variable in layer.trainable_variables]
    return loss, {name: tf.convert_to_tensor(each).numpy() for name, each in zip(names, found, strict=True)}


# RecurrentEncoder


@every_encoder
def test_encoder_shapes(options):
    encoded = make_encoder(**options)(SOURCE)
    assert encoded.outputs.values.shape == (4, 4, ENCODED)
    assert encoded.summary.shape == (4, ENCODED)
    np.testing.assert_array_equal(encoded.outputs.lengths, SOURCE.lengths)


@every_encoder
def test_encoder_ignores_padding(options):
    """Neither other pieces in the padding nor more of it change outputs or gradients."""
    encoder = make_encoder(**options)
    weights = tf.constant(np.random.default_rng(3).normal(size=[4, 4, ENCODED]))
    real = tf.sequence_mask(SOURCE.lengths, 4, tf.float64)[:, :, None]
    found = []

    def loss_of(source):
        found.append(encoder(source))
        outputs, summary = found[-1].outputs.values[:, :4], found[-1].summary
        return tf.reduce_sum(outputs * real * weights) + tf.reduce_sum(summary * weights[:, 0])

    other = np.where(real[:, :, 0] > 0, SOURCE.values, (SOURCE.values + 5) % SOURCES)
    wide = np.concatenate([other, pieces(4, 3, SOURCES, seed=8)], axis=1)
    _, expected = gradients_of(encoder, lambda: loss_of(SOURCE))
    for values in (other, wide):
        _, gradients = gradients_of(encoder, functools.partial(loss_of, Sequences(values, SOURCE.lengths)))
        assert_close(found[-1].outputs.values[:, :4] * real, found[0].outputs.values * real)
        assert_close(found[-1].summary, found[0].summary)
        for name, gradient in gradients.items():
            assert_close(gradient, expected[name])
    assert np.abs(found[0].outputs.values).max() > 0.01


@every_encoder
def test_summary_is_the_outputs_at_the_ends(options):
    """Forward outputs of the last real step, reverse ones of the first."""
    encoded = make_encoder(**options)(SOURCE)
    half = ENCODED // 2 if options["bidirectional"] else ENCODED
    for row, length in enumerate(SOURCE.lengths):
        if length:
            outputs = encoded.outputs.values[row]
            assert_close(encoded.summary[row], np.concatenate([outputs[length - 1, :half], outputs[0, half:]]))
        else:
            np.testing.assert_array_equal(encoded.summary[row], np.zeros(ENCODED))


def operations_of(layer, *specs, jit_compile):
    """How often each type of operation stands in the passes."""
    passes = ["value_and_gradients"] if isinstance(layer, RecurrentDecoder) else ["forward"]
    graph = s2s.Part(layer).build(*specs, trace=passes, jit_compile=jit_compile)
    functions = [each for traced in graph.passes.values() for each in traced.functions]
    return sum((operations(each.concrete) for each in functions), Counter())


@pytest.mark.parametrize("make", [make_encoder, *(functools.partial(make_decoder, **DECODERS[at]) for at in (0, 3, 6))])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_have_as_many_operations_for_any_length(make, jit_compile):
    """They take long to build, and XLA more than linearly; and no loop reads a variable, or it'd not be stateless."""
    layer, encoded = make(), tf.nest.map_structure(as_spec, make_encoded())
    counts = []
    for time in (33, 40):  # "auto" unrolls fewer
        field = Sequences(tf.TensorSpec([3, time], tf.int32), tf.TensorSpec([3], tf.int32))
        specs = [encoded, field] if isinstance(layer, RecurrentDecoder) else [field]
        counts.append(operations_of(layer, *specs, jit_compile=jit_compile))
    assert counts[0].total() == counts[1].total()
    assert counts[0]["StatelessWhile"] > 0
    assert counts[0]["While"] == 0


def test_odd_units_cannot_be_halved():
    with pytest.raises(ValueError, match=r"units = 5 cannot be halved.*make it even"):
        RecurrentEncoder(SOURCES, 3, 5)
    assert RecurrentEncoder(SOURCES, 3, 5, bidirectional=False)(SOURCE).summary.shape == (4, 5)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda **options: RecurrentEncoder(SOURCES, 3, ENCODED, **options),
            {"cell": "rnn"},
            "RecurrentEncoder: cell is 'rnn'",
        ),
        (lambda **options: RecurrentDecoder(TARGETS, ENCODED, BOS, **options), {"cell": "LSTM"}, "did you mean 'lstm'"),
        (
            lambda **options: RecurrentDecoder(TARGETS, ENCODED, BOS, **options),
            {"attention": "dot"},
            "one of luong, bahdanau",
        ),
        (
            lambda **options: RecurrentEncoder(SOURCES, 3, ENCODED, **options),
            {"unroll": "never"},
            "LSTM: unroll is 'never'",
        ),
    ],
)
def test_unknown_words(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


# RecurrentDecoder


@every_decoder
def test_decoder_ignores_padding(options):
    """Of the target and of the encoder's outputs, in content and amount; losses and gradients."""
    decoder, encoded = make_decoder(**options), make_encoded()
    real = tf.sequence_mask(TARGET.lengths, 5).numpy()
    other = np.where(real, TARGET.values, (TARGET.values + 4) % TARGETS)
    wide = np.concatenate([other, pieces(3, 2, TARGETS, seed=8)], axis=1)
    outputs = tf.where(tf.sequence_mask(encoded.outputs.lengths, 4)[:, :, None], encoded.outputs.values, 7.0)
    outputs = tf.pad(outputs, [[0, 0], [0, 3], [0, 0]], constant_values=-3.0)
    others = Encoded(Sequences(outputs, encoded.outputs.lengths), encoded.summary)
    loss, expected = gradients_of(decoder, lambda: decoder(encoded, TARGET)[0])
    for changed, values in [(encoded, other), (encoded, wide), (others, TARGET.values)]:
        call = functools.partial(decoder, changed, Sequences(values, TARGET.lengths))
        found, gradients = gradients_of(decoder, lambda call=call: call()[0])
        assert_close(found, loss)
        for name, gradient in gradients.items():
            assert_close(gradient, expected[name])


def nll_before(decoder, encoded, target, length):
    """The nll of the first `length` pieces of every row."""
    lengths = np.minimum(target.lengths, length).astype(np.int32)
    return float(decoder(encoded, Sequences(target.values, lengths))[1])


@every_decoder
def test_steps_equal_teacher_forcing(options):
    """Piece by piece, `step` gives the likelihoods that the loss is summed of."""
    decoder, encoded = make_decoder(**options), make_encoded()
    context, state = decoder.start(encoded)
    last, total = np.full([3], BOS, np.int32), 0.0
    for time in range(5):
        logits, state = decoder.step(context, state, tf.constant(last))
        assert logits.shape == (3, TARGETS)
        last = TARGET.values[:, time]
        likelihoods = tf.gather(tf.nn.log_softmax(logits), last, batch_dims=1).numpy()
        total -= likelihoods[time < TARGET.lengths].sum()
        assert_close(total, nll_before(decoder, encoded, TARGET, time + 1))


@every_decoder
def test_decoder_starts_from_the_summary(options):
    """Each layer's output from its share of the bridge; the cell of an LSTM from zero."""
    decoder, encoded = make_decoder(**options), make_encoded()
    _, states = decoder.start(encoded)
    bridge = np.tanh(encoded.summary @ decoder.bridge.kernel.numpy() + decoder.bridge.bias.numpy())
    for (output, *cell), expected in zip(states, np.split(bridge, options["layers"], axis=1), strict=True):
        assert_close(output, expected)
        assert len(cell) == (options["cell"] == "lstm")
        for each in cell:
            np.testing.assert_array_equal(each, np.zeros([3, UNITS]))


@every_decoder
@pytest.mark.parametrize("time", [0, 2, 4])
def test_a_piece_changes_no_loss_before_it(options, time):
    decoder, encoded = make_decoder(**options), make_encoded()
    values = TARGET.values.copy()
    values[:, time] = (values[:, time] + 1) % TARGETS
    changed = Sequences(values, TARGET.lengths)
    assert nll_before(decoder, encoded, changed, time) == nll_before(decoder, encoded, TARGET, time)
    assert nll_before(decoder, encoded, changed, time + 1) != nll_before(decoder, encoded, TARGET, time + 1)


@every_decoder
@pytest.mark.parametrize("piece", [0, 1])
def test_a_piece_is_read_by_those_after_it(options, piece):
    """The last piece alone is never read as an input."""
    decoder, encoded = make_decoder(**options), make_encoded()
    values = TARGET.values.copy()
    values[:, piece] = (values[:, piece] + 1) % TARGETS
    after = [
        nll_before(decoder, encoded, Sequences(each, TARGET.lengths), 5)
        - nll_before(decoder, encoded, Sequences(each, TARGET.lengths), piece + 1)
        for each in (values, TARGET.values)
    ]
    assert after[0] != after[1]


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_tied_embeddings_are_the_projection(attention):
    tied, untied = (make_decoder(tied_embeddings=both, attention=attention) for both in (True, False))
    names = {variable.name: variable for variable in untied.trainable_variables}
    assert len(tied.trainable_variables) == len(untied.trainable_variables) - 1
    for variable in tied.trainable_variables:  # paths differ by the layer's name alone
        path = variable.path.split("/", 1)[1]
        twin = next(each for each in untied.trainable_variables if each.path.split("/", 1)[1] == path)
        twin.assign(variable.numpy())
    names["output_projection"].assign(tied.embeddings.numpy())
    encoded = make_encoded()
    found, gradients = gradients_of(tied, lambda: tied(encoded, TARGET)[0])
    expected, untied_gradients = gradients_of(untied, lambda: untied(encoded, TARGET)[0])
    assert_close(found, expected)
    assert_close(gradients["embeddings"], untied_gradients["embeddings"] + untied_gradients["output_projection"])
    assert np.abs(untied_gradients["embeddings"]).max() > 1e-3


def test_tied_embeddings_need_the_size_of_the_features():
    with pytest.raises(ValueError, match=r"embedding = 3 differs from units = 4; make them equal"):
        RecurrentDecoder(TARGETS, ENCODED, BOS, 3, UNITS, tied_embeddings=True)


def test_label_smoothing_is_for_training():
    decoder, encoded = make_decoder(label_smoothing=0.2), make_encoded()
    loss, nll = decoder(encoded, TARGET)
    assert float(loss) == float(nll)
    smoothed, train_nll = decoder(encoded, TARGET, training=True)
    assert_close(train_nll, nll)
    # By its definition, from the logits of every step.
    context, state = decoder.start(encoded)
    last, expected = np.full([3], BOS, np.int32), 0.0
    for time in range(5):
        logits, state = decoder.step(context, state, tf.constant(last))
        last = TARGET.values[:, time]
        wanted = 0.8 * np.eye(TARGETS)[last] + 0.2 / TARGETS
        expected -= (wanted * tf.nn.log_softmax(logits)).numpy().sum(-1)[time < TARGET.lengths].sum()
    assert_close(smoothed, expected)
    assert abs(smoothed - nll) > 1e-3


# Dropout


def run_encoder(layer, **options):
    return layer(SOURCE, **options).summary.numpy()


def run_decoder(layer, **options):
    return layer(make_encoded(), TARGET, **options)[0].numpy()


MAKERS = {
    "encoder": (functools.partial(make_encoder, layers=2), run_encoder),
    "luong": (functools.partial(make_decoder, layers=2), run_decoder),
    "bahdanau": (functools.partial(make_decoder, layers=2, attention="bahdanau"), run_decoder),
}
every_maker = pytest.mark.parametrize("name", MAKERS)


@every_maker
def test_dropout_is_for_training(name):
    make, run = MAKERS[name]
    layer, plain = make(dropout=0.5), make()
    np.testing.assert_array_equal(run(layer), run(layer, training=False))
    np.testing.assert_array_equal(run(layer), run(plain))
    np.testing.assert_array_equal(run(plain, training=True), run(plain))
    first, second = run(layer, training=True), run(layer, training=True)
    assert np.any(first != run(layer))
    np.testing.assert_array_equal(first, second)  # until the weights move
    layer.stack[0][0].bias.assign_add([1e-3] * layer.stack[0][0].bias.shape[0]) if name == "encoder" else (
        layer.output_projection.bias.assign_add(1e-3 * np.ones(layer.output_projection.bias.shape))
    )
    assert np.any(np.abs(run(layer, training=True) - first) > 1e-2)


@every_maker
def test_seed_fixes_the_dropout(name):
    make, run = MAKERS[name]
    layers = [make(dropout=0.5, seed=seed) for seed in (3, 3, 40)]
    for _ in range(2):
        first, same, other = (run(layer, training=True) for layer in layers)
        np.testing.assert_array_equal(first, same)
        assert np.any(first != other)


# Variables and precision


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_variables_are_named_after_their_layer(dropout):
    """Two encoders of one model share no path."""
    layers = [
        RecurrentEncoder(SOURCES, 3, ENCODED, layers=2, dropout=dropout, name="first"),
        RecurrentEncoder(SOURCES, 3, ENCODED, layers=2, dropout=dropout, name="second"),
        RecurrentDecoder(
            TARGETS, ENCODED, BOS, 3, UNITS, layers=2, dropout=dropout, attention="bahdanau", name="decoder"
        ),
    ]
    paths = [variable.path for layer in layers for variable in layer.variables]
    assert len(paths) == len(set(paths))
    for layer in layers:
        assert all(variable.path.startswith(f"{layer.name}/") for variable in layer.variables)
        assert len(layer.trainable_variables) == {"first": 13, "second": 13, "decoder": 17}[layer.name]


@every_decoder
def test_every_variable_gets_a_gradient(options):
    encoder, decoder = make_encoder(cell=options["cell"], layers=options["layers"]), make_decoder(**options)
    source = Sequences(SOURCE.values[:3], np.array([4, 1, 2], np.int32))
    for layer in (encoder, decoder):
        _, gradients = gradients_of(layer, lambda: decoder(encoder(source), TARGET)[0])
        assert all(np.abs(gradient).max() > 1e-8 for gradient in gradients.values())


@every_decoder
def test_hypotheses_share_the_context_of_their_sentence(options):
    """A step of two rows for each sentence equals a step with every context repeated; so do the attention weights."""
    decoder, encoded = make_decoder(**options), make_encoded()
    context, state = decoder.start(encoded)
    state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, 2, 0) + np.arange(6)[:, None], state)
    repeated = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, 2, 0), context)
    last = tf.constant([1, 2, 3, 4, 5, 6])
    found, expected = (decoder.step_with_weights(each, state, last) for each in (context, repeated))
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert_close(left, right)
    for left, right in zip(tf.nest.flatten(decoder.step(context, state, last)), tf.nest.flatten(found), strict=False):
        np.testing.assert_array_equal(left, right)
    ((weights,), lengths) = found[2], np.repeat(encoded.outputs.lengths, 2)
    assert_close(tf.reduce_sum(weights, 1), np.ones(6))
    np.testing.assert_array_equal(np.count_nonzero(weights, axis=1), lengths)
    assert len({tuple(row) for row in weights.numpy()}) > 4


@pytest.mark.parametrize("options", [DECODERS[1], DECODERS[6]], ids=label)
def test_mixed_bfloat16_is_near_float32(options):
    losses, gradients = {}, {}
    layers = {}
    for dtype in ("float32", "mixed_bfloat16"):
        encoder = make_encoder(dtype, cell=options["cell"], name="encoder")
        decoder = make_decoder(dtype, **options, name="decoder")
        for name, layer in (("encoder", encoder), ("decoder", decoder)):
            copy_weights(layers.setdefault(name, layer), layer)
            assert all(variable.dtype == "float32" for variable in layer.trainable_variables)
        model = s2s.SplitModel(
            [
                s2s.Node(s2s.Part(encoder), ["source"], s2s.Buckets([2, 4])),
                s2s.Node(s2s.Part(decoder), ["encoder", "target"], s2s.Buckets([5]), loss=True),
            ]
        )
        batch = {"source": Sequences(SOURCE.values[:3], np.array([4, 1, 2])), "target": TARGET}
        loss, found = model.loss_and_gradients(batch)
        losses[dtype] = float(loss)
        gradients[dtype] = [tf.convert_to_tensor(each) for each in found["encoder"] + found["decoder"]]
        decoder.step(*decoder.start(encoder(batch["source"])), tf.constant([BOS] * 3))  # a search runs too
    assert np.isfinite(losses["mixed_bfloat16"])
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=2e-2)
    assert losses["mixed_bfloat16"] != losses["float32"]
    for mixed, exact in zip(gradients["mixed_bfloat16"], gradients["float32"], strict=True):
        assert mixed.dtype == exact.dtype == tf.float32
        assert np.linalg.norm(mixed - exact) < 0.1 * np.linalg.norm(exact)
