"""One update's gradients from several batches, for batches larger than the memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import tensorflow as tf

from seq2split.corpus.batches import Batch
from seq2split.split.gradients import add_up
from seq2split.split.model import SplitModel

Gradient = tf.Tensor | tf.IndexedSlices | None


def loss_and_gradients(
    model: SplitModel, batches: Sequence[Batch], frozen: Collection[str] = ()
) -> tuple[tuple[tf.Tensor, ...], dict[str, list[Gradient]]]:
    """Runs a model forward and backward over several batches, one after the other, as if they were one.

    Losses are means over real target positions, so each batch counts by its share of them. Gradients are added up as
    they come, and those of embeddings stay sparse: they grow as long as those of all batches together.

    Args:
        model: The model, one part of which holds losses.
        batches: One or more.
        frozen: As of `SplitModel.loss_and_gradients`.

    Returns:
        As of `SplitModel.loss_and_gradients` for all rows in one batch.
    """
    if len(batches) == 1:
        return model.loss_and_gradients(batches[0].fields, frozen)
    targets = sum(batch.targets for batch in batches)
    losses, gradients = [], {}
    for batch in batches:
        share = batch.targets / targets
        found, more = model.loss_and_gradients(batch.fields, frozen)
        losses.append([loss * share for loss in found])
        for part, each in more.items():
            scaled = [_scaled(gradient, share) for gradient in each]
            before = gradients.get(part, [None] * len(each))
            gradients[part] = [add_up(addends) for addends in zip(before, scaled, strict=True)]
    return tuple(map(tf.add_n, zip(*losses, strict=True))), gradients


def _scaled(gradient: Gradient, share: float) -> Gradient:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * share, gradient.indices, gradient.dense_shape)
    return gradient if gradient is None else gradient * share
