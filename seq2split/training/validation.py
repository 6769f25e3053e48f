"""The figures by which a model is judged while it trains."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.split import SplitModel
from seq2split.split.results import RunningLosses
from seq2split.training.meter import perplexity

Validate = Callable[[SplitModel], Mapping[str, float] | float]


class LossValidation:
    """Measures the loss and the metrics over batches, every part in inference.

    Args:
        batches: The batches, each a mapping from fields to rows; they are gone over once for each validation.

    Raises:
        ValueError: When it is called: there are no batches.
    """

    measures_loss = True
    """That its loss is that of the training, on other examples."""

    def __init__(self, batches: Iterable[Mapping[str, Any]]):
        self._batches = batches

    def __call__(self, model: SplitModel) -> dict[str, float]:
        """Return the loss and the metrics as means over all batches, and the perplexity where `nll` is a metric."""
        running = RunningLosses()
        for batch in self._batches:
            running.add(model.losses(batch))
        if not running.weights:
            raise ValueError("the validation has no batches; give Batches, or another iterable that can be gone over.")
        means = running.means()
        return means | ({"perplexity": perplexity(means["nll"])} if "nll" in means else {})


def measures_loss(validation: Any) -> bool:
    """Return whether the figure `loss` of a validation can be compared with the loss of the training."""
    return not callable(validation) or getattr(validation, "measures_loss", False)


def make_validate(validation: Iterable[Mapping[str, Any]] | Validate) -> Callable[[SplitModel], dict[str, float]]:
    """Return a function of a model that returns figures by name.

    Args:
        validation: Batches, over which the loss is measured; or a function of the model that returns figures by name,
            or one figure, which is called `score`.
    """
    validate = LossValidation(validation) if not callable(validation) else validation

    def figures(model: SplitModel) -> dict[str, float]:
        found = validate(model)
        if not isinstance(found, Mapping | numbers.Real | np.ndarray | np.generic | tf.Tensor):
            raise TypeError(
                f'the validation returned {found!r}; expected figures by name, such as {{"loss": 1.5}}, or one number.'
            )
        named = found if isinstance(found, Mapping) else {"score": found}
        return {name: float(value) for name, value in named.items()}

    return figures
