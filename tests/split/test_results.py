"""What a step returns, by name."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import tensorflow as tf
from split_models import figures, grid, make_batch

from seq2split.split.results import BatchLosses, LossAndGradients, RunningLosses, collect_losses


class Result(NamedTuple):
    """What a part with a loss may return."""

    loss: Any
    nll: Any
    counts: Any = ()


@pytest.mark.parametrize(
    ("outputs", "loss", "metrics"),
    [
        (2.0, 2, {}),
        ((2.0,), 2, {}),
        ((2.0, 3.0), 2, {"output_1": 3}),
        ([2.0, 3.0, 4.0], 2, {"output_1": 3, "output_2": 4}),
        (Result(2.0, 3.0), 2, {"nll": 3}),
        (Result(2.0, 3.0, {"hits": 4.0, "all": 5.0}), 2, {"nll": 3, "counts_all": 5, "counts_hits": 4}),
        ((2.0, {"hits": 4.0, "all": 5.0}), 2, {"all": 5, "hits": 4}),
        ((2.0, Result(3.0, 4.0)), 2, {"output_1_loss": 3, "output_1_nll": 4}),
    ],
)
def test_metrics_are_named_after_what_the_part_returns(outputs, loss, metrics):
    means = tf.nest.map_structure(tf.constant, outputs)
    found = collect_losses({"decoder": means}, {"decoder": 7.0})
    assert float(found.loss) == loss
    assert {name: float(value) for name, value in found.metrics.items()} == metrics
    assert found.weights == {"decoder": 7.0}
    assert figures(found) == [float(leaf) for leaf in tf.nest.flatten(means)] or "all" in metrics


def test_losses_of_several_parts_are_summed():
    """Each is among the metrics, whose names begin with that of the part; precisions may differ."""
    means = {"one": Result(tf.constant(2.0), tf.constant(3.0)), "two": tf.constant(0.25, tf.float64)}
    found = collect_losses(means, {"one": 4.0, "two": 5.0})
    assert float(found.loss) == 2.25
    assert {name: float(value) for name, value in found.metrics.items()} == {
        "one/loss": 2.0,
        "one/nll": 3.0,
        "two/loss": 0.25,
    }
    assert found.weights == {"one": 4.0, "two": 5.0}


def test_results_have_names_and_unpack():
    model, batch = grid().model, make_batch([(1, 2), (2, 1)])
    found = model.loss_and_gradients(batch)
    assert isinstance(found, LossAndGradients)
    assert found.loss.shape == []
    assert list(found.metrics) == ["squares"]
    assert list(found.gradients) == ["encoder", "decoder"]
    assert found.weights == {"decoder": 3.0}
    loss, gradients = found
    assert loss is found.loss
    assert gradients is found.gradients
    evaluated = model.losses(batch)
    assert type(evaluated) is BatchLosses
    assert figures(evaluated) == pytest.approx(figures(found), rel=1e-12)


@pytest.mark.parametrize(
    "outputs",
    [(1.0, {"loss": 2.0}), (1.0, {"nll": 2.0}, {"nll": 3.0})],
    ids=["the loss's name", "one name twice"],
)
def test_a_name_for_two_values_is_refused(outputs):
    """One of them would silently stand for both."""
    means = tf.nest.map_structure(tf.constant, outputs)
    with pytest.raises(ValueError, match=r"part 'decoder' returns several values that would be called '(loss|nll)'"):
        collect_losses({"decoder": means}, {"decoder": 1.0})


def test_means_over_batches_are_by_the_weights_of_each_part():
    """As if the batches were one: 2 and 1 positions of the one part, 1 and 4 of the other."""
    running = RunningLosses()
    for (one, other), weights in (((1.0, 2.0), (2.0, 1.0)), ((4.0, 7.0), (1.0, 4.0))):
        metrics = {"one/loss": tf.constant(one), "other/loss": tf.constant(other)}
        running.add(BatchLosses(tf.constant(one + other), metrics, dict(zip(("one", "other"), weights, strict=True))))
    assert running.means() == {"loss": 2.0 + 6.0, "one/loss": 2.0, "other/loss": 6.0}
