"""How many part graphs there are, when they are traced, and what crosses between them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from split_dags import DAGS, dag_batch
from split_models import ALL_PAIRS, FEATURES, Reader, Tower, assert_close, grid, make_batch, make_layers, split, take

import seq2split as s2s
from seq2split.split.part_graphs import PartGraphs
from seq2split.split.sequences import Sequences
from seq2split.split.wiring import Wiring


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


def test_recurrent_models_trace_each_part_graph_once():
    built = split(*make_layers(attention="bahdanau"), sources=(1, 2), targets=(1, 2))
    built.build(progress=False)
    assert (len(built.graphs), built.traces) == (4, 4)
    built.loss_and_gradients(make_batch([(2, 1), (1, 2), (1, 1)]))
    assert built.traces == 4


def test_build_shows_its_progress(capsys):
    split(Tower(name="encoder"), Reader(2 * FEATURES, name="decoder"), sources=[2], targets=[2]).build()
    assert "2/2" in capsys.readouterr().err


def test_a_part_graph_is_built_once_and_traced_for_what_is_run():
    case = grid()
    graphs = PartGraphs(Wiring(case.nodes), {}, None, None)
    assert graphs.keys() == [(name, length) for name in ("encoder", "decoder") for length in range(1, 7)]
    before = case.nodes[0].part.traces
    graph = graphs.get("encoder", 3)
    assert graphs.get("encoder", 3) is graphs.built["encoder", 3] is graph
    assert case.nodes[0].part.traces == before  # it has been built, not traced
    assert graph.input_specs[0].values.shape.as_list() == [None, 3]
    assert graphs.get("decoder", 3).input_specs[1].values.shape.as_list() == [None, 3]


def test_output_specs_leave_rows_and_times_unknown():
    specs = s2s.SplitModel(grid().nodes).output_specs("encoder")
    assert specs["states"].values.shape.as_list() == [None, None, FEATURES]
    assert specs["states"].lengths.shape.as_list() == [None]
    assert specs["mean"].shape.as_list() == [None, FEATURES]


@pytest.mark.parametrize("make", DAGS)
def test_dag_builds_ahead(make):
    case = make()
    dag = s2s.SplitModel(case.nodes)
    dag.build(progress=False)
    before = dag.traces
    dag.loss_and_gradients(dag_batch())
    assert dag.traces == before
    assert len(dag.graphs) == case.graphs


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

    short = s2s.Buckets([2])
    nodes = [s2s.Node(first, "audio", short), s2s.Node(lambda *_: 0.0, ["first", "target"], short, loss=True)]
    crossing = s2s.SplitModel(nodes, fields={"audio": tf.TensorSpec([3], tf.float32)})
    with pytest.raises(ValueError, match=r"part 'first' hands over (float32|None).*rows as its first axis"):
        crossing.loss_and_gradients({"audio": [np.ones([2, 3])] * 2, "target": [[1], [1]]})


def outputs_of(fn):
    part = s2s.Part(fn, variables=[])
    first = s2s.Node(part, "source", s2s.Buckets([2, 4]), name="encoder")
    last = s2s.Node(
        lambda read, target: tf.reduce_sum(tf.cast(target.values, tf.float32)), [first, "target"], BUCKETS, loss=True
    )
    return s2s.SplitModel([first, last]).output_specs("encoder")


BUCKETS = s2s.Buckets([2, 4])


def test_a_time_axis_outside_sequences_is_refused():
    with pytest.raises(
        ValueError, match=r"'encoder' hands over int32\[None, 2\] for bucket 2 and .*crosses as Sequences"
    ):
        outputs_of(lambda source: source.values)


def test_an_axis_that_is_as_long_as_a_bucket_is_no_time():
    specs = outputs_of(lambda source: tf.one_hot(source.lengths, 4))
    assert specs.shape.as_list() == [None, 4]
