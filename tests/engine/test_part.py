"""The split engine against the unsplit joint graph: a table of subjects (engine_subjects.py) × properties.

`joint` is the independent reference: one plain `tf.function` with an ordinary `tf.GradientTape`, whose loss is a fixed
random weighted sum of all float outputs. The split must return the same outputs, cotangents, gradients and states.
"""

from __future__ import annotations

import functools
import gc
import re
import weakref
from collections import OrderedDict

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import SUBJECTS, Affine, Mixed, Pair, SharedSeeds, as_spec, floats, integers, variable
from engine_trials import (
    ROWS,
    TOLERANCES,
    Trial,
    bookkeeping,
    close,
    is_float,
    operations,
    values,
    weighted_sum,
    weights_like,
)

from seq2split.engine import Part, Residuals
from seq2split.engine.passes import ForwardPass, InferencePass

every_subject = pytest.mark.parametrize(("name", "dtype"), ROWS)
spec = tf.TensorSpec


@functools.cache
def trial(name: str, dtype: str) -> Trial:
    return Trial(name, dtype)


# 1. The joint graph is the reference


@every_subject
def test_gradients_equal_those_of_the_joint_graph(name, dtype):
    subject = trial(name, dtype)
    for call, weights in enumerate(subject.weights):
        outputs, residuals = subject.forward(call)
        subject.check((outputs, *subject.graph.backward(residuals, weights)), subject.joint_results[call][0])


@every_subject
def test_both_passes_in_one_graph_equal_the_joint_graph(name, dtype):
    subject = trial(name, dtype)
    weights = subject.weights[0]

    def with_loss(*args, training):
        outputs = subject.direct(args, training)
        return weighted_sum(outputs, weights), outputs

    expected, states = subject.joint_results[0]
    part = Part(with_loss, variables=subject.variables)
    graph = part.build(*tf.nest.map_structure(as_spec, subject.calls[0]), trace=["value_and_gradients"])
    subject.reset()
    (loss, outputs), inputs_ct, gradients = graph.value_and_gradients(*subject.calls[0])
    subject.check((outputs, inputs_ct, gradients), expected)
    close(loss, weighted_sum(expected[0], weights), TOLERANCES[dtype])
    np.testing.assert_equal(values(subject.states), states)


@pytest.mark.parametrize("name", [s.name for s in SUBJECTS.values() if s.sparse])
def test_embedding_gradients_stay_sparse(name):
    subject = trial(name, SUBJECTS[name].dtypes[0])
    _, residuals = subject.forward()
    _, gradients = subject.graph.backward(residuals, subject.weights[0])
    (sparse,) = [g for g in gradients if isinstance(g, tf.IndexedSlices)]
    (table,) = [v for v, g in zip(subject.graph.variables, gradients, strict=True) if g is sparse]
    assert tuple(sparse.dense_shape) == tuple(table.shape)
    assert len(sparse.indices) > table.shape[0], "duplicates are kept, to be summed by who applies them"


@pytest.mark.parametrize("loss_ct", [3, np.float32(3), tf.constant(3.0), tf.constant(3, tf.bfloat16)])
def test_scaling_the_loss_scales_the_gradients(loss_ct):
    graph = Part(keras.Sequential([keras.layers.Dense(1), keras.layers.Lambda(tf.reduce_mean)])).build(spec([2, 3]))
    x = floats("float32", 2, 3)
    once, thrice = graph.value_and_gradients(x), graph.value_and_gradients(x, loss_ct=loss_ct)
    np.testing.assert_array_equal(once[0], thrice[0])
    np.testing.assert_allclose(3 * once[1][0], thrice[1][0], rtol=1e-6)
    np.testing.assert_allclose(3 * once[2][0], thrice[2][0], rtol=1e-6)


# 2 and 3. The forward runs once, and the backward runs none of it


@every_subject
def test_forward_runs_once(name, dtype):
    subject = trial(name, dtype)
    _, residuals = subject.forward()
    assert subject.counter.numpy() == 1
    before = values(subject.states)
    subject.graph.backward(residuals, subject.weights[0])
    assert subject.counter.numpy() == 1
    np.testing.assert_equal(values(subject.states), before)


def test_recompute_grad_runs_its_forward_again_by_design():
    w, counter = variable("float32", 4, 3), tf.Variable(0, trainable=False)

    def fn(x):
        counter.assign_add(1)
        return tf.tanh(x @ w)

    graph = Part(tf.recompute_grad(fn), variables=[w]).build(spec([2, 4]))
    outputs, residuals = graph.forward(floats("float32", 2, 4))
    assert counter.numpy() == 1
    graph.backward(residuals, outputs)
    assert counter.numpy() == 2


def test_what_is_only_measured_leaves_its_shape():
    """The gradients of sums read the shapes of what is added up, and nothing else of it."""
    bias = variable("float64", 3)

    def fn(x):
        return tf.exp(2.0 * x + bias), tf.reduce_sum(tf.abs(x) * 3.0 + bias)

    graph = Part(fn, variables=[bias]).build(tf.TensorSpec([None, 3], tf.float64))
    computed = [(each.dtype, each.shape.as_list()) for each in graph.residual_specs if each.kind == "computed"]
    assert computed == [(tf.int64, [6])]  # three shapes of two dimensions
    for rows in (2, 5):
        x = tf.constant(floats("float64", rows, 3))
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = fn(x)
        weights = [tf.ones_like(each) for each in outputs]
        expected = tape.gradient(outputs, [x, bias], output_gradients=weights)
        _, residuals = graph.forward(x)
        assert residuals.nbytes == 6 * 8
        (found,), gradients = graph.backward(residuals, tuple(weights))
        for left, right in zip([found, *gradients], expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12)


@every_subject
def test_backward_runs_no_forward_operation(name, dtype):
    subject = trial(name, dtype)
    traced = subject.graph.passes[ForwardPass]
    forward, backward = operations(traced.run.concrete), operations(traced.backward.concrete)
    # Type by type, the two graphs together hold no more operations than the joint graph; but for bookkeeping, and the
    # counter.
    assert set(forward + backward - operations(subject.joint)) <= bookkeeping(backward)
    stateful = [operation for operation in backward if re.search("Random|Rng|Assign|ReadVariable", operation)]
    assert stateful == [] or subject.subject.rereads


# 4 and 5. State


@every_subject
def test_state_advances_as_by_one_unsplit_call(name, dtype):
    subject = trial(name, dtype)
    for call, weights in enumerate(subject.weights):
        _, residuals = subject.forward(call)
        subject.graph.backward(residuals, weights)
        np.testing.assert_equal(values(subject.states), subject.joint_results[call][1])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_mask_is_the_same_in_both_passes(rate):
    graph = Part(keras.layers.Dropout(rate)).build(spec([20, 20]))
    x = 1 + np.abs(floats("float32", 20, 20))
    kept = []
    for _ in range(2):
        outputs, residuals = graph.forward(x)
        (inputs_ct,), _ = graph.backward(residuals, tf.ones([20, 20]))
        np.testing.assert_array_equal(outputs == 0, inputs_ct == 0)
        assert 0 < np.mean(outputs == 0) < 1
        kept.append(outputs)
    assert np.any(kept[0] != kept[1]), "each forward draws a mask of its own"


def test_shared_seeds_draw_two_masks():
    x = 1 + np.abs(floats("float32", 20, 20))
    graph = Part(SharedSeeds("float32")).build(spec([20, 20]))
    (first, second), _ = graph.forward(x)
    assert np.any((first == 0) != (second == 0))


@every_subject
def test_infer_equals_the_callable_without_training(name, dtype):
    subject = trial(name, dtype)

    @tf.function
    def untrained(args):
        return subject.direct(args, training=False)

    for args in subject.calls:
        subject.reset()
        expected = untrained(tf.nest.map_structure(tf.convert_to_tensor, args))
        subject.reset()
        subject.check(subject.graph.infer(*args), expected)
        np.testing.assert_equal(values(subject.states), subject._initial)
        assert subject.counter.numpy() == 1
    traced = subject.graph.passes[InferencePass]
    assert len(traced.run.concrete.outputs) == len(traced.outputs.specs), "infer saves nothing"


@pytest.mark.parametrize("infer_first", [True, False])
def test_infer_may_be_traced_before_forward(infer_first):
    part = Part(keras.layers.Dense(3))
    graph = part.build(spec([2, 4]), trace=["infer", "forward"] if infer_first else [])
    part.build(spec([5, 4]))
    _, residuals = graph.forward(floats("float32", 2, 4))
    _, gradients = graph.backward(residuals, tf.ones([2, 3]))
    assert [v.name for v in graph.variables] == ["kernel", "bias"]
    assert [tuple(g.shape) for g in gradients] == [(4, 3), (3,)]


# 6 and 7. Residuals


def dense_stack(trainable: bool):
    layers = [keras.layers.Embedding(5, 4), *(keras.layers.Dense(4, activation="tanh") for _ in range(2))]
    for layer in layers:
        layer.trainable = trainable
    return keras.Sequential(layers)


def test_frozen_part_with_integer_inputs_has_no_residuals():
    thawed, frozen = (Part(dense_stack(trainable)).build(spec([2, 3], tf.int32)) for trainable in (True, False))
    assert thawed.residual_bytes > 0
    assert frozen.residual_specs == ()
    outputs, residuals = frozen.forward(integers(2, 3))
    assert residuals.nbytes == 0
    assert frozen.backward(residuals, tf.ones_like(outputs)) == ((None,), [])


def test_frozen_kernel_costs_no_residual():
    def graph(trainable):
        layers = [keras.layers.Dense(4), keras.layers.Dense(4, trainable=trainable), keras.layers.Dense(4)]
        return Part(keras.Sequential(layers)).build(spec([2, 4]))

    thawed, frozen = graph(True), graph(False)
    # The gradient of a kernel reads what enters it: [2, 4] floats.
    assert thawed.residual_bytes - frozen.residual_bytes == 2 * 4 * 4
    outputs, residuals = frozen.forward(floats("float32", 2, 4))
    assert len(frozen.backward(residuals, tf.ones_like(outputs))[1]) == 4


@pytest.mark.parametrize("how", ["left out", "untrainable"])
def test_frozen_variable_gets_no_gradient_and_costs_no_residual(how):
    def graph(frozen):
        w, v = variable("float32", 4, 4), tf.Variable(tf.ones([4, 4]), trainable=how == "left out" or not frozen)
        kept = [w] if frozen and how == "left out" else [w, v]
        return Part(lambda x: tf.sin(x) @ v @ w, variables=kept).build(spec([2, 4]))

    thawed, frozen = graph(False), graph(True)
    assert (len(thawed.variables), len(frozen.variables)) == (2, 1)
    assert thawed.residual_bytes - frozen.residual_bytes == 2 * 4 * 4


def address(tensor) -> int | None:
    """Where a tensor lies in memory; `None` where that cannot be asked."""
    tensor = tensor.value if isinstance(tensor, keras.Variable) else tensor
    tensor = tensor.read_value() if isinstance(tensor, tf.Variable) else tensor
    return np.asarray(memoryview(tensor)).__array_interface__["data"][0]


NOT_THE_TRUTH = {
    "nested_function": "what leaves a nested function counts as computed, though it may be an input or leave it twice",
    "reads_then_assigns": "the snapshot of a variable that the part itself assigns is a copy, and counts as a variable",
}


@every_subject
def test_residual_specs_predict_the_bytes(name, dtype):
    subject = trial(name, dtype)
    specs = subject.graph.residual_specs
    assert len({s.name for s in specs}) == len(specs)
    assert {s.kind for s in specs} <= {"computed", "random", "variable", "input", "output", "alias"}
    computed = [s for s in specs if s.kind in ("computed", "random")]
    subject.reset()
    inputs = tf.nest.map_structure(tf.convert_to_tensor, subject.calls[0])
    outputs, residuals = subject.graph.forward(*inputs)
    if None in [s.nbytes for s in computed]:
        assert subject.graph.residual_bytes is None
    else:
        assert subject.graph.residual_bytes == sum(s.nbytes for s in computed) == residuals.nbytes
    if dtype == "mixed_bfloat16" or name in NOT_THE_TRUTH:
        return
    # The truth: the distinct buffers that are held, without those of inputs, outputs, variables and constants.
    bindings = subject.graph.passes[ForwardPass].bindings
    apart = [x for x in [*tf.nest.flatten((inputs, outputs)), *subject.states] if x is not None]
    apart += [at for kind, at in bindings if kind == "constant" and at.dtype != tf.resource]
    numbers = [t for t in residuals.tensors if t.dtype not in (tf.variant, tf.resource)]
    held = {address(t): t.shape.num_elements() * t.dtype.size for t in numbers}
    truth = sum(held[at] for at in held.keys() - {address(x) for x in apart})
    # TensorFlow may hold equal scalars, such as the counters of two loops, once.
    assert truth <= residuals.nbytes <= truth + 4 * sum(t.shape.rank == 0 for t in numbers)


def test_unknown_dimensions_and_loop_lists_have_no_predicted_bytes():
    assert trial("unknown_batch", "float32").graph.residual_bytes is None
    assert trial("lstm_while", "float32").graph.residual_bytes is None
    assert trial("lstm_unrolled", "float32").graph.residual_bytes > 0


# 8. Building and tracing


@pytest.mark.parametrize("name", [s.name for s in SUBJECTS.values() if s.keras])
def test_second_build_shares_variables(name):
    subject = SUBJECTS[name]
    case = subject.make(subject.dtypes[0])
    part = Part(case.fn)
    first = part.build(*case.signature())
    larger = tf.nest.map_structure(lambda x: spec([3, *(size or 5 for size in x.shape[1:])], x.dtype), case.signature())
    traces = part.traces
    second = part.build(*larger)
    assert part.traces == traces + 1
    assert (
        [id(v) for v in first.variables]
        == [id(v) for v in second.variables]
        == [id(v) for v in part.trainable_variables]
    )
    arrays = tf.nest.map_structure(lambda x: tf.ones(x.shape, x.dtype), larger)
    outputs, residuals = second.forward(*arrays)
    _, gradients = second.backward(residuals, weights_like(outputs))
    assert [tuple(g.shape) for g in gradients] == [tuple(v.shape) for v in part.trainable_variables]


@every_subject
def test_calls_of_a_built_graph_trace_nothing(name, dtype):
    subject = trial(name, dtype)
    subject.graph.infer(*subject.calls[0])
    traces = subject.part.traces
    for _ in range(2):
        for call, weights in enumerate(subject.weights):
            _, residuals = subject.forward(call)
            subject.graph.backward(residuals, weights)
            subject.graph.infer(*subject.calls[call])
    assert subject.part.traces == traces
    assert subject.counter.numpy() == 2  # forward and infer since the last reset


def test_passes_are_traced_once_and_when_asked():
    part = Part(keras.Sequential([keras.Input([4]), keras.layers.Dense(1), keras.layers.Lambda(tf.reduce_mean)]))
    graph = part.build(spec([2, 4]), trace=[])
    assert part.traces == 0
    x = floats("float32", 2, 4)
    for call, traces in [(graph.infer, 1), (graph.value_and_gradients, 2), (graph.forward, 3)]:
        call(x)
        call(x)
        assert part.traces == traces
    part.build(spec([2, 4]), trace=["infer", "forward", "value_and_gradients"])
    assert part.traces == 6


# 9. Snapshots


@every_subject
def test_gradients_are_of_the_values_that_the_forward_read(name, dtype):
    subject = trial(name, dtype)
    if subject.subject.rereads:
        pytest.skip("reads its variables in the backward by design")
    (_, *expected), _ = subject.joint_results[0]
    _, residuals = subject.forward()
    for v in subject.variables:
        v.assign(v + 1)
    actual = subject.graph.backward(residuals, subject.weights[0])
    subject.check([*actual], expected)


# 10. What surrounds the calls


@pytest.mark.parametrize("persistent", [True, False])
def test_outer_tape_does_not_see_the_calls(persistent):
    part = Part(keras.layers.Dense(3, activation="tanh"))
    graph, x = part.build(spec([2, 4])), tf.Variable(floats("float32", 2, 4))
    with tf.GradientTape(persistent=persistent) as tape:
        tape.watch(part.trainable_variables[0].value)
        outputs, residuals = graph.forward(x)
        (inputs_ct,), gradients = graph.backward(residuals, 2 * outputs)
        total = (
            tf.reduce_sum(outputs)
            + tf.reduce_sum(inputs_ct)
            + tf.reduce_sum(gradients[0])
            + tf.reduce_sum(graph.infer(x))
        )
    sources = [x, *(v.value for v in part.trainable_variables)]
    assert tape.gradient(total, sources) == [None] * 3


@pytest.mark.parametrize("passed", ["forward", "infer", "value_and_gradients"])
@pytest.mark.parametrize("trace", [[], ["forward", "infer", "value_and_gradients"]])
def test_call_inside_a_tf_function_is_refused(passed, trace):
    graph = Part(keras.Sequential([keras.layers.Dense(1), keras.layers.Lambda(tf.reduce_mean)])).build(
        spec([2, 4]), trace=trace
    )
    with pytest.raises(RuntimeError, match=r"(?s)part graphs are called eagerly: take the call out"):
        tf.function(lambda x: getattr(graph, passed)(x))(tf.ones([2, 4]))
    _, residuals = graph.forward(tf.ones([2, 4]))  # the graph is not spoiled
    assert len(graph.backward(residuals, 1.0)[1]) == 2


def test_backward_inside_a_tf_function_is_refused():
    graph = Part(lambda x: x * x, variables=[]).build(spec([2]))
    _, residuals = graph.forward(tf.ones(2))
    with pytest.raises(RuntimeError, match="called eagerly"):
        tf.function(lambda ct: graph.backward(residuals, ct))(tf.ones(2))
    assert not residuals.consumed
    graph.backward(residuals, tf.ones(2))


# 11. What lives, and what is freed


def test_live_residuals_are_counted():
    graph = Part(keras.layers.Dense(3)).build(spec([2, 4]))
    x = floats("float32", 2, 4)
    assert graph.live_residuals == 0
    outputs, first = graph.forward(x)
    _, second = graph.forward(x)
    assert graph.live_residuals == 2
    graph.infer(x)
    graph.backward(first, outputs)
    assert (graph.live_residuals, first.consumed, second.consumed) == (1, True, False)
    assert first.nbytes == 0
    del second
    gc.collect()
    assert graph.live_residuals == 0


@pytest.mark.parametrize("name", ["dense", "lstm_while", "dropout", "nested_function", "cond", "nests"])
def test_graphs_are_freed(name):
    # Not those that call tf.custom_gradient or tf.recompute_grad: TensorFlow's gradient registry keeps them for ever.
    case = SUBJECTS[name].make("float32")
    part = Part(case.fn, variables=case.variables)
    graph = part.build(*case.signature(), trace=["forward", "infer"])
    outputs, residuals = graph.forward(*case.calls[0])
    graph.backward(residuals, weights_like(outputs))
    held = [graph, *(graph.passes[kind].run.concrete.graph for kind in (ForwardPass, InferencePass))]
    held += [graph.passes[ForwardPass].backward.concrete.graph]
    references = [weakref.ref(x) for x in held]
    del graph, held, residuals, outputs
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
    part.build(*case.signature())


def test_residuals_are_released_by_the_backward():
    graph = Part(lambda x: tf.exp(x) * tf.exp(2 * x), variables=[]).build(spec([2]))
    outputs, residuals = graph.forward(tf.ones(2))
    tensors = [weakref.ref(t) for t in residuals.held]
    assert tensors
    graph.backward(residuals, outputs)
    assert [t() for t in tensors] == [None] * len(tensors)


# 12. Errors that teach


def dense_graph(batch=2, **options):
    return Part(keras.layers.Dense(3), name="encoder").build(spec([batch, 4]), **options)


def nest_graph():
    return Part(lambda pair: (pair["x"], {"y": pair["n"]}), variables=[], name="encoder").build(
        {"x": spec([2]), "n": spec([2], tf.int32)}
    )


def twice():
    graph = dense_graph()
    outputs, residuals = graph.forward(tf.ones([2, 4]))
    graph.backward(residuals, outputs)
    graph.backward(residuals, outputs)


def of_another():
    part = Part(keras.layers.Dense(3), name="encoder")
    small, large = part.build(spec([2, 4])), part.build(spec([5, 4]))
    _, residuals = small.forward(tf.ones([2, 4]))
    large.backward(residuals, tf.ones([5, 3]))


def swapped():
    graph = dense_graph()
    outputs, residuals = graph.forward(tf.ones([2, 4]))
    graph.backward(outputs, residuals)


def creates_per_shape():
    made = {}

    def fn(x):
        if x.shape[0] not in made:
            made[x.shape[0]] = tf.Variable(tf.ones([]), trainable=False, name=f"scale_{x.shape[0]}")
        return x * made[x.shape[0]]

    part = Part(fn, variables=[], name="encoder")
    part.build(spec([2]))
    part.build(spec([3]))


def creates_every_time():
    Part(lambda x: x * tf.Variable(2.0, trainable=False, name="two"), variables=[], name="encoder").build(spec([2]))


class PerShape(keras.Layer):
    def call(self, x):
        name = f"scale_{x.shape[0]}"
        if not hasattr(self, name):
            self._tracker.unlock()  # Keras itself refuses where it can
            setattr(self, name, self.add_weight(shape=(), name=name))
        return x * getattr(self, name)


def layer_creates_per_shape():
    part = Part(PerShape(), name="encoder")
    part.build(spec([2]))
    part.build(spec([3]))


def adopts_a_variable():
    elsewhere = tf.Variable(1.0, name="elsewhere")

    class Adopting(tf.Module):
        def __call__(self, x):
            if x.shape[0] == 3:
                self.adopted = elsewhere
            return x * elsewhere

    part = Part(Adopting(), name="encoder")
    part.build(spec([2]))
    part.build(spec([3]))


def unnamed():
    w, b = tf.Variable(tf.ones([4, 3]), name="kernel"), tf.Variable(tf.ones([3]), name="bias")
    Part(lambda x: x @ w + b, name="encoder").build(spec([2, 4]))


def no_scalar():
    Part(lambda x: {"loss": x}, variables=[], name="encoder").build(spec([2])).value_and_gradients(tf.ones(2))


def loss_graph():
    return Part(tf.reduce_sum, variables=[], name="encoder").build(spec([2]))


def ragged():
    Part(lambda x: tf.RaggedTensor.from_row_lengths(x, [2]), variables=[], name="encoder").build(spec([2]))


def cotangents(make, *inputs):
    def backward(outputs_ct):
        graph = make()
        _, residuals = graph.forward(*inputs)
        graph.backward(residuals, outputs_ct)

    return backward


dense_backward = cotangents(dense_graph, np.ones([2, 4], "float32"))
nest_backward = cotangents(nest_graph, {"x": np.ones(2, "float32"), "n": np.ones(2, "int32")})

# name: what to do, the error, and what its message holds: what was given, what was expected, the mend.
ERRORS = {
    "shape": (
        lambda: dense_graph().forward(np.ones([2, 5], "float32")),
        ValueError,
        ["part 'encoder'", "argument[0]", "[2, 5]", "expected [2, 4]", "part.build("],
    ),
    "rank": (
        lambda: dense_graph().infer(1.0),
        ValueError,
        ["argument[0]", "shape []", "expected [2, 4]", "part.build("],
    ),
    "dtype": (
        lambda: dense_graph().forward(np.ones([2, 4])),
        ValueError,
        ["part 'encoder'", "argument[0]", "float64", "expected float32", "tf.cast(x, tf.float32)"],
    ),
    "leaf path": (
        lambda: nest_graph().forward({"x": np.ones(2, "float32"), "n": np.ones(2, "int64")}),
        ValueError,
        ["argument[0]['n']", "int64", "expected int32", "tf.cast"],
    ),
    "not a tensor": (
        lambda: dense_graph().forward(None),
        ValueError,
        ["part 'encoder'", "argument[0] is None", "expected a tensor or an array of float32"],
    ),
    "list": (
        lambda: dense_graph().forward([[1.0, 2.0, 3.0, 4.0]] * 2),
        ValueError,
        ["part 'encoder'", "([[1.0, 2.0", "expected (float32[2, 4],)", "a Python list is a nest, not an array"],
    ),
    "too many arguments": (
        lambda: dense_graph().forward(tf.ones([2, 4]), tf.ones([2])),
        ValueError,
        ["(float32[2, 4], float32[2])", "expected (float32[2, 4],)", "Give one entry for each argument"],
    ),
    "other keys": (
        lambda: nest_graph().infer({"x": tf.ones(2), "m": tf.ones(2, tf.int32)}),
        ValueError,
        ["'m': int32[2]", "expected ({", "'n': int32[2]", "Give one entry for each argument, in the same nest"],
    ),
    "used twice": (twice, ValueError, ["'encoder'", "an earlier backward has used", "Run forward again"]),
    "of another graph": (
        of_another,
        ValueError,
        [
            "PartGraph('encoder', (float32[5, 4],))",
            "PartGraph('encoder', (float32[2, 4],))",
            "expected its own",
            "go back",
        ],
    ),
    "swapped": (
        swapped,
        TypeError,
        ["was given EagerTensor", "expected what forward returned", "backward(residuals, "],
    ),
    "cotangent nest": (
        lambda: nest_backward(tf.ones(2)),
        ValueError,
        ["part 'encoder'", "cotangents for its outputs", "nest float32[2]", "expected (float32[2], {", "same nest"],
    ),
    "cotangent keys": (lambda: nest_backward((None, {"z": None})), ValueError, ["'z': None", "'y': int32[2]"]),
    "cotangent shape": (
        lambda: dense_backward(tf.ones([2, 4])),
        ValueError,
        ["the cotangent of output", "[2, 4]", "expected [2, 3]"],
    ),
    "cotangent dtype": (
        lambda: dense_backward(np.ones([2, 3])),
        ValueError,
        ["the cotangent of output", "float64", "expected float32", "tf.cast"],
    ),
    "variable in a second call": (
        creates_per_shape,
        ValueError,
        ["'encoder'", "scale_3", "first call only", "__init__"],
    ),
    "variable in every call": (creates_every_time, ValueError, ["'encoder'", "two", "first call only", "__init__"]),
    "variable of a layer in a second call": (
        layer_creates_per_shape,
        ValueError,
        ["'encoder'", "scale_3", "first call only", "__init__"],
    ),
    "variable adopted in a second call": (
        adopts_a_variable,
        ValueError,
        ["'encoder'", "elsewhere", "first call only", "__init__"],
    ),
    "unnamed variables": (
        unnamed,
        ValueError,
        ["'encoder'", "kernel", "bias", "variables=[...]", "empty list freezes"],
    ),
    "no spec": (
        lambda: Part(keras.layers.Dense(3), name="encoder").build({"x": np.ones(2)}),
        TypeError,
        ["part 'encoder'", "argument[0]['x']", "array([1., 1.])", "a tf.TensorSpec was expected", "dense components"],
    ),
    "unknown pass": (
        lambda: dense_graph(trace=["backward"]),
        ValueError,
        ["'encoder'", "no pass 'backward'", "forward, value_and_gradients, infer"],
    ),
    "one string for passes": (lambda: dense_graph(trace="forward"), ValueError, ["no pass", "forward"]),
    "no callable": (lambda: Part(3), TypeError, ["a callable", "Keras layer", "given 3"]),
    "no scalar": (
        no_scalar,
        ValueError,
        ["part 'encoder'", "returns a scalar loss", "returns {'loss': float32[2]}", "Reduce the loss to a scalar"],
    ),
    "no scalar cotangent": (
        lambda: loss_graph().value_and_gradients(tf.ones(2), loss_ct=[1.0, 2.0]),
        ValueError,
        ["'encoder'", "loss_ct of shape [2]", "expected a scalar", "Reduce it"],
    ),
    "cotangent of another size than the forward had": (
        lambda: cotangents(lambda: dense_graph(batch=None), np.ones([2, 4], "float32"))(tf.ones([5, 3])),
        ValueError,
        ["the cotangent of output", "[5, 3]", "expected [2, 3]"],
    ),
    "ragged": (ragged, TypeError, ["part 'encoder'", "returns a RaggedTensor", "nest of tensors", "dense components"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_teaches(name):
    act, kind, parts = ERRORS[name]
    with pytest.raises(kind) as caught:
        act()
    message = " ".join(str(caught.value).split())
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("wrong", [tf.ones([2, 4]), np.ones([2, 3]), [tf.ones([2, 3])], "text"])
def test_residuals_survive_wrong_cotangents(wrong):
    graph = dense_graph()
    x = floats("float32", 2, 4)
    outputs, residuals = graph.forward(x)
    with pytest.raises(ValueError, match="expected"):
        graph.backward(residuals, wrong)
    assert graph.live_residuals == 1
    _, gradients = graph.backward(residuals, outputs)
    np.testing.assert_allclose(gradients[0], tf.transpose(x) @ outputs, rtol=1e-5)


def test_errors_while_tracing_name_the_part_and_may_be_mended():
    broken = [True]

    def fn(x):
        if broken[0]:
            raise ValueError("broken")
        return x

    part = Part(fn, variables=[], name="encoder")
    with pytest.raises(ValueError, match="broken") as caught:
        part.build(spec([2]))
    assert caught.value.__notes__ == ["while tracing forward of PartGraph('encoder', (float32[2],))"]
    broken[0] = False
    assert part.build(spec([2])).output_specs == spec([2])


# 13. What may be given


def test_arrays_lists_and_scalars_are_inputs():
    fn = lambda x, pair, scale: scale * (x + pair[0]) + pair[1]  # noqa: E731
    graph = Part(fn, variables=[]).build(spec([2]), (spec([2]), spec([])), spec([]))
    given = (np.ones(2, "float32"), [tf.ones(2), np.float32(1)], 3)
    np.testing.assert_array_equal(graph.infer(*given), [7, 7])
    _, residuals = graph.forward(*given)
    inputs_ct, _ = graph.backward(residuals, np.array([1, 2], "float32"))
    assert isinstance(inputs_ct[1], tuple)
    np.testing.assert_array_equal(inputs_ct[1][0], [3, 6])
    np.testing.assert_array_equal(inputs_ct[2], 2 * 1 + 2 * 2)


def test_mappings_of_any_order_are_inputs():
    graph = Part(lambda batch: batch["x"] - batch["a"], variables=[]).build({"x": spec([2]), "a": spec([2])})
    given = OrderedDict(x=3 * np.ones(2, "float32"), a=np.ones(2, "float32"))
    np.testing.assert_array_equal(graph.infer(given), [2, 2])


@every_subject
def test_none_stands_for_zero_cotangents(name, dtype):
    subject = trial(name, dtype)
    outputs, residuals = subject.forward()
    nothing = tf.nest.map_structure(lambda _: None, outputs)
    zeros = tf.nest.map_structure(lambda y: tf.zeros_like(y) if is_float(y) else None, outputs)
    actual = subject.graph.backward(residuals, nothing)
    _, residuals = subject.forward()
    expected = subject.graph.backward(residuals, zeros)
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        assert type(a) is type(b)
        if a is not None:
            assert not np.any(tf.convert_to_tensor(a))


def test_unused_output_gets_the_gradient_of_the_others_alone():
    w = variable("float32", 4, 3)
    graph = Part(lambda x: Pair(x @ w, tf.exp(x @ w)), variables=[w]).build(spec([2, 4]))
    x = floats("float32", 2, 4)
    _, residuals = graph.forward(x)
    (inputs_ct,), (gradient,) = graph.backward(residuals, Pair(tf.ones([2, 3]), None))
    np.testing.assert_allclose(inputs_ct, tf.ones([2, 3]) @ tf.transpose(w), rtol=1e-5)
    np.testing.assert_allclose(gradient, tf.transpose(x) @ tf.ones([2, 3]), rtol=1e-5)


def test_cotangents_of_integers_are_ignored():
    graph = Part(lambda x, n: (2 * x, n), variables=[]).build(spec([2]), spec([2], tf.int32))
    given = (tf.ones(2), tf.ones(2, tf.int32))
    for integer_ct in (None, tf.ones(2)):
        _, residuals = graph.forward(*given)
        (x_ct, n_ct), _ = graph.backward(residuals, (tf.ones(2), integer_ct))
        np.testing.assert_array_equal(x_ct, [2, 2])
        assert n_ct is None


def test_part_without_outputs_runs():
    counter = tf.Variable(0, trainable=False)

    def fn(x):
        counter.assign_add(1)

    graph = Part(fn, variables=[]).build(spec([2]))
    outputs, residuals = graph.forward(tf.ones(2))
    assert (outputs, counter.numpy()) == (None, 1)
    assert graph.backward(residuals, None) == ((None,), [])
    assert graph.infer(tf.ones(2)) is None
    assert counter.numpy() == 2


def test_names_and_specs():
    graph = Part(Mixed("float32"), name="encoder").build(spec([2, 4], tf.int32))
    assert repr(graph) == "PartGraph('encoder', (int32[2, 4],))"
    assert graph.input_specs == (spec([2, 4], tf.int32),)
    assert graph.output_specs == {"last": spec([2, 3]), "scores": spec([2, 4, 2])}
    _, residuals = graph.forward(integers(2, 4))
    assert isinstance(residuals, Residuals)
    assert repr(residuals) == f"Residuals({graph!r}, {residuals.nbytes} bytes)"
    assert Part(Affine("float32").doubled).name == "doubled"
    assert Part(keras.layers.Dense(3, name="scores")).name == "scores"
