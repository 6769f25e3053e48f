"""Parts that XLA compiles against the unsplit program that it compiles: engine_subjects.py, and loops with a bound.

The reference is `Trial.joint`, one `tf.function(jit_compile=True)` with an ordinary tape.
"""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import textwrap
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import SUBJECTS, Case, Subject, floats, integers, variable
from engine_trials import Trial, operations, values, weighted_sum, weights_like

from seq2split.engine import Part, policies
from seq2split.engine.passes import ForwardPass
from seq2split.layers import GRU, LSTM

spec = tf.TensorSpec


def loop(step, state, steps, most):
    """So many steps, but at most `most`."""
    body = lambda i, h: (i + 1, step(h))  # noqa: E731
    return tf.while_loop(lambda i, _: i < steps, body, (0, state), maximum_iterations=most)[1]


# Loops with a static bound: what makes them, from a weight.
LOOPS = {
    "full": lambda w: lambda x: loop(lambda h: tf.tanh(h @ w + x), x, 3, 3),
    "stops early": lambda w: lambda x, n: loop(lambda h: tf.tanh(h @ w + x), x, n, 5),
    "in a loop": lambda w: lambda x, n, m: loop(lambda h: loop(lambda g: tf.tanh(g @ w), h, m, 3) + x, x, n, 4),
    "three deep": lambda w: (
        lambda x: loop(lambda h: loop(lambda g: 1 + loop(lambda f: tf.tanh(f @ w), g, 1, 2), h, 2, 3), x, 2, 3)
    ),
    "in functions": lambda w: twice(tf.function(lambda x, n: loop(lambda h: tf.tanh(h @ w), x, n, 4))),
    "of a function with a loop": lambda w: calling(tf.function(lambda h, n: loop(lambda g: tf.tanh(g @ w), h, n, 4))),
    "scan in a function": lambda w: tf.function(lambda x: tf.scan(lambda h, row: tf.tanh(h * row @ w), x)),
    "map": lambda w: lambda x: tf.map_fn(lambda row: tf.tanh(row @ w) * row, x),
    "in a branch": lambda w: (
        lambda x: tf.cond(x[0, 0, 0] > 0, lambda: loop(lambda h: tf.sin(h @ w), x, 2, 3), lambda: x)
    ),
}
NUMBERS = {
    "stops early": [(3,), (5,), (0,), (9,)],
    "in a loop": [(2, 2), (4, 3), (1, 9)],
    "in functions": [(2,)],
    "of a function with a loop": [(2,)],
}


def twice(function):
    return lambda x, n: function(function(x, n), n + 1) * x


def calling(function):
    return lambda x, n: loop(lambda h: function(h, n) + x, x, n, 3)


def looping(name):
    def make(dtype):
        w = variable(dtype, 4, 4)
        calls = [(floats(dtype, 3, 2, 4), *map(np.int32, numbers)) for numbers in NUMBERS.get(name, [()])]
        return Case(LOOPS[name](w), calls, variables=[w])

    return Subject(name, make)


def recurrent(kind, **options):
    """Our own recurrent layers, which are traced as loops, of padded rows from a given state."""

    def make(dtype):
        layer = kind(3, dtype=dtype, **options)
        layer.build((None, None, 4))
        state = tuple(floats(dtype, 2, 3) for _ in range(layer.state_size))
        return Case(layer, [(floats(dtype, 5, 2, 4), np.array([5, 3], np.int32), state)])

    return Subject(f"{kind.__name__.lower()}{'_reverse' * len(options)}", make)


OWN = {subject.name: subject for subject in (recurrent(LSTM), recurrent(GRU), recurrent(LSTM, reverse=True))}
TABLE = SUBJECTS | {name: looping(name) for name in LOOPS} | OWN
UNBOUNDED = "fixed tensor list size"
EXCLUDED = {
    "while_reads_before": UNBOUNDED,
    "while_reads_inside": UNBOUNDED,
    "while_embeds_inside": UNBOUNDED,
    "while_in_while": UNBOUNDED,
    "nested_function": UNBOUNDED,
    "in a branch": "Resource _Retval",
}
"""What XLA itself can't compile, and what it says."""
ALIKE = {
    *("lstm_unrolled", "gru_unrolled", "attention", "mixed_bfloat16_attention"),
    *("functional_model", "subclassed_model", "method_of_a_model", "bound_method", "lazy_module", "plain_function"),
    *("left_out_variable", "untrainable_variable", "output_twice", "value_under_two_names", "returns_what_it_captured"),
}
"""What is the same to XLA as another subject: how Python names a callable, its variables or its outputs."""
COMPILED = [name for name in TABLE if name not in {*EXCLUDED, *ALIKE}]


@functools.cache
def trial(name, dtype=None):
    return Trial(TABLE[name], dtype or TABLE[name].dtypes[-1], jit_compile=True)


def check_both_passes(subject):
    """Outputs, cotangents, gradients and states; the forward runs once, and no list leaves it."""
    for call, weights in enumerate(subject.weights):
        outputs, residuals = subject.forward(call)
        assert tf.variant not in {each.dtype for each in residuals.tensors}
        results = (outputs, *subject.graph.backward(residuals, weights))
        assert subject.counter.numpy() == 1
        states = values(subject.states)
        expected, expected_states = subject.joint_results[call]
        subject.check(results, expected)
        np.testing.assert_equal(states, expected_states)


def check_snapshots(subject):
    """Gradients are of the values that the forward read."""
    (_, *expected), _ = subject.joint_results[0]
    _, residuals = subject.forward()
    for v in subject.variables:
        v.assign(v + 1)
    subject.check([*subject.graph.backward(residuals, subject.weights[0])], expected)


def check_compilations(subject):
    """Each pass was compiled once for each shape of the inputs, however often it ran."""
    shapes = {tuple(np.shape(each) for each in tf.nest.flatten(args)) for args in subject.calls}
    assert subject.graph.compilations == subject.part.compilations == 2 * len(shapes)


@pytest.mark.parametrize("name", COMPILED)
def test_both_passes_equal_the_joint_program(name):
    subject = trial(name)  # one test for all properties: to compile takes longest
    check_both_passes(subject)
    if not subject.subject.rereads:
        check_snapshots(subject)
    check_compilations(subject)


@pytest.mark.parametrize("name", ["dense", "lstm_while", "self_attention", "stops early", "tied_embedding", "gru"])
def test_both_passes_equal_the_joint_program_in_float32(name):
    check_both_passes(trial(name, "float32"))


@pytest.mark.parametrize("name", ["lstm_while", "dropout", "batch_normalization", "autograph_if", "stops early"])
def test_infer_equals_the_callable_without_training(name):
    subject = trial(name)
    compiled = tf.function(lambda args: subject.direct(args, training=False), jit_compile=True)
    for args in subject.calls:
        subject.reset()
        expected = compiled(tf.nest.map_structure(tf.convert_to_tensor, args))
        subject.reset()
        subject.check(subject.graph.infer(*args), expected)
        np.testing.assert_equal(values(subject.states), subject._initial)


@pytest.mark.parametrize("name", ["gru_while", "sequential", "embedding", "in a loop"])
def test_both_passes_in_one_graph_equal_the_joint_program(name):
    subject = trial(name)
    expected, states = subject.joint_results[0]

    def with_loss(*args, training):
        outputs = subject.direct(args, training)
        return weighted_sum(outputs, subject.weights[0]), outputs

    part = Part(with_loss, variables=subject.variables)
    graph = part.build(*subject.specs, trace=["value_and_gradients"], jit_compile=True)
    subject.reset()
    (_, outputs), inputs_ct, gradients = graph.value_and_gradients(*subject.calls[0])
    subject.check((outputs, inputs_ct, gradients), expected)
    np.testing.assert_equal(values(subject.states), states)
    assert graph.compilations == 1


@pytest.mark.parametrize("name", EXCLUDED)
def test_what_is_excluded_fails_unsplit_as_well(name):
    subject = Trial(TABLE[name], "float64")
    subject.jit_compile = True
    with pytest.raises(tf.errors.OpError, match=EXCLUDED[name]):
        assert subject.joint_results


# Residuals


@pytest.mark.parametrize(
    "name", ["lstm_while", "gru_while", "bidirectional", "scan", "stops early", "in a loop", "map"]
)
def test_loop_residuals_are_dense_and_their_bytes_are_known(name):
    subject = trial(name)
    _, residuals = subject.forward()
    assert subject.graph.residual_bytes == residuals.nbytes > 0
    stacked = [each for each in subject.graph.residual_specs if "_dense" in each.name]
    assert stacked
    assert all(each.shape.is_fully_defined() and each.kind == "computed" for each in stacked)


@pytest.mark.parametrize("name", OWN)
def test_own_recurrent_layers_are_a_loop_either_way_and_keep_what_they_stack(name):
    graph = trial(name).graph
    forward, backward = (operations(each.concrete) for each in graph.passes[ForwardPass].functions)
    assert [sum(count for kind, count in each.items() if "While" in kind) for each in (forward, backward)] == [1, 1]
    assert forward["Sigmoid"] > 0
    assert backward["Sigmoid"] == backward["Tanh"] == 0
    kept = [each.shape.as_list() for each in graph.residual_specs if each.kind == "computed" and each.shape.rank == 3]
    assert len(kept) >= 5
    assert all(shape == [5, 2, 3] for shape in kept)


POLICIES = {
    "all": policies.everything,
    "inputs": policies.inputs,
    "products": policies.products,
    "budget": policies.budget(2800),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["gru_while", "sequential", "lstm"])
def test_save_policies(name, policy):
    check_both_passes(Trial(TABLE[name], "float64", POLICIES[policy], jit_compile=True))


def test_a_budget_counts_the_lists_of_loops():
    part = Part(keras.layers.GRU(3, return_sequences=True), save=policies.budget(500))
    with pytest.raises(ValueError, match=r"at least [\d,]+ bytes must be kept"):  # a loop that reads variables is kept
        part.build(spec([2, 9, 4]), jit_compile=True)


def test_dropout_mask_is_the_same_in_both_passes():
    graph = Part(keras.layers.Dropout(0.5)).build(spec([20, 20]), jit_compile=True)
    x = 1 + np.abs(floats("float32", 20, 20))
    kept = []
    for _ in range(2):
        outputs, residuals = graph.forward(x)
        (inputs_ct,), _ = graph.backward(residuals, tf.ones([20, 20]))
        np.testing.assert_array_equal(outputs == 0, inputs_ct == 0)
        assert 0 < np.mean(outputs == 0) < 1
        kept.append(outputs)
    assert np.any(kept[0] != kept[1]), "each forward draws a mask of its own"


# It is XLA that runs them


COUNTED = """
    import keras, tensorflow as tf
    from seq2split.engine import Part
    part = Part(keras.layers.LSTM(3))
    two, any = (part.build(tf.TensorSpec([rows, 4, 2], tf.float32), jit_compile=True) for rows in (2, None))
    for graph, rows in [(two, 2), (any, 3), (two, 2), (any, 3), (any, 5)]:
        inputs = tf.ones([rows, 4, 2])
        outputs, residuals = graph.forward(inputs)
        graph.backward(residuals, outputs)
        graph.infer(inputs)
    print(part.compilations, part.traces)
"""


def test_compilations_are_those_that_xla_makes(tmp_path):
    environment = {
        "XLA_FLAGS": f"--xla_dump_to={tmp_path}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": ":".join(sys.path),
    }
    run = [sys.executable, "-c", textwrap.dedent(COUNTED)]
    done = subprocess.run(run, check=True, capture_output=True, text=True, env=environment)
    compilations, traces = map(int, done.stdout.split())
    assert len(list(tmp_path.glob("*before_optimizations.txt"))) == compilations == 3 * 3
    assert traces == 2 * 2 + 1  # the first trace made the variables and was repeated


@pytest.mark.parametrize("name", ["reads_then_assigns", "shared_seeds"])
def test_compiling_ahead_changes_no_state(name):
    subject = Trial(TABLE[name], "float64", jit_compile=True)
    graph = subject.part.build(*subject.specs, trace=(), jit_compile=True)
    subject.reset()
    graph.compile("forward", "infer")
    np.testing.assert_equal(values(subject.states), subject._initial)
    assert (graph.compilations, int(subject.counter)) == (3, 0)
    subject.graph = graph
    check_both_passes(subject)
    graph.compile("forward")
    graph.infer(*subject.calls[0])
    assert graph.compilations == 3


def test_compiling_ahead_leaves_alone_what_it_can_not_compile():
    part = Part(lambda x: 2 * x, variables=[])
    for graph in (part.build(spec([2])), part.build(spec([None]), jit_compile=True)):
        graph.compile("forward", "infer")
        assert (graph.compilations, len(graph.passes)) == (0, 2)


@pytest.mark.parametrize("traced", ["forward", "infer", "value_and_gradients"])
def test_what_xla_cannot_compile_is_an_error_that_names_the_part(traced):
    def fn(x):
        return tf.reduce_sum(x) + tf.cast(tf.strings.length(tf.strings.as_string(x[0])), tf.float32)

    part = Part(fn, variables=[], name="encoder")
    getattr(part.build(spec([2])), traced)(tf.ones(2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations") as caught:
        getattr(part.build(spec([2]), jit_compile=True), traced)(tf.ones(2))
    assert "a program that XLA compiles for part 'encoder'" in caught.value.__notes__[0]


def test_backward_is_compiled():
    @tf.custom_gradient
    def fn(x):
        return 2 * x, lambda y: y * tf.cast(tf.strings.length(tf.strings.as_string(y[0])), tf.float32)

    graph = Part(fn, variables=[], name="encoder").build(spec([2]), jit_compile=True)
    outputs, residuals = graph.forward(tf.ones(2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations"):
        graph.backward(residuals, outputs)


def unbounded():
    w = variable("float32", 4, 4)
    fn = lambda x: tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, tf.tanh(h @ w)), (0, x))[1]  # noqa: E731
    return Part(fn, variables=[w], name="encoder")


def loop_in_a_loop_in_a_function():
    w = variable("float32", 4, 4)
    inner = tf.function(lambda x: loop(lambda h: loop(lambda g: tf.tanh(g @ w), h, 2, 2), x, 2, 2))
    return Part(inner, variables=[w], name="encoder")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unbounded, r"part 'encoder': .*the length has no bound.*maximum_iterations=n.*without jit_compile"),
        (loop_in_a_loop_in_a_function, r"part 'encoder': .*loop within a loop. Take the tf.function off"),
    ],
)
def test_errors_teach(make, message):
    make().build(spec([2, 4]))
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make().build(spec([2, 4]), jit_compile=True)


# What surrounds them


def test_graphs_are_freed():
    part = Part(keras.layers.LSTM(3))
    graph = part.build(spec([2, 4, 3]), jit_compile=True)
    outputs, residuals = graph.forward(floats("float32", 2, 4, 3))
    graph.backward(residuals, weights_like(outputs))
    traced = graph.passes[ForwardPass]
    references = [weakref.ref(each) for each in (graph, traced.run.concrete.graph, traced.backward.concrete.graph)]
    del graph, traced, residuals, outputs
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert part.compilations == 0


def test_exported_parts_are_compiled(tmp_path):
    part = Part(keras.Sequential([keras.Input([3]), keras.layers.Embedding(5, 4), keras.layers.LSTM(2)]))
    graph = part.build(spec([2, 3], tf.int32), jit_compile=True)
    part.export(tmp_path / "part")
    loaded = tf.saved_model.load(tmp_path / "part")
    inputs = integers(2, 3)
    outputs, residuals = graph.forward(inputs)
    _, expected = graph.backward(residuals, tf.ones_like(outputs))
    results = loaded.forward(tf.constant(inputs))
    found = loaded.backward(results["residuals"], tf.ones_like(outputs))
    np.testing.assert_allclose(results["outputs"], outputs, rtol=1e-6)
    for ours, theirs in zip(found["gradients"], expected, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs), rtol=1e-5, atol=1e-6)
    for function in (loaded.forward, loaded.backward, loaded.infer):
        library = function.concrete_functions[0].graph.as_graph_def().library.function
        assert any(node.attr["_XlaMustCompile"].b for each in library for node in each.node_def)
