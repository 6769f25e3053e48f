"""The Transformer's encoder and decoder: subjects x properties, and against numpy."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from split_models import figures

import seq2split as s2s
from seq2split.buckets import pad_rows
from seq2split.layers.positional_encoding import sinusoids
from seq2split.models import DropoutRates, TransformerDecoder, TransformerEncoder
from seq2split.split.sequences import Sequences

BOS, PIECES, UNITS = 2, 9, 8
LENGTHS = {"source": (4, 1, 3, 2, 4), "target": (3, 2, 4, 1, 4)}
SUBJECTS = [
    {"norm": norm, "positions": positions, "embeddings": embeddings, "sources": sources}
    for norm, positions, embeddings, sources in [
        ("pre", "sinusoidal", "separate", 1),
        ("post", "learned", "all", 1),
        ("pre", "learned", "tied", 2),
        ("post", "sinusoidal", "shared", 1),
    ]
]
every_subject = pytest.mark.parametrize("options", SUBJECTS, ids=lambda options: "-".join(map(str, options.values())))


def make_layers(options, dtype="float64", rates=DropoutRates(), label_smoothing=0.0, layers=2):  # noqa: B008 it is immutable
    """The encoders and the decoder, with random weights."""
    keras.utils.set_random_seed(3)
    common = {
        "norm": options["norm"],
        "positions": options["positions"],
        "max_length": 9,
        "dtype": dtype,
        "rates": rates,
    }
    names = ["encoder", "encoder2"][: options["sources"]]
    sizes = (PIECES, UNITS, layers, 2, 12)
    encoders = [TransformerEncoder(*sizes, seed=at, name=name, **common) for at, name in enumerate(names)]
    decoder = TransformerDecoder(
        PIECES,
        [UNITS] * len(encoders),
        BOS,
        UNITS,
        layers,
        2,
        12,
        tied_embeddings=options["embeddings"] in ("tied", "all"),
        embeddings=encoders[0].embeddings if options["embeddings"] in ("shared", "all") else None,
        label_smoothing=label_smoothing,
        seed=7,
        name="decoder",
        **common,
    )
    rng = np.random.default_rng(4)
    for layer in (*encoders, decoder):
        for variable in layer.trainable_variables:
            variable.assign(rng.normal(size=variable.shape) * 0.4 + ("gamma" in variable.name))
    return encoders, decoder


def make_model(encoders, decoder, source=(2, 4), target=(2, 4), **options):
    fields = zip(encoders, ("source", "source2"), strict=False)
    nodes = [s2s.Node(s2s.Part(each), [field], s2s.Buckets(source)) for each, field in fields]
    last = s2s.Node(s2s.Part(decoder), [each.name for each in encoders] + ["target"], s2s.Buckets(target), loss=True)
    return s2s.SplitModel([*nodes, last], **options)


def loss_and_gradients(model, batch):
    """Return the loss and the metrics in the order of the decoder, and the gradients."""
    found = model.loss_and_gradients(batch)
    return figures(found), found.gradients


@functools.cache
def make_shared(**options):
    """Layers and a model of a subject, for tests that change neither."""
    encoders, decoder = make_layers(options)
    return encoders, decoder, make_model(encoders, decoder)


def make_batch(rows=slice(None)):
    rng = np.random.default_rng(5)
    lengths = LENGTHS | {"source2": LENGTHS["source"][::-1]}
    fields = {side: [rng.integers(0, PIECES, length) for length in each][rows] for side, each in lengths.items()}
    return {
        side: Sequences(pad_rows(each, max(map(len, each))), np.array([len(row) for row in each], np.int32))
        for side, each in fields.items()
    }


def joint(encoders, decoder, batch, training=False):
    """The mean losses of the unsplit model, and its gradients by variable."""
    fields = ["source", "source2"][: len(encoders)]
    variables = {id(v): v for layer in (*encoders, decoder) for v in layer.trainable_variables}
    with tf.GradientTape() as tape:
        encoded = [each(batch[field], training=training) for each, field in zip(encoders, fields, strict=True)]
        losses = decoder(*encoded, batch["target"], training=training)
        means = [loss / batch["target"].lengths.sum() for loss in losses]
    found = tape.gradient(means[0], [each.value for each in variables.values()])
    return means, {key: tf.convert_to_tensor(each) for key, each in zip(variables, found, strict=True)}


def by_variable(encoders, decoder, gradients):
    """The gradients of a split model, by variable; of a shared one the sum."""
    found = {}
    for layer in (*encoders, decoder):
        for variable, gradient in zip(layer.trainable_variables, gradients[layer.name], strict=True):
            if gradient is not None:
                assert id(variable) not in found
                found[id(variable)] = tf.convert_to_tensor(gradient)
    return found


def assert_equal(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(*([float(loss) for loss in each[0]] for each in (found, expected)), rtol=tolerance)
    assert found[1].keys() == expected[1].keys()
    largest = max(np.abs(each).max() for each in expected[1].values())
    for key, each in expected[1].items():
        np.testing.assert_allclose(found[1][key], each, rtol=0, atol=tolerance * largest)


@every_subject
def test_split_equals_joint(options):
    """A mixed batch, in E + D graphs; every variable has a gradient."""
    encoders, decoder, model = make_shared(**options)
    batch = make_batch()
    losses, gradients = loss_and_gradients(model, batch)
    expected = joint(encoders, decoder, batch)
    assert_equal((losses, by_variable(encoders, decoder, gradients)), expected)
    assert all(np.abs(each).max() > 1e-9 for each in expected[1].values())
    assert len(model.graphs) == 2 * len(encoders) + 2
    np.testing.assert_allclose(figures(model.losses(batch)), losses, rtol=1e-12)
    before = model.traces
    model.loss_and_gradients(make_batch(slice(None, None, -1)))
    assert model.traces == before


@pytest.mark.parametrize("options", SUBJECTS[1:3], ids=lambda options: "-".join(map(str, options.values())))
def test_split_equals_joint_in_float32(options):
    encoders, decoder = make_layers(options, "float32")
    losses, gradients = loss_and_gradients(make_model(encoders, decoder), make_batch())
    expected = joint(encoders, decoder, make_batch())
    assert_equal((losses, by_variable(encoders, decoder, gradients)), expected, 1e-5)


def test_each_forward_runs_once_for_each_group():
    """Counted inside the parts: neither a backward nor the decoder's gradients run a forward again."""
    encoders, decoder = make_layers(SUBJECTS[1])
    counters = {layer.name: tf.Variable(0, trainable=False) for layer in (*encoders, decoder)}

    def counted(layer):
        def call(*inputs, training=False):
            counters[layer.name].assign_add(1)
            return layer(*inputs, training=training)

        return s2s.Part(call, variables=layer.trainable_variables, name=layer.name)

    first = s2s.Node(counted(encoders[0]), ["source"], s2s.Buckets([2, 4]))
    last = s2s.Node(counted(decoder), [first, "target"], s2s.Buckets([2, 4]), loss=True)
    model = s2s.SplitModel([first, last])
    model.build(progress=False)
    for counter in counters.values():
        counter.assign(0)
    losses, gradients = loss_and_gradients(model, make_batch())
    assert {name: int(counter) for name, counter in counters.items()} == {"encoder": 2, "decoder": 2}
    expected = joint(encoders, decoder, make_batch())
    assert_equal((losses, by_variable(encoders, decoder, gradients)), expected)


@every_subject
def test_mixed_equals_homogeneous(options):
    """Each row alone, weighed by its target positions."""
    encoders, decoder, model = make_shared(**options)
    losses, gradients = loss_and_gradients(model, make_batch())
    total = sum(LENGTHS["target"])
    sums, mean = {}, 0.0
    for row, length in enumerate(LENGTHS["target"]):
        loss, each = model.loss_and_gradients(make_batch(slice(row, row + 1)))
        mean += float(loss) * length / total
        for key, gradient in by_variable(encoders, decoder, each).items():
            sums[key] = sums.get(key, 0.0) + gradient * length / total
    assert_equal(([losses[0]], by_variable(encoders, decoder, gradients)), ([mean], sums))


@every_subject
def test_buckets_change_nothing(options):
    """Longer buckets are more padding, and the losses and gradients of the unsplit model without."""
    encoders, decoder = make_layers(options, layers=1)
    expected = joint(encoders, decoder, make_batch())
    for source, target in (((6,), (5,)), ((1, 9), (2, 8))):
        losses, gradients = loss_and_gradients(make_model(encoders, decoder, source, target), make_batch())
        assert_equal((losses, by_variable(encoders, decoder, gradients)), expected)


@every_subject
def test_steps_equal_teacher_forcing(options):
    encoders, decoder = make_layers(options)
    batch = make_batch()
    encoded = [each(batch[field]) for each, field in zip(encoders, ["source", "source2"], strict=False)]
    context, state = decoder.start(*encoded)
    rows, time = batch["target"].values.shape
    last, total = np.full([rows], BOS, np.int32), 0.0
    for place in range(time):
        logits, state = decoder.step(context, state, tf.constant(last))
        last = batch["target"].values[:, place]
        likelihoods = tf.gather(tf.nn.log_softmax(logits), last, batch_dims=1).numpy()
        total -= likelihoods[place < batch["target"].lengths].sum()
    np.testing.assert_allclose(total, decoder(*encoded, batch["target"])[1], rtol=1e-12)


# Against numpy: one sentence at a time, without padding.


def in_numpy(encoders, decoder, sources, target, dropped=None):
    """The negative log-likelihood of a target, and the last layer's attention weights over each encoder."""
    encoded = [numpy_layers(each, source, (), dropped) for each, source in zip(encoders, sources, strict=True)]
    weights = []
    features = numpy_layers(decoder, np.append(BOS, target[:-1]).astype(int), encoded, dropped, weights)
    logits = features @ decoder.output_projection.kernel.numpy().T + decoder.output_projection.bias.numpy()
    likelihoods = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -likelihoods[np.arange(len(target)), target].sum(), weights[len(weights) - len(encoded) :]


def numpy_layers(model, pieces, encoded, dropped, weights=None):
    """The outputs `[time, units]` of the last layer of an encoder, or of a decoder, which masks the future."""
    places = sinusoids(tf.range(len(pieces)), UNITS, "float64").numpy()
    if model.positions == "learned":
        places = model.positional_encoding.table.numpy()[: len(pieces)] * UNITS**0.5
    kept = dropped != "residual"
    values = (model.embeddings.numpy()[pieces] * UNITS**0.5 + places) * kept
    for layer in model.stack:
        parts = [functools.partial(numpy_attend, layer.self_attention, None, weights is not None, dropped, [])]
        parts += [
            functools.partial(numpy_attend, *pair, False, dropped, weights)
            for pair in zip(layer.cross_attentions, encoded, strict=True)
        ]
        parts.append(
            lambda inputs, layer=layer: numpy_dense(
                layer.feedforward_out,
                np.maximum(numpy_dense(layer.feedforward_in, inputs), 0) * (dropped != "activation"),
            )
        )
        norms = [layer.self_attention_norm, *layer.cross_attention_norms, layer.feedforward_norm]
        for norm, part in zip(norms, parts, strict=True):
            if layer.norm == "pre":
                values = values + part(numpy_normalize(norm, values)) * kept
            else:
                values = numpy_normalize(norm, values + part(values) * kept)
    return values if model.final_norm is None else numpy_normalize(model.final_norm, values)


def numpy_attend(attention, encoded, causal, dropped, seen, inputs):
    if encoded is None:
        queries, keys, values = np.split(numpy_dense(attention.query_key_value, inputs), 3, -1)
    else:
        queries = numpy_dense(attention.query, inputs)
        keys, values = np.split(numpy_dense(attention.key_value, encoded), 2, -1)
    size, contexts, weights = UNITS // attention.heads, [], []
    for start in range(0, UNITS, size):
        part = slice(start, start + size)
        scores = queries[:, part] @ keys[:, part].T / np.sqrt(size)
        shares = np.exp(np.where(np.tri(*scores.shape) > 0, scores, -np.inf) if causal else scores)
        weights.append(shares / shares.sum(-1, keepdims=True))
        contexts.append(weights[-1] @ values[:, part] * (dropped != "attention"))
    seen.append(np.mean(weights, 0))
    return numpy_dense(attention.output_projection, np.concatenate(contexts, -1))


def numpy_dense(layer, values):
    return values @ layer.kernel.numpy() + layer.bias.numpy()


def numpy_normalize(layer, values):
    deviations = values - values.mean(-1, keepdims=True)
    normal = deviations / np.sqrt(values.var(-1, keepdims=True) + 1e-6)
    return normal * layer.gamma.numpy() + layer.beta.numpy()


def rows_of(batch, *sides):
    return [
        [batch[side].values[row, : batch[side].lengths[row]] for side in sides]
        for row in range(len(batch["target"].lengths))
    ]


def encode(encoders, batch, **options):
    return [each(batch[side], **options) for each, side in zip(encoders, ["source", "source2"], strict=False)]


@every_subject
def test_equals_numpy(options):
    """The likelihoods; and the attention weights over all encoders, step by step."""
    encoders, decoder = make_layers(options)
    batch, sides = make_batch(), ["source", "source2"][: len(encoders)]
    encoded = encode(encoders, batch)
    expected = [in_numpy(encoders, decoder, row, target) for *row, target in rows_of(batch, *sides, "target")]
    np.testing.assert_allclose(decoder(*encoded, batch["target"])[1], sum(nll for nll, _ in expected), rtol=1e-10)
    context, state = decoder.start(*encoded)
    previous = np.concatenate([np.full([5, 1], BOS), batch["target"].values[:, :-1]], 1).astype(np.int32)
    steps = []
    for place in range(4):
        _, state, weights = decoder.step_with_weights(context, state, tf.constant(previous[:, place]))
        steps.append(weights)
    assert len(steps[0]) == len(sides)
    for row, (_, over_encoders) in enumerate(expected):
        for side, weights in enumerate(over_encoders):
            time, length = weights.shape
            for place in range(time):
                np.testing.assert_allclose(steps[place][side][row, :length], weights[place], atol=1e-10)


@pytest.mark.parametrize("dropped", DropoutRates._fields)
@pytest.mark.parametrize(
    "options", SUBJECTS[:1] + SUBJECTS[2:], ids=lambda options: "-".join(map(str, options.values()))
)
def test_each_dropout_drops_its_own(options, dropped):
    """With a rate of nearly one nothing is left of what it is for, and of all else everything."""
    encoders, decoder = make_layers(options, rates=DropoutRates(**{dropped: 1 - 1e-9}))
    batch, sides = make_batch(), ["source", "source2"][: len(encoders)]
    encoded = encode(encoders, batch, training=True)
    _, found = decoder(*encoded, batch["target"], training=True)
    rows = rows_of(batch, *sides, "target")
    expected = sum(in_numpy(encoders, decoder, row, target, dropped)[0] for *row, target in rows)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_dropout_is_the_same_in_both_passes_and_other_in_each_place():
    """A split step with dropout equals a joint one of the same groups; it moves the loss."""
    options = SUBJECTS[1]
    rates = DropoutRates(0.3, 0.2, 0.1)
    encoders, decoder = make_layers(options, rates=rates)
    batch = make_batch(slice(0, 1))
    model = make_model(encoders, decoder, (4,), (3,))
    losses, gradients = loss_and_gradients(model, batch)
    assert_equal((losses, by_variable(encoders, decoder, gradients)), joint(encoders, decoder, batch, training=True))
    assert abs(losses[0] - float(model.losses(batch).loss)) > 1e-3
    assert float(model.loss_and_gradients(batch).loss) == losses[0]


def test_mixed_bfloat16_is_near_float32():
    found = {}
    for dtype in ("float32", "mixed_bfloat16"):
        encoders, decoder = make_layers(SUBJECTS[1], dtype)
        assert all(each.dtype == "float32" for layer in (*encoders, decoder) for each in layer.trainable_variables)
        losses, gradients = loss_and_gradients(make_model(encoders, decoder), make_batch())
        found[dtype] = losses[0], list(by_variable(encoders, decoder, gradients).values())
    assert found["mixed_bfloat16"][0] == pytest.approx(found["float32"][0], rel=2e-2)
    largest = max(np.linalg.norm(each) for each in found["float32"][1])
    for mixed, exact in zip(found["mixed_bfloat16"][1], found["float32"][1], strict=True):
        assert mixed.dtype == tf.float32
        assert np.linalg.norm(mixed - exact) < 0.1 * largest


def test_label_smoothing_is_for_training():
    encoders, decoder = make_layers(SUBJECTS[0], label_smoothing=0.2)
    model, batch = make_model(encoders, decoder), make_batch()
    loss, nll = figures(model.loss_and_gradients(batch))
    assert abs(loss - nll) > 1e-3
    np.testing.assert_allclose(figures(model.losses(batch)), [nll, nll], rtol=1e-12)


# Mistakes


def test_mistakes():
    with pytest.raises(ValueError, match=r"units = 8 cannot be divided among heads = 3"):
        TransformerEncoder(PIECES, 8, 1, 3, 4)
    with pytest.raises(ValueError, match=r"shape \(9, 8\), and it needs \(5, 8\)"):
        TransformerDecoder(5, 8, BOS, 8, 1, 2, 4, embeddings=TransformerEncoder(9, 8, 1, 2, 4).embeddings)
    with pytest.raises(ValueError, match="norm is 'Pre'; expected one of pre, post"):
        TransformerEncoder(PIECES, 8, 1, 2, 4, norm="Pre")
    with pytest.raises(ValueError, match=r"TransformerDecoder: positions is 'learnt'; .* did you mean 'learned'"):
        TransformerDecoder(PIECES, 8, BOS, 8, 1, 2, 4, positions="learnt")
