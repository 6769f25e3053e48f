"""The training of a translation model as a configuration describes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seq2split.config import Config
from seq2split.config.objects import make_update_rules
from seq2split.corpus import Batches, Corpus
from seq2split.corpus.admission import admit_corpus, describe_outliers
from seq2split.runs.directory import RunDirectory
from seq2split.training import Callback, Trainer
from seq2split.training.messages import say
from seq2split.translation.experiment_files import ExperimentFiles
from seq2split.translation.inputs import Lines, naming_keys, provenance, read_inputs
from seq2split.translation.translator import Translator
from seq2split.translation.validation import Validation


class Experiment:
    """A translation experiment in a run directory.

    Args:
        config: The configuration.
        run: The run directory; a run that it holds is resumed. Whoever gives a `RunDirectory` may hold its lock from
            before the experiment is made until it is trained.
        threads: The number of threads that share the work; see `SplitModel`.
        lines: What `read_inputs` returned, if the inputs have been read.
        changed_corpus: True to go on with other sentences than before, in the files that the configuration names or in
            others; what changed is recorded.

    Attributes:
        translator: The model that is trained.
        batches: The batches that it is trained on.
        trainer: The trainer.

    Raises:
        BlockingIOError: The run is being trained.
        ConfigError: The directory holds a run of another model or of other data.
        ValueError: A file of the configuration is wrong, or a sentence is longer than the last bucket.
    """

    def __init__(
        self,
        config: Config,
        run: str | Path | RunDirectory,
        threads: int = 1,
        lines: Lines | None = None,
        *,
        changed_corpus: bool = False,
    ):
        self._config, self._changed_corpus = config, changed_corpus
        self._files = ExperimentFiles(run)
        lines = lines or read_inputs(config, self._files.path)  # first: nothing is written for what can't begin
        with self._files.run.lock.held():
            changed = self._files.freeze(config, changed_corpus)
            if changed:
                say(f"changed in this run: {', '.join(changed)}")
            corpus, self.translator = prepare(config, self._files, lines["train"], threads)
        self.validation = Validation(config, self.translator, lines["valid"])
        if self.validation.note:
            say(self.validation.note)
        if not self.validation.can_translate:
            say(f"no BLEU and no samples: {type(self.translator.decoder).__name__} lacks what a search needs")
        model, settings = self.translator.model, config.training
        batches = {"tokens": config.batches.tokens, "mode": config.batches.mode, "seed": config.seed}
        with naming_keys():
            self.batches = Batches(corpus, model, **batches)
        optimizer, groups = make_update_rules(config.optimizer, list(model.parts), settings.steps)
        self.trainer = Trainer(
            model,
            optimizer,
            groups=groups,
            run=self._files.run,
            clip_norm=settings.clip_norm,
            accumulate=settings.accumulate,
            ema=settings.ema,
            average=settings.average,
            average_of=settings.average_of,
            most_left_out=settings.most_left_out,
        )

    def train(self) -> None:
        """Train to the last step, or until the validations stop improving.

        Raises:
            Interrupted: It was asked to stop, and has saved where it stands.
            FloatingPointError: The loss or the gradients were not finite in too many steps.
            BlockingIOError: The run is being trained.
            OSError: The run directory can't be written; the last checkpoint stands.
        """
        settings = self._config.training
        if settings.build_ahead:
            self.translator.model.build()
        self.trainer.fit(
            self.batches,
            steps=settings.steps,
            validation=self.validation,
            validate_every=settings.validate_every,
            monitor=settings.criterion,
            mode="max" if settings.criterion == "bleu" else "min",
            patience=settings.patience,
            checkpoint_every=settings.checkpoint_every,
            log_every=settings.log_every,
            callbacks=[_Samples(self)] if settings.samples and self.validation.can_translate else [],
            changed_batches=self._changed_corpus,
        )

    def samples(self, translator: Translator) -> str:
        """Return translations of the first validation sentences, as many as the configuration shows."""
        return self.validation.samples(translator, self._config.training.samples)


class _Samples(Callback):
    """Shows translations after each validation."""

    def __init__(self, experiment: Experiment):
        self._experiment = experiment

    def on_validation(self, trainer: Trainer, figures: Mapping[str, float]) -> None:
        samples = self._experiment.samples(self._experiment.translator)
        trainer.say(samples)
        trainer.write_text("samples", samples.replace("\n", "  \n"))


def prepare(
    config: Config, files: ExperimentFiles, lines: dict[str, list[str]], threads: int = 1
) -> tuple[Corpus, Translator]:
    """Return the training corpus in pieces, and a translator with new variables.

    Args:
        config: The configuration.
        files: The files of the experiment; vocabularies and buckets that are not there yet are made.
        lines: The lines of each side of the training corpus.
        threads: The number of threads that share the work; see `SplitModel`.
    """
    vocabularies = files.vocabularies(config, lines)
    corpus = Corpus({side: vocabularies[side].encode(each) for side, each in lines.items()})
    buckets = files.buckets(config, corpus)
    corpus, note = admit_corpus(corpus, buckets, config.data.overlong, provenance(config, "train"))
    if note:
        say(note)
    for side in config.sides:
        padding = buckets[side].padding_share(corpus.lengths[side])
        say(f"{side} buckets {list(buckets[side].boundaries)}, {padding:.1%} padding, {len(corpus)} sentences")
    for outlier in describe_outliers(corpus, buckets, provenance(config, "train")):
        say(outlier)
    return corpus, Translator(config, vocabularies, buckets, threads)
