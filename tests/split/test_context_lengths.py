"""Models that XLA compiles: they equal the joint graph, compile each part graph once, and read one another at lengths
that are planned.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import split_dags as dags
import split_models as models
from split_dags import TRIPLES, dag_batch
from split_models import MIXED, POSITIONS, TARGETS, assert_close, make_batch, take

import seq2split as s2s
from seq2split.split.context_lengths import ContextLengths
from seq2split.split.wiring import Wiring

LENGTHS = (2, 4, 6)
ALL_PAIRS = tuple(itertools.product(range(1, 7), range(1, 7)))


def grid(**options):
    """Three buckets on each side, cheap to compile."""
    encoder, decoder = models.Tower(name="encoder"), models.Reader(2 * models.FEATURES, name="decoder")
    models.randomize(encoder.trainable_variables + decoder.trainable_variables)
    compiled = models.split(encoder, decoder, LENGTHS, LENGTHS, jit_compile=True, rows=5, **options)
    variables = {layer.name: layer.trainable_variables for layer in (encoder, decoder)}
    return compiled, models.Joint(lambda source, target: decoder(encoder(source), target), variables)


def check(compiled, joint, pairs):
    expected = joint(make_batch(pairs).values(), sum(target for _, target in pairs))
    assert_close(compiled.loss_and_gradients(make_batch(pairs)), expected)
    np.testing.assert_allclose(models.figures(compiled.losses(make_batch(pairs))), expected[0], rtol=1e-12)


def test_each_part_graph_is_compiled_once():
    """E + D part graphs: an encoder's has two programs, a forward and a backward, and a decoder's one."""
    compiled, joint = grid()
    compiled.loss_and_gradients(make_batch(ALL_PAIRS))
    assert compiled.graphs.keys() == {(name, length) for name in ("encoder", "decoder") for length in LENGTHS}
    assert (len(compiled.graphs), compiled.compilations) == (3 + 3, 2 * 3 + 3)
    traces = compiled.traces
    for rows in (range(36), range(35, -1, -1), range(0, 36, 7), [4]):
        compiled.loss_and_gradients(take(make_batch(ALL_PAIRS), rows))
    compiled.loss_and_gradients(make_batch([(5, 4)] * 11))  # homogeneous: one bucket pair
    assert (compiled.compilations, compiled.traces) == (2 * 3 + 3, traces)
    check(compiled, joint, ALL_PAIRS)
    check(compiled, joint, [(5, 4)] * 7)
    assert compiled.compilations == 2 * 3 + 3 + (3 + 3)  # and inference


def test_what_is_read_has_the_context_length():
    compiled, _ = grid()
    compiled.create_variables()
    specs = compiled.graphs["decoder", 2].input_specs
    assert specs[0]["states"].values.shape.as_list() == [5, 6, models.FEATURES]
    assert specs[0]["mean"].shape.as_list() == [5, models.FEATURES]
    assert specs[1].values.shape.as_list() == [5, 2]


def test_more_context_buckets_cost_compilations_for_less_padding():
    compiled, joint = grid(context_buckets=2)
    check(compiled, joint, ALL_PAIRS)
    decoders = {("decoder", length, context) for length in LENGTHS for context in (2, 6)}
    assert compiled.graphs.keys() == {("encoder", length) for length in LENGTHS} | decoders
    for context in (2, 6):
        assert compiled.graphs["decoder", 4, context].input_specs[0]["states"].values.shape[1] == context
    before = compiled.compilations
    assert before == (2 * 3 + 6) + (3 + 6)  # training, and inference
    check(compiled, joint, ALL_PAIRS[::-1])
    check(compiled, joint, [(1, 2)] * 3)
    assert compiled.compilations == before


@pytest.mark.parametrize(
    "options",
    [{"cell": "gru", "attention": "bahdanau", "bidirectional": True}, {"cell": "lstm", "attention": "luong"}],
    ids=["gru-bahdanau", "lstm-luong"],
)
def test_recurrent_models_equal_joint(options):
    """Their steps are in loops that XLA compiles, and those of the joint model, which are few, unrolled."""
    encoder, decoder = models.make_layers(**options)
    compiled = models.split(encoder, decoder, jit_compile=True, rows=3, threads=2)
    expected = models.joint_of(encoder, decoder)(make_batch().values(), POSITIONS)
    assert_close(compiled.loss_and_gradients(make_batch()), expected)
    compilations = compiled.compilations
    assert (len(compiled.graphs), compilations) == (2 + 2, 2 * 2 + 2)
    assert_close(compiled.loss_and_gradients(make_batch()), expected)
    assert compiled.compilations == compilations
    states, _ = compiled.infer({"source": make_batch()["source"]}, "encoder")
    np.testing.assert_array_equal(states.lengths, [source for source, _ in MIXED])


# With the number of part graphs that they have at most: what a part reads of each other is padded apart.
DAGS = [
    (dags.two_encoders, 1, 2 + 3 + 2),
    (dags.two_encoders, 2, 2 + 3 + 2 * 2 * 2),
    (dags.encoder_bridge_decoder, 1, 2 + 2 + 2),
    (dags.encoder_bridge_decoder, 2, 2 + 2 + 2 * 2),
    (dags.chain_of_fields, 2, 2 + 3 * 2 + 2 * 2 * 2),
]


@pytest.mark.parametrize(("make", "context_buckets", "most"), DAGS)
def test_dag_equals_joint(make, context_buckets, most):
    case = make()
    dag = s2s.SplitModel(case.nodes, jit_compile=True, rows=4, context_buckets=context_buckets)
    joint = models.Joint(case.joint, case.variables)
    expected = joint(dag_batch().values(), sum(target for *_, target in TRIPLES))
    assert_close(dag.loss_and_gradients(dag_batch()), expected)
    assert len(dag.graphs) <= most
    before = dag.compilations
    dag.loss_and_gradients(take(dag_batch(), range(7, -1, -1)))
    assert dag.compilations == before


def test_build_compiles_all(capsys):
    compiled, _ = grid(context_buckets=2)
    compiled.build(inference=True)
    assert "compiling part graphs: 100%" in capsys.readouterr().err
    assert (len(compiled.graphs), compiled.compilations) == (3 + 3 * 2, (2 * 3 + 3 * 2) + (3 + 3 * 2))
    traces = compiled.traces
    compiled.loss_and_gradients(make_batch(ALL_PAIRS))
    compiled.losses(make_batch(ALL_PAIRS))
    assert (compiled.traces, compiled.compilations) == (traces, (2 * 3 + 3 * 2) + (3 + 3 * 2))


# Plans


def node(name, reads, lengths=None):
    part = s2s.Part(lambda *args: args[0], name=name, variables=[])
    return s2s.Node(part, reads, lengths and s2s.Buckets(lengths), loss=name == "last")


def plan(count):
    nodes = [
        node("first", ["one"], [2, 4, 6]),
        node("bridge", ["first"]),
        node("second", ["first", "two"], [1, 3]),
        node("last", ["second", "bridge", "first", "target"], [5]),
    ]
    return ContextLengths(Wiring(nodes), count)


@pytest.mark.parametrize(
    ("count", "name", "choices"),
    [
        (1, "last", [()]),
        (2, "first", [()]),
        (2, "bridge", [()]),
        (2, "second", [(2,), (6,)]),
        (2, "last", [(1, 2), (1, 6), (3, 2), (3, 6)]),
    ],
)
def test_choices(count, name, choices):
    assert plan(count).choices(name) == choices
    assert plan(count).longest(name) == choices[-1]


@pytest.mark.parametrize(
    ("count", "name", "read", "length", "context", "source"),
    [
        (1, "second", "first", 1, (), (6, ())),
        (1, "bridge", "first", 2, (), (2, ())),
        (1, "last", "bridge", 5, (), (6, ())),
        (2, "bridge", "first", 4, (), (4, ())),
        (2, "second", "first", 1, (2,), (2, ())),
        (2, "last", "bridge", 5, (1, 2), (2, ())),
        (2, "last", "second", 5, (1, 2), (1, (6,))),
    ],
)
def test_sources(count, name, read, length, context, source):
    assert plan(count).source(name, read, length, context) == source


def test_contexts_of_rows():
    padded = {"first": np.array([2, 4, 6]), "second": np.array([3, 1, 1]), "last": np.array([5, 5, 5])}
    assert plan(2).of_rows("last", padded).tolist() == [[3, 2], [1, 6], [1, 6]]
    assert plan(2).of_rows("first", padded).shape == (3, 0)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 4}, "rows = 4 and context_buckets = 1.*give jit_compile=True"),
        ({"context_buckets": 2}, "context_buckets = 2.*give jit_compile=True"),
        ({"jit_compile": True}, "rows = None.*give it as rows=32"),
        ({"jit_compile": True, "rows": 0}, "rows = 0.*give it as rows=32"),
        ({"jit_compile": True, "rows": 4, "row_multiple": 2}, "row_multiple = 2.*leave row_multiple out"),
        ({"jit_compile": True, "rows": 4, "context_buckets": 0}, "context_buckets = 0; expected 1 or more"),
        (
            {"jit_compile": True, "rows": 4, "context_buckets": 4},
            r"context_buckets = 4, but part 'first'.*only 3 buckets: \[2, 4, 6\]. Give at most 3",
        ),
    ],
)
def test_errors_teach(options, message):
    nodes = [node("first", ["one"], LENGTHS), node("last", ["first", "target"], [TARGETS])]
    with pytest.raises(ValueError, match=message):
        s2s.SplitModel(nodes, **options)
