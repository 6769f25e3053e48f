"""Recurrent layers against Keras, attention and the cross-entropy against numpy and autodiff; padding never matters."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2split.layers import GRU, LSTM, BahdanauAttention, LuongAttention, projected_cross_entropy
from seq2split.layers.dropout import dropout
from seq2split.layers.products import widened

CELLS = {"lstm": (LSTM, keras.layers.LSTM, {}), "gru": (GRU, keras.layers.GRU, {"reset_after": True})}
ATTENTIONS = {"luong": LuongAttention, "bahdanau": BahdanauAttention}
TIME, ROWS, FEATURES, UNITS = 5, 6, 4, 3
LENGTHS = np.array([5, 3, 0, 1, 4, 2], np.int32)
FLOATS = ["float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"]
every_cell = pytest.mark.parametrize("cell", CELLS)
every_attention = pytest.mark.parametrize("attention", ATTENTIONS)


def normal(*shape, seed=0, dtype="float64"):
    return tf.cast(np.random.default_rng(seed).normal(size=shape), dtype)


def real_mask(lengths=LENGTHS, time=TIME):
    """`[time, rows, 1]`: one at real positions."""
    return (np.arange(time)[:, None] < np.asarray(lengths))[:, :, None].astype(np.float64)


def randomize(layer, dtype="float64"):
    """Biases too are random, so that none hides behind zeros."""
    for seed, variable in enumerate(layer.trainable_variables):
        variable.assign(normal(*variable.shape, seed=100 + seed, dtype=variable.dtype) * 0.5)
    return layer


def make_layer(cell, *, dtype="float64", reverse=False, features=FEATURES):
    layer = CELLS[cell][0](UNITS, reverse=reverse, dtype=dtype)
    layer.build((None, None, features))
    return randomize(layer)


def make_state(layer, rows=ROWS, dtype="float64"):
    return tuple(normal(rows, UNITS, seed=50 + index, dtype=dtype) for index in range(layer.state_size))


def assert_close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max(initial=0)))


# Recurrent layers against Keras


def keras_twin(cell, layer):
    """The layer of Keras with the same weights."""
    twin = CELLS[cell][1](
        UNITS,
        return_sequences=True,
        return_state=True,
        go_backwards=layer.reverse,
        unroll=True,
        use_cudnn=False,
        dtype="float64",
        **CELLS[cell][2],
    )
    twin.build((None, TIME, FEATURES))
    weights = [variable.numpy() for variable in (layer.kernel, layer.recurrent_kernel, layer.bias)]
    if cell == "gru":
        weights[2] = np.stack([weights[2], layer.recurrent_bias.numpy()])
    twin.set_weights(weights)
    return twin


def weighted_loss(outputs, state, lengths):
    """A fixed random weighted sum of the outputs at real positions and of the final state."""
    mask = 1.0 if lengths is None else real_mask(lengths)
    terms = [tf.reduce_sum(outputs * mask * normal(*outputs.shape, seed=7))]
    terms += [tf.reduce_sum(each * normal(*each.shape, seed=8 + index)) for index, each in enumerate(state)]
    return tf.add_n(terms)


def run_ours(layer, inputs, lengths, state):
    with tf.GradientTape() as tape:
        tape.watch([inputs, *(state or ())])
        outputs, final = layer(inputs, lengths, state)
        loss = weighted_loss(outputs, final, lengths)
    sources = [inputs, *(state or ()), *[variable.value for variable in layer.trainable_variables]]
    return outputs, final, tape.gradient(loss, sources)


def run_keras(cell, layer, inputs, lengths, state):
    twin = keras_twin(cell, layer)
    with tf.GradientTape() as tape:
        tape.watch([inputs, *(state or ())])
        mask = None if lengths is None else tf.sequence_mask(lengths, TIME)
        initial = None if state is None else list(state)
        outputs, *final = twin(tf.transpose(inputs, [1, 0, 2]), mask=mask, initial_state=initial)
        outputs = tf.transpose(outputs, [1, 0, 2])
        if layer.reverse:  # Keras leaves them in the order in which it ran
            outputs = outputs[::-1]
        loss = weighted_loss(outputs, final, lengths)
    sources = [inputs, *(state or ()), *[variable.value for variable in twin.trainable_variables]]
    gradients = tape.gradient(loss, sources)
    if cell == "gru":
        gradients[-1:] = tf.unstack(gradients[-1])
    return outputs, final, gradients


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("given_state", [False, True])
def test_recurrent_equals_keras(cell, reverse, padded, given_state):
    layer = make_layer(cell, reverse=reverse)
    inputs, lengths = normal(TIME, ROWS, FEATURES), LENGTHS if padded else None
    state = make_state(layer) if given_state else None
    outputs, final, gradients = run_ours(layer, inputs, lengths, state)
    keras_outputs, keras_final, keras_gradients = run_keras(cell, layer, inputs, lengths, state)
    mask = real_mask() if padded else 1.0
    assert_close(outputs * mask, keras_outputs * mask)
    for found, expected in zip(final, keras_final, strict=True):
        assert_close(found, expected)
    for found, expected in zip(gradients, keras_gradients, strict=True):
        assert_close(found, expected)
        assert np.abs(expected).max() > 1e-3


@every_cell
def test_initial_weights_are_those_of_keras(cell):
    """The forget gate of an LSTM starts open, everything else of a bias at zero."""
    layer = CELLS[cell][0](UNITS, dtype="float64")
    layer.build((None, None, FEATURES))
    twin = CELLS[cell][1](UNITS, dtype="float64", **CELLS[cell][2])
    twin.build((None, TIME, FEATURES))
    biases = [variable.numpy() for variable in layer.trainable_variables[2:]]
    np.testing.assert_array_equal(np.reshape(biases, -1), np.reshape(twin.get_weights()[2], -1))
    recurrent = layer.recurrent_kernel.numpy()
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(UNITS), atol=1e-6)


# Recurrent layers and padding


def with_garbage(inputs, size, seed=9):
    padding = normal(*inputs.shape, seed=seed, dtype=inputs.dtype) * size
    return tf.where(real_mask() > 0, inputs, padding)


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3])
def test_padding_content_changes_no_bit(cell, reverse, given_state, size):
    layer = make_layer(cell, reverse=reverse)
    state = make_state(layer) if given_state else None
    inputs = normal(TIME, ROWS, FEATURES)
    outputs, final, gradients = run_ours(layer, with_garbage(inputs, 0.5, seed=5), LENGTHS, state)
    others, other_final, other_gradients = run_ours(layer, with_garbage(inputs, size), LENGTHS, state)
    np.testing.assert_array_equal(outputs * real_mask(), others * real_mask())
    for found, expected in zip(other_final + tuple(other_gradients), final + tuple(gradients), strict=True):
        np.testing.assert_array_equal(found, expected)


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("given_state", [False, True])
def test_padding_amount_changes_nothing(cell, reverse, given_state):
    layer = make_layer(cell, reverse=reverse)
    state = make_state(layer) if given_state else None
    inputs = normal(TIME, ROWS, FEATURES)
    outputs, final = layer(inputs, LENGTHS, state)
    for row, length in enumerate(LENGTHS):
        alone = None if state is None else tuple(each[row : row + 1] for each in state)
        if not length:
            for found, initial in zip(final, alone or layer.zero_state(1), strict=True):
                np.testing.assert_array_equal(found[row : row + 1], initial)
            continue
        expected, expected_final = layer(inputs[:length, row : row + 1], None, alone)
        assert_close(outputs[:length, row : row + 1], expected)
        for found, state_alone in zip(final, expected_final, strict=True):
            assert_close(found[row : row + 1], state_alone)


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_padded_inputs_get_zero_gradients(cell, reverse):
    layer = make_layer(cell, reverse=reverse)
    inputs = with_garbage(normal(TIME, ROWS, FEATURES), 10.0)
    _, _, (inputs_ct, *_) = run_ours(layer, inputs, LENGTHS, None)
    np.testing.assert_array_equal(inputs_ct * (1 - real_mask()), np.zeros(inputs.shape))
    assert np.all(np.abs(inputs_ct).sum(-1)[real_mask()[:, :, 0] > 0] > 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 3, 7, 16, 33])  # vectors and their remainders take different paths
def test_saturated_gates_are_exact(dtype, count):
    from seq2split.layers.recurrent import _SATURATED

    for offset in (0.0, 1e3, -1e3):
        gate = tf.fill([count], tf.cast(_SATURATED + offset, dtype))
        np.testing.assert_array_equal(tf.cast(tf.sigmoid(gate), "float64"), np.ones(count))
        np.testing.assert_array_equal(tf.cast(tf.sigmoid(-gate), "float64"), np.zeros(count))


@every_cell
@pytest.mark.parametrize("dtype", [each for each in FLOATS if each != "bfloat16"])  # no orthogonal weights in it
def test_state_passes_padding_bit_for_bit(cell, dtype):
    """The final state is that of the last real step, of the same arithmetic without padding."""
    layer = make_layer(cell, dtype=dtype)
    inputs = normal(TIME, ROWS, FEATURES, dtype=layer.variable_dtype)
    state = make_state(layer, dtype=layer.variable_dtype)
    _, final = layer(inputs, LENGTHS, state)
    states = [state] + [layer(inputs[:time], None, state)[1] for time in range(1, TIME + 1)]
    for index, found in enumerate(final):
        assert found.dtype == layer.variable_dtype
        expected = [states[length][index][row] for row, length in enumerate(LENGTHS)]
        np.testing.assert_array_equal(tf.cast(found, "float64"), tf.cast(tf.stack(expected), "float64"))


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_mixed_bfloat16_is_near_float32(cell, reverse):
    mixed, exact = (make_layer(cell, dtype=dtype, reverse=reverse) for dtype in ("mixed_bfloat16", "float32"))
    inputs = normal(TIME, ROWS, FEATURES, dtype="float32")
    (found, found_state), (expected, expected_state) = mixed(inputs, LENGTHS), exact(inputs, LENGTHS)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found * real_mask(), expected * real_mask(), atol=2e-2)
    np.testing.assert_allclose(found_state[0], expected_state[0], atol=2e-2)
    assert np.abs(found - expected).max() > 1e-5  # its products did run in bfloat16


# Attention


def softmax(scores):
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def attention_reference(attention, layer, queries, values, lengths):
    """Row by row and query by query, over the real positions alone."""
    weights = {variable.name: variable.numpy() for variable in layer.trainable_variables}
    contexts = np.zeros([*queries.shape[:2], values.shape[2]])
    for row, query in itertools.product(range(queries.shape[0]), range(queries.shape[1])):
        real = values[row, : lengths[row]]
        if attention == "luong":
            scores = real @ weights["kernel"] @ queries[row, query]
        else:
            hidden = queries[row, query] @ weights["query_kernel"] + real @ weights["kernel"] + weights["bias"]
            scores = np.tanh(hidden) @ weights["score"][:, 0]
        contexts[row, query] = softmax(scores) @ real
    return contexts


def make_attention(attention, dtype="float64"):
    layer = ATTENTIONS[attention](UNITS, dtype=dtype)
    layer.build((None, None, FEATURES))
    return randomize(layer)


READ = np.array([5, 3, 1, 2], np.int32)


@every_attention
def test_attention_equals_numpy(attention):
    layer = make_attention(attention)
    queries, values = normal(4, 2, UNITS, seed=1), normal(4, TIME, FEATURES, seed=2)
    found, _ = layer(queries, layer.prepare(values, READ))
    assert_close(found, attention_reference(attention, layer, queries.numpy(), values.numpy(), READ))


def attend(layer, queries, values, lengths):
    with tf.GradientTape() as tape:
        tape.watch([queries, values])
        contexts, _ = layer(queries, layer.prepare(values, lengths))
        loss = tf.reduce_sum(contexts * normal(*contexts.shape, seed=3, dtype=contexts.dtype))
    sources = [queries, values, *[variable.value for variable in layer.trainable_variables]]
    return contexts, tape.gradient(loss, sources)


@every_attention
@pytest.mark.parametrize("size", [0.0, 1e3])
def test_attention_ignores_padding(attention, size):
    layer = make_attention(attention)
    queries, values = normal(4, 2, UNITS, seed=1), normal(4, TIME, FEATURES, seed=2)
    real = np.swapaxes(real_mask(READ), 0, 1) > 0
    contexts, gradients = attend(layer, queries, values, READ)
    others, other_gradients = attend(layer, queries, tf.where(real, values, size * values), READ)
    np.testing.assert_array_equal(others, contexts)
    for found, expected in zip(other_gradients, gradients, strict=True):
        assert_close(found, expected)
    np.testing.assert_array_equal(gradients[1] * ~real, np.zeros(values.shape))


@every_attention
def test_attention_ignores_the_amount_of_padding(attention):
    layer = make_attention(attention)
    queries, values = normal(4, 2, UNITS, seed=1), normal(4, TIME, FEATURES, seed=2)
    contexts, gradients = attend(layer, queries, values, READ)
    wider = tf.pad(values, [[0, 0], [0, 4], [0, 0]])
    others, other_gradients = attend(layer, queries, wider, READ)
    assert_close(others, contexts)
    other_gradients[1] = other_gradients[1][:, :TIME]
    for found, expected in zip(other_gradients, gradients, strict=True):
        assert_close(found, expected)


@every_attention
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_of_padding_alone_stay_finite(attention, dtype):
    layer = make_attention(attention, dtype)
    queries = normal(2, 1, UNITS, seed=1, dtype=layer.variable_dtype)
    values = normal(2, TIME, FEATURES, seed=2, dtype=layer.variable_dtype)
    contexts, gradients = attend(layer, queries, values, np.array([0, 2], np.int32))
    for tensor in [contexts, *gradients]:
        assert np.all(np.isfinite(tf.cast(tensor, "float64")))
    alone, _ = attend(layer, queries[1:], values[1:, :2], np.array([2], np.int32))
    np.testing.assert_allclose(tf.cast(contexts[1:], "float64"), tf.cast(alone, "float64"), rtol=2e-2, atol=2e-2)


@every_attention
def test_mixed_bfloat16_attention_is_near_float32(attention):
    queries, values = normal(4, 2, UNITS, seed=1, dtype="float32"), normal(4, TIME, FEATURES, seed=2, dtype="float32")
    contexts = {}
    for dtype in ("mixed_bfloat16", "float32"):
        layer = make_attention(attention, dtype)
        contexts[dtype], _ = layer(queries, layer.prepare(values, READ))
        assert contexts[dtype].dtype == tf.float32
    np.testing.assert_allclose(contexts["mixed_bfloat16"], contexts["float32"], atol=3e-2)


# Cross-entropy

CLASSES = 7


def label_loss(logits, labels, smoothing):
    """By Keras, from one-hot labels."""
    loss = keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing, reduction="none", dtype="float64")
    return loss(tf.one_hot(labels, CLASSES, dtype=logits.dtype), logits)


def in_graph(fn):
    return tf.function(fn, autograph=False)


def output_layer(positions=5, units=3):
    """Features, kernel and bias in float64."""
    return 3 * normal(positions, units), normal(CLASSES, units, seed=2), normal(CLASSES, seed=3)


def projected(parameters, labels, smoothing, dtype="float64"):
    return projected_cross_entropy(*parameters, labels, smoothing=smoothing, compute_dtype=dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("run", [lambda fn: fn, in_graph], ids=["eager", "graph"])
@pytest.mark.parametrize("label_dtype", ["int32", "int64"])
def test_projected_cross_entropy_equals_keras(smoothing, run, label_dtype):
    parameters, labels = output_layer(), tf.constant([0, 6, 3, 3, 1], label_dtype)
    weights = normal(5, seed=1)

    def ours(*parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            loss, nll = projected(parameters, labels, smoothing)
            total = tf.reduce_sum(weights * loss)
        return loss, nll, tape.gradient(total, parameters)

    with tf.GradientTape() as tape:
        tape.watch(parameters)
        features, kernel, bias = parameters
        logits = tf.matmul(features, kernel, transpose_b=True) + bias
        expected = label_loss(logits, labels, smoothing)
        total = tf.reduce_sum(weights * expected)
    loss, nll, gradients = run(ours)(*parameters)
    assert_close(loss, expected)
    assert_close(nll, label_loss(logits, labels, 0.0))
    for gradient, reference in zip(gradients, tape.gradient(total, parameters), strict=True):
        assert_close(gradient, reference)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("run", [lambda fn: fn, in_graph], ids=["eager", "graph"])
def test_nll_carries_no_gradient(smoothing, run):
    parameters, labels = output_layer(), tf.constant([0, 6, 3, 3, 1])

    def gradient(*of):
        def call(*parameters):
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                loss, nll = projected(parameters, labels, smoothing)
                total = tf.add_n([tf.reduce_sum({"loss": loss, "nll": nll}[name]) for name in of])
            return tape.gradient(total, parameters[0], unconnected_gradients="zero")

        return run(call)(*parameters)

    np.testing.assert_array_equal(gradient("nll"), np.zeros([5, 3]))
    np.testing.assert_array_equal(gradient("loss", "nll"), gradient("loss"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_unlikely_labels_have_their_full_loss(dtype):
    """Probabilities far below what a float holds."""
    kernel, features = tf.constant([[1e4], [-1e4], [0.0]]), tf.constant([[1.0], [-1.0]])
    kernel, features = (tf.cast(x, "float32" if dtype == "bfloat16" else dtype) for x in (kernel, features))
    bias = tf.zeros([3], features.dtype)
    loss, nll = projected((features, kernel, bias), tf.constant([0, 0]), 0.0, dtype)
    np.testing.assert_allclose(nll, [0.0, 2e4], rtol=1e-2)
    assert loss.dtype == features.dtype


def test_projected_cross_entropy_in_bfloat16_is_near_float32():
    parameters = [tf.cast(each, "float32") for each in output_layer(positions=200, units=16)]
    labels = tf.constant(np.random.default_rng(4).integers(0, CLASSES, 200))
    exact, rounded = (projected(parameters, labels, 0.1, dtype)[0] for dtype in ("float32", "bfloat16"))
    assert abs(float(tf.reduce_mean(exact - rounded))) < 0.02
    assert float(tf.reduce_max(tf.abs(exact - rounded))) < 0.5


# Products and dropout


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [1, 30, 31, 32, 33])
def test_widened_products_add_the_products_of_what_was_added(axis, size):
    left, right = normal(4, size), normal(size, 7, seed=1)
    columns, rows = [normal(4, seed=seed) for seed in (2, 3)], [normal(7, seed=seed) for seed in (4, 5)]
    wide = widened(left, columns, 1, "float64"), widened(right, rows, 0, "float64")
    assert wide[0].shape[1] % 32 == 0
    assert wide[0].shape[1] - size < 34
    expected = left @ right + sum(np.outer(column, row) for column, row in zip(columns, rows, strict=True))
    assert_close(wide[0] @ wide[1], expected)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.99])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    """Also of every fourth value, and of neighbours alike: four masks come out of one random number."""
    drop = dropout(rate, 1, tf.constant([[4, 5]]), tf.ones([2]))
    found = drop(tf.ones([200, 501]), 0).numpy()
    zeros, spread = (found == 0).ravel(), 5 * (rate * (1 - rate) / found.size) ** 0.5
    assert abs(zeros.mean() - rate) < spread
    assert all(abs(zeros[start::4].mean() - rate) < 2 * spread for start in range(4))
    assert abs((zeros[1:] & zeros[:-1]).mean() - rate**2) < 2 * spread
    np.testing.assert_allclose(found[found > 0], 1 / (1 - rate), rtol=1e-3)


@pytest.mark.parametrize(("rate", "zeros"), [(0.0, 0), (1e-9, 0), (1 - 1e-9, 1)])
def test_dropout_of_next_to_nothing_and_of_next_to_all(rate, zeros):
    found = dropout(rate, 1, tf.constant([[4, 5]]), tf.ones([2]))(tf.ones([100]), 0).numpy()
    assert (found == 0).mean() == zeros
    assert np.isfinite(found).all()


def test_dropout_has_the_same_mask_in_both_passes():
    values = tf.constant(np.random.default_rng(0).normal(size=(7, 3)), tf.bfloat16)
    drop = dropout(0.4, 1, tf.constant([[4, 5]]), tf.ones([2]))
    with tf.GradientTape() as tape:
        tape.watch(values)
        dropped = drop(values, 0)
    np.testing.assert_array_equal(dropped, values * tape.gradient(dropped, values))
    assert drop(tf.zeros([0, 3]), 0).shape == (0, 3)


def test_dropout_depends_on_everything_that_it_is_given():
    given = {"seed": 1, "pieces": tf.constant([[4, 5]]), "weights": tf.ones([2])}
    others = [
        {"seed": 2},
        {"pieces": tf.constant([[5, 4]])},
        {"pieces": tf.constant([[4, 6]])},
        {"weights": tf.constant([1.0, 1.0000001])},
    ]
    values = tf.ones([1000])
    first = dropout(0.5, **given)(values, 0).numpy()
    np.testing.assert_array_equal(dropout(0.5, **given)(values, 0), first)
    for other in others:
        assert np.mean(dropout(0.5, **given | other)(values, 0).numpy() != first) > 0.4
    assert np.mean(dropout(0.5, **given)(values, 1).numpy() != first) > 0.4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dropout_takes_weights_of_every_float_type(dtype):
    drop = dropout(0.5, 1, tf.constant([4]), tf.ones([3], dtype))
    assert 300 < float(tf.reduce_sum(tf.cast(drop(tf.ones([1000], dtype), 0) > 0, tf.float32))) < 700
