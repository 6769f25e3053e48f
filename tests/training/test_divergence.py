"""What tells a divergence: steps that are left out, absurd validations, and which checkpoint is from before."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from seq2split.corpus import Batch
from seq2split.split import LossAndGradients
from seq2split.training.divergence import Divergence, describe_bad_step


def train(divergence, losses, every=1, start=0):
    """Note steps of these losses, `nan` for one that is left out; return which checkpoint is kept after each."""
    kept = []
    for step, loss in enumerate(losses, start + 1):
        divergence.begin_step()
        if math.isfinite(loss):
            divergence.keep_step(loss)
        else:
            divergence.leave_out_step()
        if step % every == 0:
            kept.append(divergence.judge_checkpoint(step))
    return kept


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([5.0, 4.0, 3.0, 2.0], [1, 2, 3, 4]),
        ([5.0, 4.0, 3.0, 3.4, 3.2, 2.9, 3.1], [1, 2, 3, 4, 5, 6, 7]),
        ([5.0, 4.0, 3.0, 40.0, 1e9, 2e9, 2e9], [1, 2, 3, 3, 3, 3, 3]),
        ([5.0, 4.0, 9.0, 8.0, 3.0], [1, 2, 2, 2, 5]),
        ([3.0, 3.3, 3.6, 4.0, 4.4, 4.8, 5.3], [1, 2, 3, 4, 5, 5, 5]),
        ([-2.0, -3.0, -2.5, -1.0, 5.0], [1, 2, 3, 3, 3]),
        ([5.0, math.nan, math.nan, 4.0], [1, 1, 1, 4]),
        ([math.nan, math.nan], [None, None]),
        ([1e-3, 1e-6, 2e-6, 1e-7, 100.0], [1, 2, 3, 4, 4]),
        ([7.0, 1e9, 1e9], [1, 1, 1]),
    ],
    ids=str,
)
def test_the_checkpoint_from_before(losses, kept):
    """Normally the newest; while the loss is much above the lowest, the last one before."""
    assert train(Divergence(9, []), losses) == kept


def test_it_goes_by_the_mean_since_the_checkpoint_before():
    divergence = Divergence(9, [])
    assert train(divergence, [5.0, 4.0, 3.0, 9.0, 2.0, 2.0, 30.0, 30.0, 30.0], every=3) == [3, 6, 6]
    assert divergence.step_before == 6


def test_its_state_goes_on():
    losses = [5.0, 4.0, 60.0, 3.0, 70.0, 80.0]
    whole = train(Divergence(9, []), losses, every=2)
    first, second = Divergence(9, []), Divergence(9, [])
    kept = train(first, losses[:3], every=2)
    second.resume(first.state())
    assert kept + train(second, losses[3:], every=2, start=3) == whole


@pytest.mark.parametrize(("most", "expected"), [(1, [True]), (3, [False, False, True])])
def test_too_many_in_a_row(most, expected):
    divergence = Divergence(most, [])
    divergence.begin_step()
    assert [divergence.leave_out_step() for _ in expected] == expected
    assert divergence.in_a_row == most
    divergence.keep_step(1.0)
    assert divergence.in_a_row == 0


@pytest.mark.parametrize(
    ("first", "loss", "expected"),
    [(5.0, 2e9, True), (5.0, 60.0, True), (5.0, 40.0, False), (1e-3, 2.0, False), (-4.0, 3.0, False)]
    + [(5.0, bad, True) for bad in (math.nan, math.inf)]
    + [(None, 2e9, False), (None, math.nan, True)],
)
def test_absurd_losses(first, loss, expected):
    divergence = Divergence(9, [])
    train(divergence, [] if first is None else [first])
    assert divergence.is_absurd(loss) == expected


def test_what_a_forward_moved_is_put_back():
    """Of variables that aren't trained and hold fractions; a count, such as that of dropout's seeds, goes on."""
    moving, trained, count = tf.Variable([1.0, 2.0], trainable=False), tf.Variable(1.0), tf.Variable(1, trainable=False)
    divergence = Divergence(9, [moving, trained, count])
    divergence.begin_step()
    for variable in (moving, trained, count):
        variable.assign(variable * 7)
    divergence.leave_out_step()
    assert [moving.numpy().tolist(), float(trained), int(count)] == [[1.0, 2.0], 7.0, 7]


def variable(path):
    return SimpleNamespace(path=path, name=path)


SPARSE = tf.IndexedSlices(tf.constant([[3.0], [-9.0]]), tf.constant([0, 1]), tf.constant([5, 1]))


@pytest.mark.parametrize(
    ("gradients", "told"),
    [
        ([tf.constant([1.0, -2.0]), SPARSE, None], "the largest gradient is 9, of encoder/b;"),
        ([tf.constant([1.0, math.nan]), SPARSE, None], "the largest gradient is nan, of encoder/a;"),
        ([None, tf.constant([math.inf]), tf.constant([math.nan])], "the largest gradient is inf, of encoder/b;"),
        ([None, None, None], "the gradient norm is nan; batch"),
    ],
)
def test_what_is_told_of_a_step(gradients, told):
    result = LossAndGradients(tf.constant(2.5), {}, {}, {"encoder": gradients})
    names = {"encoder": [variable(f"encoder/{letter}") for letter in "abc"]}
    batches = [Batch(1, at, 9, {}, 1, 1, np.arange(3, 3 + count)) for at, count in ((4, 2), (5, 11))]
    found = describe_bad_step(7, batches, result, names, math.nan)
    assert found.startswith("in step 7 the loss is 2.5 and the gradient norm is nan")
    assert told in found
    assert found.endswith(
        "batch 5 of epoch 2, lines 3, 4 of the corpus and batch 6 of epoch 2, lines 3, 4, 5, 6, 7, 8, 9, 10 and 3 "
        "others of the corpus"
    )
