"""Which optimizer moves which variables, and in which steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from seq2split.common.names import variable_path

SHARED = "shared"
"""The name of the rule that holds for all variables that no other rule is for."""


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer, and the steps in which it moves its variables.

    Attributes:
        optimizer: A Keras optimizer; `None` for variables that stay as they are.
        first_step: The first step that moves the variables, counted from 1; they are frozen until then.
        last_step: The last such step; `None` for no end.
        every: The distance of the steps that move them.
        frozen: True if no step moves them for now. The optimizer is kept, so that a run can go on with them later.

    Example:
        >>> rule = UpdateRule(keras.optimizers.SGD(0.1), first_step=3, last_step=9, every=2)
        >>> [step for step in range(1, 12) if rule.moves(step)]
        [3, 5, 7, 9]
    """

    optimizer: keras.optimizers.Optimizer | None
    first_step: int = 1
    last_step: int | None = None
    every: int = 1
    frozen: bool = False

    def __post_init__(self) -> None:
        optimizer = self.optimizer
        if not (optimizer is None or isinstance(optimizer, keras.optimizers.Optimizer)):
            raise TypeError(
                f"an update rule was given {optimizer!r} as its optimizer; expected a Keras optimizer, such as "
                "keras.optimizers.Adam(1e-3), or None for variables that stay as they are."
            )
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or getattr(optimizer, "loss_scale_factor", None):
            raise ValueError(
                "an update rule was given a LossScaleOptimizer, or a loss_scale_factor, which needs a scaled loss; the "
                "loss here isn't scaled. "
                'Use the "mixed_bfloat16" policy, which needs no scaling, with a plain optimizer.'
            )
        if optimizer is not None and optimizer.use_ema and not optimizer.ema_overwrite_frequency:
            raise ValueError(
                "an update rule was given an optimizer with use_ema=True, whose averages only Keras's own fit puts "
                "into the model at its end. Use Trainer(..., ema=...), or give the optimizer an "
                "ema_overwrite_frequency."
            )
        if self.last_step is not None and self.last_step < self.first_step:
            raise ValueError(
                f"an update rule has {self.first_step=} and {self.last_step=}, and would never move its variables; "
                "freeze them with frozen=True."
            )
        if self.first_step < 1 or self.every < 1:
            raise ValueError(f"an update rule has {self.first_step=} and {self.every=}; expected 1 or more of each.")

    def moves(self, step: int) -> bool:
        """Return whether a step, counted from 1, moves the variables."""
        if self.optimizer is None or self.frozen or step < self.first_step:
            return False
        return (self.last_step is None or step <= self.last_step) and (step - self.first_step) % self.every == 0


Rule = keras.optimizers.Optimizer | UpdateRule | None
Rules = Rule | Mapping[str, Rule]


def make_rules(optimizer: Rules, groups: Mapping[str, Rule] | None, parts: Sequence[str]) -> dict[str, UpdateRule]:
    """Return the rules by name.

    Args:
        optimizer: A rule for all variables, or one for each part by name; a part that is left out stays as it is.
        groups: Rules by the name of a part, or by a regular expression that matches the whole path of a variable, such
            as `encoder/.*`. Those by regular expression come first, in their order.
        parts: The names of the parts.

    Returns:
        The rules by part or regular expression; `shared` is that of the variables that have none of their own.

    Raises:
        ValueError: There is no part of such a name, one is called `shared`, or a regular expression is malformed.
    """
    by_part = dict(optimizer) if isinstance(optimizer, Mapping) else {}
    unknown = [name for name in by_part if name not in parts]
    if unknown:
        raise ValueError(f"there are no parts {unknown} to give an optimizer; the parts are {list(parts)}.")
    shared = None if isinstance(optimizer, Mapping) else optimizer
    if SHARED in {*by_part, *(groups or {})}:
        raise ValueError(f"{SHARED!r} is what the rule of all other variables is called; name the part otherwise.")
    rules = {SHARED: shared, **by_part, **(groups or {})}
    for pattern in groups or {}:
        try:
            re.compile(pattern)
        except re.error as error:
            message = f"the group {pattern!r} is no regular expression: {error}; escape it, or mend it."
            raise ValueError(message) from error
    return {name: rule if isinstance(rule, UpdateRule) else UpdateRule(rule) for name, rule in rules.items()}


def rule_of(variable: Any, part: str, rules: Mapping[str, UpdateRule], parts: Sequence[str]) -> str:
    """Return the name of a variable's rule: the first group that matches it, or its part's, or the shared one.

    Args:
        variable: The variable.
        part: The part that it belongs to.
        rules: The rules by name.
        parts: The names of the parts.
    """
    patterns = (name for name in rules if name not in (SHARED, *parts))
    matching = (
        pattern for pattern in patterns if any(re.fullmatch(pattern, path) for path in paths_of(variable, part))
    )
    return next(matching, part if part in rules else SHARED)


def paths_of(variable: Any, part: str) -> tuple[str, str]:
    """Return the paths that groups may match: from the part on, and as Keras writes it.

    Keras numbers the layers of a class as they are made, so that the second model of a process has other paths.

    Args:
        variable: The variable, such as `encoder_6/dense/kernel`.
        part: The name of its part, such as `encoder`.

    Returns:
        `encoder/dense/kernel` and `encoder_6/dense/kernel`.
    """
    path = variable_path(variable)
    return f"{part}/{path.partition('/')[2] or path}", path


def check_rules(
    rules: Mapping[str, UpdateRule], used: Sequence[str], variables: Sequence, parts: Sequence[str]
) -> None:
    """Check that every group holds for a variable.

    Args:
        rules: The rules by name.
        used: The names of the rules that hold for a variable.
        variables: All variables.
        parts: The names of the parts.

    Raises:
        ValueError: A regular expression matches no variable, or none that another before it doesn't match.
    """
    for pattern in rules:
        if pattern not in (SHARED, *parts, *used):
            paths = ", ".join(map(variable_path, variables))
            raise ValueError(
                f"optimizer.groups has {pattern!r}, which matches the whole path of no variable, or of none that a "
                f"group before it doesn't match. The paths are {paths}."
            )
