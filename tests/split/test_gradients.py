"""Sums of gradients: sparse, shared, and missing ones."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from split_dags import TRIPLES, Embedder, dag_batch
from split_models import make_batch, sequences, shared

import seq2split as s2s
from seq2split.split.gradients import add_up, addends_by_part


def slices(rows, values):
    return tf.IndexedSlices(tf.constant(values), tf.constant(rows), tf.constant([3]))


@pytest.mark.parametrize(
    ("terms", "sparse", "total"),
    [
        ([tf.constant([1.0, 2.0, 0.0])], False, [1, 2, 0]),
        ([tf.constant([1.0, 2.0, 0.0]), None, tf.constant([0.0, 3.0, 1.0])], False, [1, 5, 1]),
        ([slices([1], [2.0]), None], True, [0, 2, 0]),
        ([slices([1], [2.0]), slices([1, 2], [3.0, 4.0])], True, [0, 5, 4]),
        ([slices([1], [2.0]), tf.constant([1.0, 1.0, 1.0])], False, [1, 3, 1]),
    ],
)
def test_a_sum_is_sparse_if_all_of_its_terms_are(terms, sparse, total):
    found = add_up(terms)
    assert isinstance(found, tf.IndexedSlices) == sparse
    np.testing.assert_array_equal(tf.convert_to_tensor(found), total)


@pytest.mark.parametrize("terms", [[], [None], [None, None]])
def test_a_sum_of_nothing_is_none(terms):
    assert add_up(terms) is None


def test_addends_by_part():
    """The first part that a variable stands in has all of its gradients, and the others none."""
    one, two, three = (tf.Variable([0.0]) for _ in range(3))
    found = addends_by_part({"first": [one, two], "second": [two, three], "third": [three]})
    assert found == {
        "first": [[("first", 0)], [("first", 1), ("second", 0)]],
        "second": [[], [("second", 1), ("third", 0)]],
        "third": [[]],
    }


def test_gradients_stay_sparse():
    _, gradients = shared().model.loss_and_gradients(make_batch())
    for name, layer in (("encoder", shared().encoder), ("decoder", shared().decoder)):
        kinds = {
            variable.name: isinstance(each, tf.IndexedSlices)
            for variable, each in zip(layer.trainable_variables, gradients[name], strict=True)
        }
        assert [variable for variable, sparse in kinds.items() if sparse] == ["embeddings"]
        slices = gradients[name][list(kinds).index("embeddings")]
        assert slices.dense_shape.numpy().tolist() == list(layer.embeddings.shape)
    assert len(gradients["encoder"][0].indices) == 4 * 1 + 3 * 3  # four rows of one step, three of three


def test_a_variable_of_two_parts_gets_one_summed_gradient():
    """Tied embeddings: sparse in the encoder, dense in the decoder, and in two decoders besides."""
    tied, last = Embedder(), Embedder()
    last.table = tied.table
    nodes = [
        s2s.Node(s2s.Part(tied.encode, variables=[tied.table]), "one", s2s.Buckets([2, 4]), name="encoder"),
        s2s.Node(
            s2s.Part(tied.decode, variables=[tied.table], name="decoder"),
            ["encoder", "target"],
            s2s.Buckets([2, 3]),
            loss=True,
        ),
        s2s.Node(
            s2s.Part(last.decode, variables=[last.table], name="other"),
            ["encoder", "two"],
            s2s.Buckets([5]),
            loss=True,
        ),
    ]
    batch, counts = dag_batch(), [sum(lengths) for lengths in zip(*TRIPLES, strict=True)]
    with tf.GradientTape() as tape:
        encoded = tied.encode(sequences(batch["one"]))
        means = [
            tied.decode(encoded, sequences(batch["target"])) / counts[2],
            last.decode(encoded, sequences(batch["two"])) / counts[1],
        ]
        loss = tf.add_n(means)
    expected = tf.convert_to_tensor(tape.gradient(loss, tied.table))
    found = s2s.SplitModel(nodes).loss_and_gradients(batch)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-12)
    np.testing.assert_allclose([found.metrics["decoder/loss"], found.metrics["other/loss"]], means, rtol=1e-12)
    gradients = found.gradients
    assert {name: len(each) for name, each in gradients.items()} == {"encoder": 1, "decoder": 1, "other": 1}
    assert gradients["decoder"] == gradients["other"] == [None]
    np.testing.assert_allclose(tf.convert_to_tensor(gradients["encoder"][0]), expected, atol=1e-12)
    _, gradients = s2s.SplitModel(nodes).loss_and_gradients(batch, frozen=["encoder"])
    assert gradients["encoder"] == gradients["other"] == [None]
    assert gradients["decoder"][0] is not None
