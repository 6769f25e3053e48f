"""A callable with its variables: what all part graphs of one part share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from seq2split.engine.added_losses import WithLosses, added_losses, names_of_adding, total
from seq2split.engine.training_flag import TrainingFlag
from seq2split.engine.variables import unwrapped

Nest = Any


class PartFunction:
    """A callable over tensors, the variables that get its gradients, and the count of its traces.

    Args:
        fn: The callable, as for `Part`.
        variables: The variables that get gradients; `None` for the trainable variables that `fn` owns.
        name: The part's name; `None` for that of `fn`.
        adds_losses: True if it returns, beside what `fn` does, the losses that its layers add.

    Attributes:
        fn: The callable.
        name: The part's name.
        adds_losses: True if it returns the losses that its layers add.
        traces: How many times the Python code has been traced.
        is_settled: True once a trace has succeeded. From then on the callable may create no variables.

    Raises:
        TypeError: `fn` is not callable; or losses are to be added, and it belongs to no Keras layer.
    """

    def __init__(self, fn: Callable, variables: Iterable | None, name: str | None, adds_losses: bool = False):
        if not callable(fn):
            raise TypeError(f"Part takes a callable (a Keras layer, a tf.Module or a function); it was given {fn!r}.")
        self.fn = fn
        self.name = str(name or getattr(fn, "name", None) or getattr(fn, "__name__", None) or type(fn).__name__)
        self.traces = 0
        self.is_settled = False
        self._has_created = False
        self._given = None if variables is None else list(variables)
        self._owner = fn if hasattr(fn, "trainable_variables") else getattr(fn, "__self__", None)
        if adds_losses and not isinstance(self._owner, keras.Layer):
            raise TypeError(
                f"part {self.name!r}: losses=True takes a Keras layer or model, or a method of one, which know what "
                f"their layers add; it was given {fn!r}. Put what it calls into a layer, or add the losses to what "
                "it returns."
            )
        self.adds_losses = adds_losses
        self._has_warned = False
        self._flag = TrainingFlag(fn, self.name)

    @property
    def trainable_variables(self) -> list:
        """The variables that get gradients; those of an unbuilt Keras layer exist once it has been traced."""
        candidates = getattr(self._owner, "trainable_variables", []) if self._given is None else self._given
        return [variable for variable in candidates if variable.trainable]

    @property
    def frozen_variables(self) -> list:
        """The variables that would get gradients if they were trainable."""
        candidates = getattr(self._owner, "variables", []) if self._given is None else self._given
        return [variable for variable in candidates if not variable.trainable]

    @property
    def variables(self) -> list:
        """The variables that `fn` owns, those that are not trained among them, and those that were given."""
        return [*getattr(self._owner, "variables", []), *(self._given or [])]

    def __call__(self, args: tuple[Nest, ...], training: bool) -> Nest:
        """Call the callable while a graph is traced."""
        self.traces += 1
        with tf.variable_creator_scope(self._create):
            outputs = self.fn(*args, **self._flag.arguments(training))
        losses = added_losses(self._owner)
        if self.adds_losses:
            return WithLosses(outputs, total(losses))
        if training and not self._has_warned:
            self._warn_of_losses(names_of_adding(self._owner) if losses else self._regularized())
        return outputs

    def is_to_call_again(self, error: TypeError) -> bool:
        """Return whether a call failed only because it was told that it trains, and is to be made without."""
        if self._has_created:  # variables that TensorFlow initializes when a trace has succeeded
            return False
        again = self._flag.withdraw(error)
        self.traces -= again  # as if that call had not been made
        return again

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Check what happens to the variables while a pass is traced.

        Raises:
            ValueError: Variables were created, and another trace had succeeded before.
        """
        before = self._owned()
        try:
            yield
            created = [name for key, name in self._owned().items() if key not in before]
            if self.is_settled and created:
                raise self._creation_error(created)
        except Exception:
            if not self.is_settled:  # the next trace is a first one again
                self.traces = 0
            raise
        self.is_settled = True

    def check_read(self, variables: Iterable[tf.Variable]) -> None:
        """Check that somebody has named the trainable variables that a trace has read.

        Raises:
            ValueError: Nobody has: the callable doesn't own them, and no list of variables was given.
        """
        owned = {id(unwrapped(variable)) for variable in getattr(self._owner, "variables", [])}
        names = [variable.name for variable in variables if id(variable) not in owned]
        if self._given is None and names:
            raise ValueError(
                f"part {self.name!r} reads trainable variables that nobody named, so that they would get no gradients: "
                f"{', '.join(names)}. Name those that get gradients with Part(fn, variables=[...]); the empty list "
                "freezes them all. Or let a layer own them: what add_weight makes, and layers that are attributes."
            )

    def _regularized(self) -> list[str]:
        """Return the paths of the given variables with regularizers, which nobody adds for a function."""
        return [each.path for each in self._given or () if getattr(each, "regularizer", None)]

    def _warn_of_losses(self, names: list[str]) -> None:
        if names:
            self._has_warned = True
            warnings.warn(
                f"part {self.name!r}: layers add losses that Keras's own fit would add to the loss (add_loss, "
                f"regularizers): {', '.join(names)}. They are left out of its loss and gradients. Have them join with "
                "Part(layer, losses=True), or take them out of the layers.",
                stacklevel=2,
            )

    def _create(self, next_creator: Callable, **kwargs: Any) -> tf.Variable:
        if self.traces > 1:
            raise self._creation_error([kwargs.get("name") or "a variable"])
        self._has_created = True
        return next_creator(**kwargs)

    def _creation_error(self, names: list[str]) -> ValueError:
        return ValueError(
            f"part {self.name!r} created variables when it was called again: {', '.join(names)}. A part may create "
            "variables in its first call only, because every graph of the part shares them. Create them in __init__ "
            "or build(), or once in the first call."
        )

    def _owned(self) -> dict[int, str]:
        return {id(variable): variable.name for variable in getattr(self._owner, "variables", [])}
