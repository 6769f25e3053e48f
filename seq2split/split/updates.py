"""How a step's gradients move the variables, by plain Keras optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from seq2split.split.gradients import add_up_dense, addends_by_part
from seq2split.split.results import Gradient

Optimizers = keras.optimizers.Optimizer | Mapping[str, keras.optimizers.Optimizer]


def apply_gradients(
    optimizer: Optimizers, variables: Mapping[str, Sequence], gradients: Mapping[str, Sequence[Gradient]]
) -> None:
    """Apply the gradients of parts by one optimizer, or by one for each part.

    Args:
        optimizer: A Keras optimizer, or one for each part by name; parts may share one.
        variables: The trainable variables of each part. One that stands in several parts is moved once, by the
            optimizer of the first that has a gradient for it.
        gradients: For each part its gradients, aligned with its variables; `None` leaves a variable as it is.

    Raises:
        TypeError: An optimizer is none of Keras.
        ValueError: A part with an optimizer has no gradients, or not as many as it has variables.
    """
    by_part = optimizer if isinstance(optimizer, Mapping) else dict.fromkeys(gradients, optimizer)
    wrong = [one for one in by_part.values() if not isinstance(one, keras.optimizers.Optimizer)]
    if wrong:
        raise TypeError(
            f"apply_gradients was given {wrong[0]!r} as an optimizer; expected a Keras optimizer, such as "
            "keras.optimizers.Adam(1e-3), or one for each part by name."
        )
    _check(by_part, variables, gradients)
    own = {part: variables[part] for part in by_part}
    summed = {
        part: [add_up_dense([gradients[of][place] for of, place in addends]) for addends in each]
        for part, each in addends_by_part(own).items()
    }
    for one in {id(each): each for each in by_part.values()}.values():
        parts = [part for part, each in by_part.items() if each is one]
        if not one.built:  # for all that it may ever move, those without a gradient in this step among them
            one.build(list({id(each): each for part in parts for each in own[part]}.values()))
        pairs = [pair for part in parts for pair in zip(summed[part], own[part], strict=True) if pair[0] is not None]
        if pairs:
            one.apply_gradients(pairs)


def _check(by_part: Mapping, variables: Mapping[str, Sequence], gradients: Mapping[str, Sequence]) -> None:
    for part in by_part:
        expected, given = len(variables[part]), len(gradients.get(part, ()))
        if part not in gradients or given != expected:
            raise ValueError(
                f"part {part!r} has {expected} trainable variables, and {given if part in gradients else 'no'} "
                "gradients were given for it; give those that loss_and_gradients returned, or leave the part out of "
                "the optimizers."
            )
