"""What a model returns of a batch: losses, metrics and gradients by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Nest = Any
ADDED_LOSSES = "added_losses"
"""The name of what layers add among the metrics."""
Gradient = tf.Tensor | tf.IndexedSlices | None


@dataclass(frozen=True)
class BatchLosses:
    """The loss of a batch.

    Attributes:
        loss: The scalar loss: the sum over the batch divided by the weight; of several parts with losses, the sum of
            theirs. It is what a part returns alone, or the first of a named tuple, a tuple or a list; a dictionary
            has no first, and can only hold metrics, as in `(loss, {"nll": nll})`.
        metrics: What else the parts with losses return, divided likewise, by name: the field of a named tuple, the key
            of a dictionary, or else `output_1` and so on. Where several parts hold losses the names begin with that of
            the part, `decoder/nll`, and each part's own loss is among them, `decoder/loss`. `added_losses` are those
            that layers of parts made with `Part(..., losses=True)` add, the mean over the rows; the loss holds them.
        weights: The number that the sums of each part with a loss were divided by.
    """

    loss: tf.Tensor
    metrics: dict[str, tf.Tensor]
    weights: dict[str, float]


@dataclass(frozen=True)
class LossAndGradients(BatchLosses):
    """The loss of a batch and the gradients of every part; it unpacks as `loss, gradients`.

    Attributes:
        gradients: For each part its gradients, aligned with its trainable variables: `tf.IndexedSlices` stay sparse,
            and `None` stands where there is no path, or for a part that was frozen. Of a variable that stands in
            several parts, such as tied embeddings, the first of them has the sum, and the others `None`.
    """

    gradients: dict[str, list[Gradient]]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.loss, self.gradients))


def collect_losses(
    means: Mapping[str, Nest], weights: Mapping[str, float], added: Sequence[tf.Tensor] = ()
) -> BatchLosses:
    """Return the losses of a batch.

    Args:
        means: What each part with a loss returned, divided by its weight.
        weights: The weight of each.
        added: The shares of losses that layers added.

    Returns:
        The losses, by name.

    Example:
        >>> found = collect_losses({"decoder": (tf.constant(2.0), {"nll": tf.constant(1.5)})}, {"decoder": 7.0})
        >>> float(found.loss), {name: float(value) for name, value in found.metrics.items()}
        (2.0, {'nll': 1.5})
    """
    named = {part: _named(mean, part) for part, mean in means.items()}
    losses = [next(iter(each.values())) for each in named.values()]
    if len(named) == 1:
        ((_, *items),) = (each.items() for each in named.values())
        metrics = dict(items)
    else:
        metrics = {f"{part}/{name}": value for part, each in named.items() for name, value in each.items()}
    if added:
        if ADDED_LOSSES in metrics:
            raise ValueError(
                f"a part with a loss returns a metric {ADDED_LOSSES!r}, the name of what layers add; rename it."
            )
        metrics[ADDED_LOSSES] = tf.add_n([tf.cast(each, losses[0].dtype) for each in added])
    terms = [*losses, *([metrics[ADDED_LOSSES]] if added else [])]
    return BatchLosses(tf.add_n([tf.cast(term, losses[0].dtype) for term in terms]), metrics, dict(weights))


class RunningLosses:
    """The means of losses and metrics over several batches, each part's by its own weights.

    Example:
        >>> running = RunningLosses()
        >>> for loss, weight in ((1.0, 2.0), (4.0, 1.0)):
        ...     running.add(BatchLosses(tf.constant(loss), {}, {"decoder": weight}))
        >>> running.means()
        {'loss': 2.0}
    """

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.weights: Counter[str] = Counter()

    def add(self, losses: BatchLosses) -> None:
        """Add the losses of a batch."""
        alone = len(losses.weights) == 1
        self.weights.update(losses.weights)
        for name, value in (({"loss": losses.loss} if alone else {}) | losses.metrics).items():
            self.sums[name] += float(value) * losses.weights[self._part(name)]

    def means(self) -> dict[str, float]:
        """Return the means by name, the loss first: of several parts with losses the sum of theirs."""
        means = {name: total / self.weights[self._part(name)] for name, total in self.sums.items()}
        if len(self.weights) > 1:
            return {"loss": sum(means[f"{part}/loss"] for part in self.weights) + means.get(ADDED_LOSSES, 0.0), **means}
        return means

    def _part(self, name: str) -> str:
        return name.partition("/")[0] if "/" in name and len(self.weights) > 1 else next(iter(self.weights))


def _named(outputs: Nest, part: str) -> dict[str, tf.Tensor]:
    """Return the leaves of what a part with a loss returns by name; the loss is the first."""
    paths = list(_paths(outputs))
    names = ["loss", *("_".join(path) for path, _ in paths[1:])]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"part {part!r} returns several values that would be called {twice[0]!r}, of which only one could be told; "
            'the first output is "loss". Give the others names of their own.'
        )
    return dict(zip(names, (leaf for _, leaf in paths), strict=True))


def _paths(outputs: Nest, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], tf.Tensor]]:
    """Yield the path and the value of each leaf, in the order of `tf.nest.flatten`."""
    if isinstance(outputs, Mapping):
        children = [(str(key), outputs[key]) for key in sorted(outputs)]
    elif hasattr(outputs, "_fields"):
        children = list(zip(outputs._fields, outputs, strict=True))
    elif isinstance(outputs, list | tuple):
        children = [("" if isinstance(child, Mapping) else f"output_{at}", child) for at, child in enumerate(outputs)]
    else:
        yield path, outputs
        return
    for name, child in children:
        yield from _paths(child, (*path, name) if name else path)
