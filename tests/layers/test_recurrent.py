"""LSTM and GRU against Keras, forward and backward; padding never matters."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import FLOATS, assert_close, normal, randomize

from seq2split.common.compilation import tracing_for_xla
from seq2split.layers import GRU, LSTM, products
from seq2split.layers.recurrent import _SATURATED

CELLS = {"lstm": (LSTM, keras.layers.LSTM, {}), "gru": (GRU, keras.layers.GRU, {"reset_after": True})}
TIME, ROWS, FEATURES, UNITS = 5, 6, 4, 3
LENGTHS = np.array([5, 3, 0, 1, 4, 2], np.int32)
every_cell = pytest.mark.parametrize("cell", CELLS)


def real_mask(lengths=LENGTHS, time=TIME):
    """`[time, rows, 1]`: one at real positions."""
    return (np.arange(time)[:, None] < np.asarray(lengths))[:, :, None].astype(np.float64)


def make_layer(cell, *, dtype="float64", reverse=False, features=FEATURES):
    layer = CELLS[cell][0](UNITS, reverse=reverse, dtype=dtype)
    layer.build((None, None, features))
    return randomize(layer)


def make_state(layer, rows=ROWS, dtype="float64"):
    return tuple(normal(rows, UNITS, seed=50 + index, dtype=dtype) for index in range(layer.state_size))


# Against Keras


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
    terms = [tf.reduce_sum(outputs * mask * normal(*outputs.shape, seed=7, dtype=outputs.dtype))]
    terms += [
        tf.reduce_sum(each * normal(*each.shape, seed=8 + index, dtype=each.dtype)) for index, each in enumerate(state)
    ]
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


@every_cell
def test_gates_spread_over_more_columns_change_nothing(cell, monkeypatch):
    layer, inputs = make_layer(cell), normal(TIME, ROWS, FEATURES)
    expected = [traced(layer, LENGTHS, unroll=unroll)(inputs, None) for unroll in (True, False)]
    monkeypatch.setattr(products, "_COLLIDING", UNITS)
    found = [traced(layer, LENGTHS, unroll=unroll)(inputs, None) for unroll in (True, False)]
    assert products.spread(3 * UNITS) > 3 * UNITS
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert_close(one, other)


# In a loop


def traced(layer, lengths, *, unroll, for_xla=False, **options):
    """A function of inputs and state that returns outputs, final state and gradients."""

    def run(inputs, state):
        layer.unroll = unroll
        with tracing_for_xla(for_xla):
            return run_ours(layer, inputs, lengths, state)

    return tf.function(run, autograph=False, **options)


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("for_xla", [False, True])
def test_a_loop_equals_unrolled_steps(cell, reverse, padded, given_state, for_xla):
    layer = make_layer(cell, reverse=reverse)
    state = make_state(layer) if given_state else None
    inputs, lengths = normal(TIME, ROWS, FEATURES), LENGTHS if padded else None
    found = traced(layer, lengths, unroll=False, for_xla=for_xla)(inputs, state)
    expected = traced(layer, lengths, unroll=True)(inputs, state)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert_close(one, other)


@every_cell
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_a_loop_is_near_unrolled_steps(cell, dtype, tolerance):
    layer, inputs = make_layer(cell, dtype=dtype), normal(TIME, ROWS, FEATURES, dtype="float32")
    found, expected = (traced(layer, LENGTHS, unroll=unroll)(inputs, None) for unroll in (False, True))
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, tolerance)


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_xla_compiles_a_loop_in_which_padding_changes_no_bit(cell, reverse):
    layer = make_layer(cell, reverse=reverse, dtype="float32")
    inputs, state = normal(TIME, ROWS, FEATURES, dtype="float32"), make_state(layer, dtype="float32")
    compiled = traced(layer, LENGTHS, unroll="auto", for_xla=True, jit_compile=True)
    results = [compiled(with_garbage(inputs, size), state) for size in (0.5, 1e3)]
    expected = traced(layer, LENGTHS, unroll=True)(inputs, state)
    real = [(outputs * real_mask(), *others) for outputs, *others in (*results, expected)]
    for one, other, unrolled in zip(*map(tf.nest.flatten, real), strict=True):
        np.testing.assert_array_equal(one, other)
        assert_close(one, unrolled, 1e-5)


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_padding_changes_no_bit_in_a_loop(cell, reverse, dtype):
    layer = make_layer(cell, reverse=reverse, dtype=dtype)
    inputs, loop = normal(TIME, ROWS, FEATURES, dtype="float32"), traced(layer, LENGTHS, unroll=False)
    results = [loop(with_garbage(inputs, size), None) for size in (0.5, 1e3)]
    real = [(outputs * real_mask(), *others) for outputs, *others in results]
    for one, other in zip(*map(tf.nest.flatten, real), strict=True):
        np.testing.assert_array_equal(one, other)


@every_cell
@pytest.mark.parametrize("for_xla", [False, True])
def test_a_loop_takes_any_number_of_rows(cell, for_xla):
    layer = make_layer(cell)
    specs = tf.TensorSpec([TIME, None, FEATURES], tf.float64), tf.TensorSpec([None], tf.int32)

    def run(inputs, lengths):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, final = layer(inputs, lengths)
        return outputs, final, tape.gradient([outputs, *final], inputs)

    layer.unroll = False
    with tracing_for_xla(for_xla):
        loop = tf.function(run, autograph=False).get_concrete_function(*specs)
    given = normal(TIME, ROWS, FEATURES), tf.constant(LENGTHS)
    for one, other in zip(*map(tf.nest.flatten, (loop(*given), run(*given))), strict=True):
        assert_close(one, other)


# Padding


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
