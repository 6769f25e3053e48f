"""The training loop: steps, validations, checkpoints, and a run that can be killed at any moment and started again."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from seq2split.config import Config
from seq2split.corpus.batches import BatchPlan, ParallelCorpus, stream
from seq2split.corpus.vocabulary import read_parallel
from seq2split.runs.checkpoints import Checkpoints, Progress
from seq2split.runs.directory import RunDirectory, admit_corpus
from seq2split.runs.history import History
from seq2split.runs.sessions import add_session
from seq2split.runs.summaries import SummaryWriter
from seq2split.training.accumulation import loss_and_gradients
from seq2split.training.averages import Candidates, MovingAverage, preserved
from seq2split.training.meter import Meter
from seq2split.training.optimizers import Updater
from seq2split.translation.translator import Translator
from seq2split.translation.validation import Result, Validation


class Interrupted(Exception):  # noqa: N818 it is no error
    """The run was asked to stop, and has saved where it stands."""


class Trainer:
    """A training run.

    Args:
        config: The configuration.
        path: The run directory; a run that it holds is resumed.
        threads: How many share the work; as of `SplitModel`.

    Attributes:
        translator: What is trained.
        progress: How far it is.

    Raises:
        ConfigError: The directory holds a run of another model or of other data.
        ValueError: A file of the configuration is wrong, or a sentence is longer than the last bucket.
    """

    def __init__(self, config: Config, path: str | Path, threads: int = 1):
        self._settings, run = config.training, RunDirectory(path)
        changed = run.freeze(config)
        if changed:
            say(f"changed in this run: {', '.join(changed)}")
        self._corpus, self.translator = prepare(config, run, threads)
        self._model = self.translator.model
        self._validation = Validation(config, self.translator)
        if self._validation.told:
            say(self._validation.told)
        self._updater = Updater(
            {name: node.part.trainable_variables for name, node in self._model.nodes.items()},
            config.optimizer,
            clip_norm=self._settings.clip_norm,
            total_steps=self._settings.steps,
            threads=threads,
        )
        self.progress, layers = Progress(), self.translator.layers
        self._moving = MovingAverage(self._updater.variables, self._settings.ema)
        self._candidates = Candidates(run.candidates, layers, self._settings.average, self._settings.average_of)
        self._checkpoints = Checkpoints(
            run.latest, run.best, run.average, self.progress, layers, self._updater.optimizers, self._moving.values
        )
        self._plan = BatchPlan(
            self._corpus,
            self.translator.buckets,
            mode=config.batches.mode,
            tokens=config.batches.tokens,
            row_multiple=config.batches.row_multiple,
            seed=config.seed,
        )
        self._summaries, self._history, self._sessions = SummaryWriter(run.events), History(run.history), run.sessions

    def train(self) -> None:
        """Trains to the last step, or until the validations stop improving.

        Raises:
            Interrupted: It was asked to stop, and has saved where it stands.
            FloatingPointError: The gradients are not finite.
        """
        progress, settings = self.progress, self._settings
        say(self._checkpoints.restore())
        self._add_session()
        self._history.rewind(int(progress.step), self._finished())
        self._candidates.rewind(int(progress.step))
        if not self._finished():
            self._checkpoints.drop_average()  # it was that of a shorter training
        if settings.build_ahead:
            self._model.build()
        batches = stream(self._corpus, self._plan, int(progress.epoch), int(progress.index))
        groups = iter(lambda: list(islice(batches, settings.accumulate)), [])
        with _asked_to_stop() as asked, Meter(self.translator.buckets, int(progress.step), settings.steps) as meter:
            while not self._finished():
                group, rates, step = next(groups), self._updater.learning_rates, int(progress.step) + 1
                (loss, nll), gradients = loss_and_gradients(self._model, group, self._updater.frozen(step))
                self._check_finite(loss, self._updater(gradients, step))
                self._moving.update(step)
                progress.advance(group, meter.count(group, float(loss), float(nll)))
                if progress.step % settings.log_every == 0:
                    self._note(**meter.window(), **_named(rates))
                better = False
                if progress.step % settings.validate_every == 0 or progress.step == settings.steps:
                    with self._moving.applied():
                        better = self._validate()
                    progress.seconds.assign_add(meter.skip())
                if progress.step % settings.checkpoint_every == 0 or better or self._finished() or asked:
                    self._checkpoints.save()  # with the best too: a run that is set back must not lose what it is
                if asked and not self._finished():
                    raise Interrupted(f"stopped after step {int(progress.step)}; start it again to resume")
        say(self._outcome())
        if settings.average and not self._history.has_average():
            self._try_average()

    def samples(self, translator: Translator) -> str:
        """Translations of the first validation sentences, as many as the configuration shows."""
        return self._validation.samples(translator, self._settings.samples)

    def _add_session(self) -> None:
        """Records what goes on with the run from here."""
        add_session(
            self._sessions,
            step=int(self.progress.step),
            seed=self.translator.config.seed,
            threads=self.translator.threads,
            parameters=sum(math.prod(variable.shape) for variable in self._updater.variables),
        )

    def _finished(self) -> bool:
        patience = self._settings.patience
        return self.progress.step >= self._settings.steps or bool(patience and self.progress.stale >= patience)

    def _validate(self) -> bool:
        """Scores the validation corpus, shows samples, and keeps the model if it is the best so far; returns that."""
        step, result = int(self.progress.step), self._validation.run()
        better = self.progress.judge(self._figure(result))
        if better:
            self._checkpoints.save_best()
        self._candidates.add(step, self._figure(result))
        say(f"step {step}: validation {result}{', the best so far' if better else ''}")
        if self._settings.samples:
            samples = self.samples(self.translator)
            say(samples)
            self._summaries.text(step, "samples", samples.replace("\n", "  \n"))
        self._note(validation_loss=result.loss, validation_perplexity=result.perplexity, validation_bleu=result.bleu)
        return better

    def _note(self, **figures: float) -> None:
        """Writes figures of the last step to the history and for TensorBoard."""
        step, seconds, tokens = int(self.progress.step), float(self.progress.seconds), int(self.progress.tokens)
        self._history.add(step=step, seconds=round(seconds, 3), tokens=tokens, **figures)
        self._summaries.scalars(step, **figures)

    def _try_average(self) -> None:
        """Validates the average of the kept models, and makes it the model of the run if no single one was as good."""
        steps = self._candidates.steps
        if len(steps) < 2:
            say(f"no average: {len(steps)} validated models are kept, and it takes two")
            return
        with preserved(self._candidates.variables):
            self._candidates.read_average()
            result = self._validation.run()
            better = self._figure(result) > self.progress.best
            if better:
                self._checkpoints.save_average()
            else:
                self._checkpoints.drop_average()
        self._note(average_loss=result.loss, average_perplexity=result.perplexity, average_bleu=result.bleu)
        verdict = "better than the best: it is the model of this run" if better else "no better than the best"
        say(f"average of the models of steps {', '.join(map(str, steps))}: validation {result}, {verdict}")

    def _figure(self, result: Result) -> float:
        """What validations are compared by; higher is better."""
        return result.bleu if self._settings.criterion == "bleu" else -result.loss

    def _check_finite(self, loss: tf.Tensor, norm: tf.Tensor) -> None:
        if not (math.isfinite(float(norm)) and math.isfinite(float(loss))):
            raise FloatingPointError(
                f"in step {int(self.progress.step) + 1} the loss is {float(loss)} and the gradient norm is "
                f"{float(norm)}, so the variables are lost; the checkpoints before are good. Lower "
                f"optimizer.learning_rate, {self._advice()}, or raise optimizer.warmup_steps, and start the run again."
            )

    def _advice(self) -> str:
        clip = self._settings.clip_norm
        return f"lower training.clip_norm, which is {clip:g}" if clip else "set training.clip_norm, such as 1"

    def _outcome(self) -> str:
        progress, criterion = self.progress, self._settings.criterion
        early = (
            f": {int(progress.stale)} validations without improvement" if progress.step < self._settings.steps else ""
        )
        best = f"best validation {criterion} {abs(float(progress.best)):.2f} at step {int(progress.best_step)}"
        seconds = float(progress.seconds)
        return (
            f"finished after step {int(progress.step)}{early}; {best if progress.best_step else 'never validated'}; "
            f"{seconds / 60:.1f} minutes, "
            f"{int(progress.tokens) / max(seconds, 1e-9):,.0f} source and target tokens/s, validations included"
        )


def _named(rates: dict[str, float]) -> dict[str, float]:
    """The learning rates as scalars: `learning_rate`, and that of an optimizer of its own with its name."""
    return {"learning_rate" + ("" if owner == "shared" else f" {owner}"): rate for owner, rate in rates.items()}


def say(text: str) -> None:
    """Prints a line to standard error, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


def prepare(config: Config, run: RunDirectory, threads: int = 1) -> tuple[ParallelCorpus, Translator]:
    """The training corpus in pieces, and a translator with new variables."""
    lines = read_parallel(config.corpus("train"))
    vocabularies = run.vocabularies(config, lines)
    corpus = ParallelCorpus({side: vocabularies[side].encode(each) for side, each in lines.items()})
    buckets = run.buckets(config, corpus)
    corpus, told = admit_corpus(corpus, buckets, config.data.overlong, "training corpus")
    if told:
        say(told)
    for side in config.sides:
        padding = buckets[side].padding_share(corpus.lengths(side))
        say(f"{side} buckets {list(buckets[side].boundaries)}, {padding:.1%} padding, {len(corpus)} sentences")
    return corpus, Translator(config, vocabularies, buckets, threads)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collects the first interrupt or termination signal, so that the step can end; a second one acts at once."""
    asked: list[int] = []
    before = {}

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.write(2, b"\nstopping after this step; once more stops at once\n")  # print may be what was interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
