"""What a user adds to a training: functions that are called at documented moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seq2split.split import LossAndGradients


class Callback:
    """Does nothing at every moment of a training; a subclass does something at some.

    Every method gets the trainer, with `trainer.model`, `trainer.progress` (the step among others), `trainer.history`,
    `trainer.say(text)` and, in a run directory, `trainer.write_text(name, text)` for TensorBoard.

    Example:
        >>> class Watch(Callback):
        ...     def on_step(self, trainer, result):
        ...         if not int(trainer.progress.step) % 100:
        ...             trainer.say(f"loss {float(result.loss):.3f}")
    """

    def on_step(self, trainer: Any, result: LossAndGradients) -> None:
        """Follow a step, whose update has been applied.

        Args:
            trainer: The trainer.
            result: The loss, metrics and gradients of the step, before clipping.
        """

    def on_validation(self, trainer: Any, figures: Mapping[str, float]) -> None:
        """Follow a validation; with a moving average the model has its values meanwhile.

        Args:
            trainer: The trainer.
            figures: The figures by name.
        """

    def on_checkpoint(self, trainer: Any, path: str) -> None:
        """Follow a checkpoint that was written.

        Args:
            trainer: The trainer.
            path: The path of the checkpoint.
        """

    def on_end(self, trainer: Any) -> None:
        """Follow the end of the training, also where it stopped early, but not an interrupt."""
