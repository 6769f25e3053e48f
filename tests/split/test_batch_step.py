"""What runs in a step, and how often."""

from __future__ import annotations

import gc
import time
from threading import Event
from types import SimpleNamespace
from weakref import ref

import numpy as np
import pytest
import tensorflow as tf
from split_dags import DAGS, TRIPLES, chain_of_fields, dag_batch, reader, tower
from split_models import (
    ALL_PAIRS,
    FEATURES,
    MIXED,
    POSITIONS,
    Joint,
    Reader,
    Tower,
    assert_close,
    dense,
    figures,
    grid,
    make_batch,
    randomize,
    take,
)

import seq2split as s2s
from seq2split.engine import PartGraph
from seq2split.split import routing
from seq2split.split.batch_step import BatchStep
from seq2split.split.gradients import add_up
from seq2split.split.grouping import FlexibleGrouping
from seq2split.split.part_graphs import PartGraphs
from seq2split.split.threads import Workers
from seq2split.split.wiring import Wiring


def make_step(nodes, batch, threads=1, multiple=1):
    """Return a step over all parts, made of what a model makes it of."""
    wiring = Wiring(nodes)
    graphs, grouping = PartGraphs(wiring, {}, None, None), FlexibleGrouping(0, threads, multiple)
    with Workers(threads).schedule() as schedule:
        return BatchStep(batch, wiring.parts, wiring=wiring, graphs=graphs, grouping=grouping, schedule=schedule)


def test_rows_are_rounded_up_to_the_multiple():
    groups = make_step(grid().nodes, make_batch([(1, 1)] * 3 + [(2, 1)] * 5), multiple=4).groups
    assert {name: [group.size for group in each] for name, each in groups.items()} == {
        "encoder": [4, 8],
        "decoder": [8],
    }


def test_a_part_without_a_field_runs_in_the_groups_of_the_first_that_it_reads():
    nodes = [
        s2s.Node(lambda x: x, "one", s2s.Buckets([2, 4]), name="first"),
        s2s.Node(lambda x: x, "two", s2s.Buckets([5]), name="second"),
        s2s.Node(lambda x, y: x, ["second", "first"], name="bridge"),
        s2s.Node(lambda x, y: x, ["bridge", "target"], s2s.Buckets([3]), loss=True, name="last"),
    ]
    groups = make_step(nodes, dag_batch()).groups
    assert groups["bridge"] is groups["second"]
    assert len(groups["first"]) == 2


def make_weighted(weight, threads=1):
    """Return a model whose loss is divided by a weight, and the unsplit model."""
    encoder, decoder = Tower(name="encoder"), Reader(2 * FEATURES, name="decoder")
    randomize(encoder.trainable_variables + decoder.trainable_variables)
    first = s2s.Node(encoder, "source", s2s.Buckets([1, 2, 3]))
    last = s2s.Node(decoder, [first, "target"], s2s.Buckets([1, 3]), loss=True, weight=weight)
    variables = {layer.name: layer.trainable_variables for layer in (encoder, decoder)}
    joint = Joint(lambda source, target: decoder(encoder(source), target), variables)
    return s2s.SplitModel([first, last], threads=threads), joint


WEIGHTS = {
    "by default": (None, POSITIONS),
    "rows": ("rows", len(MIXED)),
    "a function": (lambda batch: 1.5 * batch["source"].lengths.sum() + len(batch["target"].values), 1.5 * 11 + 7),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_the_loss_is_divided_by_its_weight(case):
    """A mixed batch over several groups, in training and in inference."""
    weight, divisor = WEIGHTS[case]
    model, joint = make_weighted(weight)
    expected = joint(make_batch().values(), divisor)
    found = model.loss_and_gradients(make_batch())
    assert_close(found, expected)
    assert len(model.graphs) == 5
    evaluated = model.losses(make_batch())
    np.testing.assert_allclose(figures(evaluated), expected[0], rtol=1e-12)
    assert found.weights == evaluated.weights == model.weights(make_batch()) == {"decoder": divisor}


def test_a_loss_without_a_field_is_divided_by_its_weight():
    """A loss over rows, such as that of a classifier, in the groups of the encoder."""
    encoder = Tower(name="encoder")
    randomize(encoder.trainable_variables)

    def spread(encoded):  # empty rows are filler as well
        return tf.reduce_sum(encoded["mean"] ** 2)

    first = s2s.Node(encoder, "source", s2s.Buckets([1, 3]))
    model = s2s.SplitModel([first, s2s.Node(spread, first, loss=True, weight="rows")], row_multiple=4)
    joint = Joint(lambda source: spread(encoder(source)), {"encoder": encoder.trainable_variables, "spread": []})
    batch = {"source": make_batch()["source"]}
    assert_close(model.loss_and_gradients(batch), joint(batch.values(), len(MIXED)))


def test_weights_may_be_given():
    """Two halves of a batch with the weights of both add up to the whole."""
    model, _ = make_weighted(None)
    halves = [take(make_batch(), rows) for rows in (range(3), range(3, 7))]
    weights = {"decoder": sum(model.weights(half)["decoder"] for half in halves)}
    assert weights == model.weights(make_batch()) == {"decoder": POSITIONS}
    found = [model.loss_and_gradients(half, weights=weights) for half in halves]
    assert all(each.weights == weights for each in found)
    gradients = {
        part: [add_up(each) for each in zip(*(half.gradients[part] for half in found), strict=True)]
        for part in model.parts
    }
    losses = np.sum([figures(each) for each in found], axis=0)
    assert_close((losses, gradients), model.loss_and_gradients(make_batch()))


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_positive(given):
    model, _ = make_weighted(lambda batch: given)
    with pytest.raises(ValueError, match=rf"'decoder': the function.*weight=.*returned {given} for a batch of 7 rows"):
        model.loss_and_gradients(make_batch())


def noting(monkeypatch, note):
    """Have every pass of a part graph call a function with its name, before and after."""
    runs = {name: getattr(PartGraph, name) for name in ("forward", "value_and_gradients", "backward")}
    for name, run in runs.items():

        def noted(graph, *args, run=run, name=name, **options):
            note("begin", name, graph)
            result = run(graph, *args, **options)
            note("end", name, graph)
            return result

        monkeypatch.setattr(PartGraph, name, noted)


def test_rows_go_on_while_others_are_still_in_the_part_before(monkeypatch):
    """The encoder's longer group waits until the other has passed the decoder and come back."""
    model, _ = make_weighted(None, threads=2)
    batch = make_batch([(1, 1), (3, 3)])
    expected = model.loss_and_gradients(batch)
    came_back = Event()

    def note(when, name, graph):
        if (when, name) == ("begin", "forward") and graph is model.graphs["encoder", 3]:
            assert came_back.wait(30)
        if (when, name) == ("end", "backward"):
            came_back.set()

    noting(monkeypatch, note)
    found = model.loss_and_gradients(batch)
    assert came_back.is_set()
    tf.nest.map_structure(np.testing.assert_array_equal, figures(found), figures(expected))


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_step_holds_is_free_when_it_ends(threads, monkeypatch):
    """Without a search for garbage, which counts objects, and not the bytes of their tensors."""
    model, _ = make_weighted(None, threads=threads)
    model.loss_and_gradients(make_batch())
    steps, outputs = [], []
    forward, run = BatchStep.forward, PartGraph.forward
    monkeypatch.setattr(BatchStep, "forward", lambda step, name: (steps.append(ref(step)), forward(step, name)))

    def noted(graph, *inputs):
        found = run(graph, *inputs)
        outputs.extend(ref(leaf) for leaf in tf.nest.flatten(found.outputs))
        return found

    monkeypatch.setattr(PartGraph, "forward", noted)
    gc.collect()
    gc.disable()
    try:
        model.loss_and_gradients(make_batch())
        assert steps
        assert outputs
        assert all(each() is None for each in steps + outputs)
    finally:
        gc.enable()


def test_passes_with_state_run_one_after_another_in_order(monkeypatch):
    """In threads, what they leave in a variable would else depend on who comes first; other parts may share it."""
    model, _ = make_weighted(None, threads=2)
    batch = make_batch([(1, 1), (2, 1), (3, 3)])
    model.loss_and_gradients(batch)
    monkeypatch.setattr(PartGraphs, "has_state", lambda graphs, name: True)
    noted = []
    noting(monkeypatch, lambda when, name, graph: noted.append((when, name)))
    model.loss_and_gradients(batch)
    passes = ["forward"] * 3 + ["value_and_gradients"] * 2 + ["backward"] * 3
    assert noted == [(when, name) for name in passes for when in ("begin", "end")]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_nothing_passes_a_part_with_state(part, monkeypatch):
    """Another part may read what it assigns: whatever came before is done before, and what comes after waits."""
    model, _ = make_weighted(None, threads=2)
    batch = make_batch([(1, 1), (2, 1), (3, 3)])
    model.loss_and_gradients(batch)
    monkeypatch.setattr(PartGraphs, "has_state", lambda graphs, name: name == part)
    noted = []

    def note(when, name, graph):
        if (when, name) == ("begin", "forward") and graph is model.graphs["encoder", 3]:
            time.sleep(0.2)  # in which others would pass
        noted.append(name)

    noting(monkeypatch, note)
    model.loss_and_gradients(batch)
    assert noted == ["forward"] * 6 + ["value_and_gradients"] * 4 + ["backward"] * 6


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
    """Let `carry` fail when it calls one of these operations of TensorFlow."""

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


def counting(node, counter):
    """Return a node whose part moves a counter whenever it runs."""

    def call(*args):
        counter.assign_add(1)
        return node.part.fn(*args)

    part = s2s.Part(call, variables=node.part.trainable_variables, name=node.name)
    return s2s.Node(part, node.reads, node.buckets, loss=node.loss)


@pytest.mark.parametrize("make", DAGS)
def test_dag_runs_each_forward_once_for_each_group(make):
    """By a side effect inside each part; of a part without a field the groups are those of the first that it reads."""
    nodes = make().nodes
    counters = {node.name: tf.Variable(0, trainable=False) for node in nodes}
    model = s2s.SplitModel([counting(node, counters[node.name]) for node in nodes])
    model.loss_and_gradients(dag_batch())
    lengths = dict(zip(("one", "two", "target"), zip(*TRIPLES, strict=True), strict=True))
    groups = {}
    for node in nodes:
        own = node.reads[-1] if node.buckets else None
        groups[node.name] = len(set(node.buckets.assign(lengths[own]))) if own else groups[node.reads[0]]
    assert {name: int(counter) for name, counter in counters.items()} == groups


def test_frozen_parts_have_no_gradients_and_those_behind_them_run_no_backward(monkeypatch):
    dag = s2s.SplitModel(chain_of_fields().nodes)
    _, expected = dag.loss_and_gradients(dag_batch())
    ran, backward = [], BatchStep.backward
    monkeypatch.setattr(BatchStep, "backward", lambda step, name: ran.append(name) or backward(step, name))
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


def test_a_path_that_one_bucket_lacks_counts_as_zeros():
    """The decoder of the short bucket doesn't read the encoder: its cotangents are None there, and there alone."""
    first, last = tower("first"), reader(1)

    def read(encoded, target):
        if target.values.shape[1] == 1:
            encoded = tf.nest.map_structure(tf.zeros_like, encoded)
            encoded = tf.nest.map_structure(tf.stop_gradient, encoded)
        return last(encoded, target)

    nodes = [
        s2s.Node(first, "source", s2s.Buckets([4])),
        s2s.Node(
            s2s.Part(read, variables=last.trainable_variables), ["first", "target"], s2s.Buckets([1, 3]), loss=True
        ),
    ]
    partial = s2s.SplitModel(nodes)
    batch = make_batch([(2, 1), (4, 3), (3, 1), (1, 2)])
    (_, gradients), (_, expected) = (partial.loss_and_gradients(each) for each in (batch, take(batch, [1, 3])))
    for found, alone in zip(dense(gradients)["first"], dense(expected)["first"], strict=True):
        np.testing.assert_allclose(found * 7, alone * 5, atol=1e-12)
