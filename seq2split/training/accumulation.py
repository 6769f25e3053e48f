"""One update's gradients from several batches, for batches larger than the memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import tensorflow as tf

from seq2split.split import LossAndGradients, SplitModel
from seq2split.split.gradients import add_up


def accumulate(model: SplitModel, batches: Sequence[Mapping], frozen: Collection[str] = ()) -> LossAndGradients:
    """Run a model forward and backward over several batches, one after the other, as if they were one.

    Every batch is divided by the weights of all of them together, so that losses and gradients only add up. They are
    added up as they come; those of embeddings stay sparse, and grow as long as those of all batches together.

    Args:
        model: The model.
        batches: One batch or more.
        frozen: The parts whose gradients nobody wants.

    Returns:
        What `SplitModel.loss_and_gradients` returns for all rows in one batch.
    """
    if len(batches) == 1:
        return model.loss_and_gradients(batches[0], frozen)
    weights: Counter[str] = Counter()
    for batch in batches:
        weights.update(model.weights(batch))
    total = None
    for batch in batches:
        found = model.loss_and_gradients(batch, frozen, weights)
        total = found if total is None else _sum(total, found)
    return total


def _sum(one: LossAndGradients, other: LossAndGradients) -> LossAndGradients:
    gradients = {
        part: [add_up(pair) for pair in zip(each, other.gradients[part], strict=True)]
        for part, each in one.gradients.items()
    }
    metrics = {name: tf.add(value, other.metrics[name]) for name, value in one.metrics.items()}
    return LossAndGradients(one.loss + other.loss, metrics, one.weights, gradients)
