"""The ways to train a bucketed model that are compared, all from the same initial weights.

Every one of them deals the rows of a batch out to as many threads, so that what differs is the graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

import seq2split as s2s
from efficiency.batches import Batch, deal, one_row, padded
from efficiency.layouts import GROUP_OVERHEAD, ROW_MULTIPLE
from efficiency.looped import loop
from efficiency.setting import Lengths, Pair, Setting
from seq2split.split.gradients import add_up
from seq2split.split.sequences import Sequences
from seq2split.split.threads import Workers
from seq2split.training.rules import make_rules
from seq2split.training.updater import Updater

LEARNING_RATE = 1e-4
Gradients = dict[str, list]


class Model:
    """The layers that are trained, and what moves their variables.

    Args:
        setting: Of which the sizes, the precision and the threads count.

    Attributes:
        layers: The encoder and the decoder.
        variables: The trainable variables of each.
    """

    def __init__(self, setting: Setting):
        self._setting = setting
        self.layers = dict(zip(("encoder", "decoder"), setting.layers(), strict=True))
        self.variables = {name: layer.trainable_variables for name, layer in self.layers.items()}
        self._updater: Updater | None = None

    @cached_property
    def boundary(self) -> Any:
        """The specs of what the encoder hands over, their rows and time unknown: time is where two lengths differ."""
        traced = tf.function(self.layers["encoder"], autograph=False)
        one, two = (traced.get_concrete_function(field_spec(time)).structured_outputs for time in (1, 2))

        def unknown(one: tf.TensorSpec, two: tf.TensorSpec) -> tf.TensorSpec:
            return tf.TensorSpec(one.shape.most_specific_compatible_shape(two.shape), one.dtype)

        return tf.nest.map_structure(unknown, one, two)

    def reset(self) -> None:
        """Give it the initial weights again; the optimizer keeps its state."""
        for name, layer in zip(self.variables, self._setting.layers(), strict=True):
            for variable, initial in zip(self.variables[name], layer.trainable_variables, strict=True):
                variable.assign(initial)

    def update(self, gradients: Gradients) -> None:
        """One step of the optimizer."""
        if self._updater is None:
            rules = make_rules(keras.optimizers.Adam(LEARNING_RATE), None, list(self.variables))
            self._updater = Updater(self.variables, rules, clip_norm=0.0, workers=Workers(self._setting.threads))
        self._updater(gradients, 1)


class Subject(ABC):
    """One way to train.

    Args:
        setting: The model and its buckets.
        model: What it trains; one of its own by default. Subjects that share one find it in the caches of the
            processor, as a training that runs alone does.

    Attributes:
        setting: The same.
        model: Likewise.
        layers: Its encoder and its decoder.
        variables: Their trainable variables.
    """

    def __init__(self, setting: Setting, model: Model | None = None):
        self.setting, self.model = setting, model or Model(setting)
        self.layers, self.variables = self.model.layers, self.model.variables

    @abstractmethod
    def loss_and_gradients(self, batch: Batch) -> tuple[tf.Tensor, Gradients]:
        """The loss of a target piece of a batch on average, and the gradients of each part's variables."""

    @abstractmethod
    def build(self) -> None:
        """Build every graph that there may be, and run each on one row, since the first run optimizes it."""

    @property
    @abstractmethod
    def graphs(self) -> int:
        """How many graphs have been built; a part's forward and backward in one bucket are one."""

    def step(self, batch: Batch) -> float:
        """One step of training, done when it returns; returns the loss before it."""
        loss, gradients = self.loss_and_gradients(batch)
        self.model.update(gradients)
        return float(loss)


class Split(Subject):
    """Ours; homogeneous and mixed batches alike."""

    def __init__(self, setting: Setting, model: Model | None = None):
        super().__init__(setting, model)
        encoder = s2s.Node(self.layers["encoder"], "source", setting.buckets["source"])
        decoder = s2s.Node(self.layers["decoder"], [encoder, "target"], setting.buckets["target"], loss=True)
        self.split = s2s.SplitModel(
            [encoder, decoder], row_multiple=ROW_MULTIPLE, group_overhead=GROUP_OVERHEAD, threads=setting.threads
        )

    def loss_and_gradients(self, batch: Batch) -> tuple[tf.Tensor, Gradients]:
        """See the base."""
        found = self.split.loss_and_gradients(batch)
        return found.loss, found.gradients

    def shapes(self, batch: Batch) -> list[tuple[int, ...]]:
        """The groups that a batch runs in: the encoder's `(rows, source)`, the decoder's `(rows, source, target)`."""
        found: list[tuple[int, ...]] = []

        def noting(run: Callable) -> Callable:
            def noted(*inputs, **options):
                found.append(_shape(inputs))
                return run(*inputs, **options)

            return noted

        self.loss_and_gradients(batch)  # builds what is missing
        for (name, _), graph in self.split.graphs.items():
            call = "forward" if name == "encoder" else "value_and_gradients"
            setattr(graph, call, noting(getattr(graph, call)))
        self.loss_and_gradients(batch)
        for (name, _), graph in self.split.graphs.items():
            delattr(graph, "forward" if name == "encoder" else "value_and_gradients")
        return found

    def build(self) -> None:
        """See the base."""
        self.split.build(progress=False)
        for pair in self.setting.covering:
            self.loss_and_gradients(one_row(*pair))

    @property
    def graphs(self) -> int:
        """See the base."""
        return len(self.split.graphs)


class Sharded(Subject):
    """The base of subjects that run shards of rows, each of one pair of padded lengths, and add up what they give.

    Args:
        setting: See the base.
        model: Likewise.
        lengths: How rows are padded.
        pairs: As few pairs of padded lengths as need every graph.
    """

    def __init__(self, setting: Setting, model: Model | None, lengths: Lengths, pairs: Sequence[Pair]):
        super().__init__(setting, model)
        self._lengths, self._pairs = lengths, pairs
        self._workers = Workers(setting.threads)

    @abstractmethod
    def prepare(self, source: int, target: int) -> None:
        """Build what a pair of padded lengths needs, unless it is there; in one thread."""

    @abstractmethod
    def run(self, source: Sequences, target: Sequences, share: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        """One shard.

        Args:
            source: Pieces `[rows, time]` and lengths `[rows]`.
            target: Likewise.
            share: What a target piece counts for, a scalar.

        Returns:
            The sum of the losses of all target pieces, and the gradients of that sum times the share.
        """

    def loss_and_gradients(self, batch: Batch) -> tuple[tf.Tensor, Gradients]:
        """See the base."""
        shards = deal(*self._lengths(batch), self.setting.threads)
        for _, source, target in shards:
            self.prepare(source, target)
        share = tf.constant(1.0 / int(batch["target"].lengths.sum()), tf.float32)
        return add_shards(self._workers, lambda shard: self.run(*padded(batch, *shard), share), shards, share)

    def build(self) -> None:
        """See the base."""
        for pair in self._pairs:
            self.loss_and_gradients(one_row(*pair))


class Joint(Sharded):
    """One graph for each pair of padded lengths, with one tape over both parts.

    Args:
        setting: See the base.
        model: Likewise.
        lengths: See `Sharded`.
        pairs: See `Sharded`.
        dynamic: Whether one graph takes all lengths; it changes the layers of a recurrent model.
    """

    def __init__(
        self, setting: Setting, model: Model | None, lengths: Lengths, pairs: Sequence[Pair], *, dynamic: bool = False
    ):
        super().__init__(setting, model, lengths, pairs)
        self._dynamic = dynamic
        self._graphs: dict[tuple, Any] = {}
        if dynamic:
            loop(*self.layers.values())

    @property
    def graphs(self) -> int:
        """See the base."""
        return len(self._graphs)

    def prepare(self, source: int, target: int) -> None:
        """See the base."""
        key = self._key(source, target)
        if key not in self._graphs:
            specs = [*map(field_spec, key), tf.TensorSpec([])]
            self._graphs[key] = tf.function(self._joint, autograph=False).get_concrete_function(*specs)

    def run(self, source: Sequences, target: Sequences, share: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        """See the base."""
        return self._graphs[self._key(source.values.shape[1], target.values.shape[1])](source, target, share)

    def _key(self, source: int, target: int) -> tuple[int | None, int | None]:
        return (None, None) if self._dynamic else (source, target)

    def _joint(self, source: Sequences, target: Sequences, share: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        encoder, decoder = self.layers.values()
        with tf.GradientTape() as tape:
            loss, _ = decoder(encoder(source, training=True), target, training=True)
        return loss, gradients_of(tape, loss, self.variables, share)


def add_shards(
    workers: Workers,
    run: Callable[[Any], tuple[tf.Tensor, Gradients]],
    shards: Sequence[Any],
    share: tf.Tensor,
) -> tuple[tf.Tensor, Gradients]:
    """Run shards at once, and add up what they give.

    Args:
        workers: The threads.
        run: Takes a shard; returns the sum of the losses of its target pieces, and gradients.
        shards: The dearest first.
        share: What a target piece counts for, a scalar.

    Returns:
        The sum of the losses times the share, and the sums of the gradients.
    """
    found = workers.each(run, shards)
    names = found[0][1]
    each = {name: zip(*(gradients[name] for _, gradients in found), strict=True) for name in names}
    total = {name: workers.each(add_up, gradients) for name, gradients in each.items()}
    return tf.add_n([loss for loss, _ in found]) * share, total


def _shape(inputs: tuple) -> tuple[int, ...]:
    """The rows of a part's inputs, and the times of the sequences that it reads."""
    sequences = [getattr(given, "outputs", given).values for given in inputs]
    return sequences[0].shape[0], *(values.shape[1] for values in sequences)


def field_spec(length: int | None) -> Sequences:
    """The spec of one side of a batch, its rows unknown."""
    return Sequences(tf.TensorSpec([None, length], tf.int32), tf.TensorSpec([None], tf.int32))


def gradients_of(tape: tf.GradientTape, loss: tf.Tensor, variables: dict[str, list], loss_ct: tf.Tensor) -> Gradients:
    """The gradients of a loss with respect to the variables of both parts."""
    flat = [variable.value for each in variables.values() for variable in each]
    found = iter(tape.gradient([loss], flat, output_gradients=[loss_ct]))
    return {name: [next(found) for _ in each] for name, each in variables.items()}
