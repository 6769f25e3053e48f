"""The training of any split model: steps, validations, checkpoints, and a run that can be killed at any moment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from seq2split.common.choices import check_choice
from seq2split.corpus import Batch, Batches
from seq2split.runs.directory import RunDirectory
from seq2split.runs.progress import Progress
from seq2split.split import LossAndGradients, SplitModel
from seq2split.split.threads import Workers
from seq2split.training.accumulation import accumulate
from seq2split.training.averages import MovingAverage
from seq2split.training.callbacks import Callback
from seq2split.training.checks import check_at_least, check_types
from seq2split.training.divergence import Divergence, describe_bad_step
from seq2split.training.fingerprints import fingerprint
from seq2split.training.interrupts import Interrupted, asked_to_stop
from seq2split.training.messages import outcome, say, shown
from seq2split.training.meter import Meter
from seq2split.training.records import Records
from seq2split.training.rules import Rule, Rules, make_rules
from seq2split.training.updater import Updater
from seq2split.training.validation import Validate, make_validate, measures_loss

MODES = ("min", "max")


class Trainer:
    """Trains a split model.

    With a run directory, everything that decides how the training goes on is in its checkpoints: variables, optimizers,
    moving averages, and the place in the data. The same program started again goes on from the last one, bit for bit
    where it was, on as many threads as before. Ctrl-C, SIGTERM, or SIGHUP of a terminal that is closed, saves first and
    raises `Interrupted`.

    Args:
        model: The model.
        optimizer: A Keras optimizer for all variables, or one for each part by name; a part that is left out stays as
            it is. An `UpdateRule` adds the steps in which one moves its variables, and freezes them for some or all.
        groups: Optimizers or rules of their own for some variables: by part, or by a regular expression that matches
            the whole path of a variable, such as `.*/embeddings`.
        run: The run directory: checkpoints, history, TensorBoard's events and a record of each session. One training
            at a time writes into it. By default nothing is written.
        clip_norm: The global norm over all variables that gradients are scaled down to; 0 for no clipping.
        accumulate: The number of batches whose gradients make one update.
        ema: The decay of an exponential moving average of the variables, which validations use, and the best model is
            saved with; 0 for none.
        average: The number of validated models that are kept; at the end their average becomes the model of the run if
            it validates better than each of them. 0 for none.
        average_of: Which are kept: the `best`, or the `last`.
        most_left_out: The number of steps in a row whose loss or gradients are not finite that end the training. None
            of them is applied.

    Attributes:
        model: The model.
        progress: How far the training is.

    Raises:
        ValueError: There is no part of such a name, a group matches no variable, or an argument is out of its range.

    Example:
        >>> import keras
        >>> import seq2split as s2s
        >>> encoder = s2s.Node(s2s.models.RecurrentEncoder(50, 4, 8, name="encoder"), "source", s2s.Buckets([4]))
        >>> decoder = s2s.models.RecurrentDecoder(50, 8, 2, 4, 8, name="decoder")
        >>> model = s2s.SplitModel([encoder, s2s.Node(decoder, [encoder, "target"], s2s.Buckets([3]), loss=True)])
        >>> rows = {"source": [[7, 8, 3], [6, 3]], "target": [[8, 7, 3], [6, 3]]}
        >>> trainer = Trainer(model, keras.optimizers.Adam(0.05))
        >>> history = trainer.fit(Batches(rows, model, tokens=28), steps=40, log_every=20, progress=False)
        >>> history[-1]["step"], history[-1]["loss"] < history[0]["loss"]
        (40, True)
    """

    def __init__(
        self,
        model: SplitModel,
        optimizer: Rules,
        *,
        groups: Mapping[str, Rule] | None = None,
        run: str | Path | RunDirectory | None = None,
        clip_norm: float = 0.0,
        accumulate: int = 1,
        ema: float = 0.0,
        average: int = 0,
        average_of: str = "best",
        most_left_out: int = 5,
    ):
        check_at_least(0, clip_norm=clip_norm, average=average)
        check_at_least(1, accumulate=accumulate, most_left_out=most_left_out)
        model.create_variables()
        self.model, self.progress, self._is_shown = model, Progress(), True
        self._accumulate, self._clip_norm = accumulate, clip_norm
        self._variables = {name: part.part.trainable_variables for name, part in model.parts.items()}
        everything = {name: part.part.variables for name, part in model.parts.items()}
        rules = make_rules(optimizer, groups, list(everything))
        self._updater = Updater(self._variables, rules, clip_norm=clip_norm, workers=Workers(model.threads))
        self._moving = MovingAverage(self._updater.variables, ema)
        self._divergence = Divergence(most_left_out, [each for part in everything.values() for each in part])
        directory = run if run is None or isinstance(run, RunDirectory) else RunDirectory(run)
        optimizers = self._updater.optimizers
        self._records = Records(directory, self.progress, everything, optimizers, self._moving, average, average_of)

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was measured so far, in order; see `runs.history.read_history`."""
        return self._records.history.entries

    def fit(
        self,
        batches: Batches,
        *,
        steps: int,
        validation: Iterable[Mapping[str, Any]] | Validate | None = None,
        validate_every: int = 500,
        monitor: str = "loss",
        mode: str = "min",
        patience: int = 0,
        checkpoint_every: int = 250,
        log_every: int = 20,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        changed_batches: bool = False,
    ) -> list[dict[str, Any]]:
        """Train to a step, from wherever the training stands.

        Args:
            batches: The batches to train on.
            steps: The number of steps in all, those of earlier sessions among them.
            validation: Batches over which the loss is measured, or a function of the model that returns figures by name
                (or one figure, called `score`).
            validate_every: The steps between two validations; the last step has one in any case.
            monitor: The figure of validations that the best model is chosen by.
            mode: `min` if lower is better, `max` if higher is.
            patience: The number of validations without improvement that end the training; 0 for no early end.
            checkpoint_every: The steps between two checkpoints.
            log_every: The steps between two entries of the history.
            callbacks: What else to do; see `Callback`.
            progress: True to show a bar and to print validations.
            changed_batches: True to go on although the batches, or the validation, are others than before; what changed
                is recorded in the run directory.

        Returns:
            The history: one entry for every `log_every` steps and for each validation.

        Raises:
            Interrupted: It was asked to stop, and has saved where it stands.
            FloatingPointError: The loss or the gradients were not finite in `most_left_out` steps in a row.
            BlockingIOError: Another training goes on in the run directory.
            OSError: The run directory can't be written; the last checkpoint stands.
            TypeError: The batches are no `Batches`.
            ValueError: The run directory holds a training on other batches or of another model, validations don't have
                the figure to monitor, or an argument is out of its range.
        """
        check_choice("mode", mode, MODES)
        check_types(batches, validation, callbacks)
        check_at_least(0, steps=steps, patience=patience)
        check_at_least(1, validate_every=validate_every, checkpoint_every=checkpoint_every, log_every=log_every)
        self._steps, self._patience, self._every = steps, patience, (validate_every, checkpoint_every, log_every)
        self._monitor, self._sign = monitor, 1.0 if mode == "max" else -1.0
        self._validate = None if validation is None else make_validate(validation)
        self._measures_loss = measures_loss(validation)
        self._callbacks, self._is_shown = callbacks, progress
        with self._records.held():
            self._begin(batches, fingerprint(batches, validation), changed_batches)
            self._train(batches)
            self._end()
        return self.history

    def _train(self, batches: Batches) -> None:
        validate_every, checkpoint_every, log_every = self._every
        with asked_to_stop() as asked, Meter(int(self.progress.step), self._steps, self._is_shown) as meter:
            meter.resume(json.loads(self.progress.window.numpy()))
            for group in self._groups(batches):
                result, rates = self._step(group, meter)
                step = int(self.progress.step)
                if step % log_every == 0:
                    self._records.add(**meter.window(), **rates)
                if result is not None:
                    self._call("on_step", result)
                better = False
                if self._validate and (step % validate_every == 0 or step == self._steps):
                    with self._moving.applied():
                        better = self._judge(self._validate(self.model))
                    self.progress.count_seconds(meter.skip())
                if step % checkpoint_every == 0 or better or self._finished() or asked:
                    self._save(meter)
                    if better:
                        self._records.save_best()  # after a checkpoint, from which it can be written again
                if asked and not self._finished():
                    raise Interrupted(f"stopped after step {step}; {self._records.resumption}")

    def load_best(self) -> None:
        """Give the model the variables of the best validated one, or of the average if that is better.

        Raises:
            ValueError: Nothing was validated yet.
        """
        self._records.load_best()

    def say(self, text: str) -> None:
        """Print a line to standard error, above the progress bar, unless `fit` shows no progress."""
        if self._is_shown:
            say(text)

    def write_text(self, name: str, text: str) -> None:
        """Write a text in Markdown for TensorBoard, if there is a run directory."""
        self._records.summaries.text(int(self.progress.step), name, text)

    def _begin(self, batches: Batches, marks: dict[str, Any], changed: bool) -> None:
        self._say_all(self._records.restore(marks, changed))
        if self.model.jit_compile:  # minutes perhaps, which are no part of the first steps
            self.model.build(self._is_shown, inference=self._validate is not None)
        if not int(self.progress.step):
            self._moving.reset()
            self.model.check_losses(next(batches.stream()))
        self._note_settings(json.loads(self.progress.settings.numpy()))
        state = json.loads(self.progress.window.numpy())
        self._divergence.resume(state.get("divergence", {}))
        told = self._records.begin(
            finished=self._finished(),
            history=state.get("history"),
            seed=marks["seed"],
            threads=self.model.threads,
            checkpoint_every=self._every[1],
            parameters=sum(math.prod(variable.shape) for variable in self._updater.variables),
        )
        self._say_all(told)

    def _say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)

    def _note_settings(self, before: dict[str, Any]) -> None:
        """Say which settings are others than before; validations can be compared by one figure alone."""
        changed = self._updater.apply_changes(before)
        if changed:
            self.say(f"changed in this run: {', '.join(changed)}")
        judged = {"monitor": self._monitor, "mode": "max" if self._sign > 0 else "min"} if self._validate else {}
        if judged and int(self.progress.best_step) and before.get("judged", judged) != judged:
            raise ValueError(
                f"the best model so far was chosen by {before['judged']}, and can't be compared by {judged}; go on "
                "with the same monitor and mode, or give another run directory and trainer."
            )
        settings = self._updater.settings | {"judged": judged or before.get("judged", {})}
        self.progress.settings.assign(json.dumps(settings))

    def _groups(self, batches: Batches) -> Iterator[list[Batch]]:
        """Yield the batches of each update, from where the training stands, until it is finished."""
        stream = batches.stream(int(self.progress.epoch), int(self.progress.index))
        while not self._finished():
            yield list(islice(stream, self._accumulate))

    def _step(self, group: list[Batch], meter: Meter) -> tuple[LossAndGradients | None, dict[str, float]]:
        """Train on batches; returns losses and gradients, `None` if they weren't applied, and the learning rates."""
        step, rates = int(self.progress.step) + 1, self._updater.learning_rates
        self._divergence.begin_step()
        result = accumulate(self.model, group, self._updater.frozen(step))
        loss = float(result.loss)
        norm = float(self._updater(result.gradients, step)) if math.isfinite(loss) else math.nan
        if math.isfinite(norm):
            self._moving.update(step)
            self._divergence.keep_step(loss)
        else:
            self._leave_out(describe_bad_step(step, group, result, self._variables, norm))
            result = None
        seconds, (last, tokens) = meter.count(group, result), (group[-1], sum(batch.tokens for batch in group))
        epoch_ends = last.index + 1 == last.epoch_batches
        place = (last.epoch + 1, 0) if epoch_ends else (last.epoch, last.index + 1)
        self.progress.advance(epoch=place[0], index=place[1], tokens=tokens, seconds=seconds)
        shared = {"learning_rate" + ("" if name == "shared" else f" {name}"): rate for name, rate in rates.items()}
        return result, shared

    def _leave_out(self, fault: str) -> None:
        """Go on without a step that isn't finite, unless it is one too many."""
        if self._divergence.leave_out_step():
            clip = f"lower clip_norm, which is {self._clip_norm:g}" if self._clip_norm else "set clip_norm, such as 1"
            raise FloatingPointError(
                f"the training diverged: {fault}. None of the last {self._divergence.in_a_row} steps was applied. "
                f"{self._records.what_is_left(self._divergence.step_before)}Lower the learning rate, {clip}, or warm "
                "up for more steps, and start it again."
            )
        self.say(f"left out: {fault}")

    def _finished(self) -> bool:
        stale = self._patience and self.progress.stale >= self._patience
        return bool(self.progress.step >= self._steps or stale)

    def _judge(self, figures: dict[str, float]) -> bool:
        """Note a validation, and return whether it is the best so far; what makes no sense never is."""
        step, figure = int(self.progress.step), self._figure(figures)
        is_absurd = self._measures_loss and self._divergence.is_absurd(figures.get("loss", 0.0))
        better = self.progress.judge(-math.inf if is_absurd else figure)
        if not is_absurd and math.isfinite(figure):
            self._records.add_candidate(step, figure)
        verdict = ", the best so far" if better else ", far worse than before any training" if is_absurd else ""
        self.say(f"step {step}: validation {shown(figures)}{verdict}")
        self._records.add(**{f"validation_{name}": value for name, value in figures.items()})
        self._call("on_validation", figures)
        return better

    def _figure(self, figures: Mapping[str, float]) -> float:
        """Return what validations are compared by; higher is better."""
        if self._monitor not in figures:
            raise ValueError(
                f"validations have the figures {list(figures)}; expected {self._monitor!r} among them, the one to "
                "monitor. Name another: fit(..., monitor=..., mode=...)."
            )
        return self._sign * figures[self._monitor]

    def _save(self, meter: Meter) -> None:
        keep = self._divergence.judge_checkpoint(int(self.progress.step))
        own = {"divergence": self._divergence.state(), "history": self._records.history.state()}
        self.progress.window.assign(json.dumps(meter.state() | own))
        path = self._records.save(keep)
        if path:
            self._call("on_checkpoint", path)

    def _end(self) -> None:
        self.say(outcome(self.progress, self._steps, self._monitor, self._sign))
        if self._validate and self._records.has_candidates() and not self._records.history.has_average():
            self._try_average()
        self._call("on_end")

    def _try_average(self) -> None:
        """Validate the average of the kept models, and make it the model of the run if no single one was as good."""
        self._say_all(self._records.candidates.drop_damaged())
        steps = self._records.candidates.steps
        if len(steps) < 2:
            self.say(f"no average: {len(steps)} validated models are kept, and it takes two")
            return
        with self._records.averaged():
            figures = self._validate(self.model)
            better = self._figure(figures) > float(self.progress.best)
            self._records.keep_average(better)
        self._records.add(**{f"average_{name}": value for name, value in figures.items()})
        verdict = "better than the best: it is the model of this run" if better else "no better than the best"
        self.say(f"average of the models of steps {', '.join(map(str, steps))}: {shown(figures)}, {verdict}")

    def _call(self, moment: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, moment)(self, *arguments)
