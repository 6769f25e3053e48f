"""What XLA costs and gives: split part graphs at several context lengths, joint programs of bucket pairs, and no XLA.

    python experiments/compilation.py --quick
    python experiments/compilation.py --pairs 36
    python experiments/compilation.py --long

The LSTM encoder and attention decoder of `seq2split.models`, on made-up pieces, all from the same weights. Programs are
counted as XLA makes them: an encoder's part graph has two, a forward and a backward. Of the joint pairs as many are
compiled as `--pairs` says, each bucket of either side as often, and their seconds are scaled to all: a program takes so
long that all of them would take longer than everything else together. Seconds are of the processor, all threads
together, which a busy machine doesn't change much; speeds are taken in turn.

The plain loops are the same layers as one would write them for XLA: a `tf.while_loop` that TensorFlow differentiates,
and for each part and bucket one program that has both passes. They show what there is to compile; nothing trains so.
With `--long`, of real sizes, all that is measured is how long it takes until everything is compiled.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

sys.path.append(str(Path(__file__).parent))
from efficiency.batches import Batch, padded, tokens_of
from efficiency.looped import loop
from efficiency.subjects import gradients_of
from efficiency.timing import Work, speeds, timed
from efficiency.workloads import SIDES

import seq2split as s2s
from seq2split.common.compilation import tracing_for_xla
from seq2split.common.tables import table
from seq2split.models import Encoded, RecurrentDecoder, RecurrentEncoder
from seq2split.split.gradients import add_up
from seq2split.split.sequences import Sequences

BOS = 2
JOINT = "joint pairs, XLA"
LOOPS = "plain loops, XLA"
TITLES = ("", "graphs", "programs", "building, s", "one pair", "mixed")
Pair = tuple[int, int]


class Costs(NamedTuple):
    """What a subject took to get ready, and how it steps.

    Attributes:
        graphs: How many graphs all bucket pairs take.
        programs: How many programs XLA compiles for them.
        building: Seconds of the processor to trace them, and to compile and run each for the first time.
        step: Takes a batch; `None` for what can't train.
    """

    graphs: int
    programs: int
    building: float
    step: Callable[[Batch], object] | None = None


class Setting(NamedTuple):
    """What is measured.

    Attributes:
        lengths: The buckets of either side.
        rows: Of a part graph.
        units: Of the model.
        vocabulary: Of either side.
        pairs: How many bucket pairs stand for all.
        contexts: The numbers of context lengths to try.
    """

    lengths: tuple[int, ...] = (4, 6, 8, 10, 12, 16)
    rows: int = 32
    units: int = 128
    vocabulary: int = 2000
    pairs: int = 6
    contexts: tuple[int, ...] = (1, 2, 3)

    @property
    def sample(self) -> list[Pair]:
        """Bucket pairs, each bucket of either side as often; first those near the diagonal."""
        count = len(self.lengths)
        shifts = range(-(-self.pairs // count))
        found = [(source, self.lengths[(at + by) % count]) for by in shifts for at, source in enumerate(self.lengths)]
        return found[: self.pairs]

    @property
    def all_pairs(self) -> list[Pair]:
        """All bucket pairs."""
        return [(source, target) for source in self.lengths for target in self.lengths]


QUICK = Setting(lengths=(3, 5), rows=4, units=8, vocabulary=20, pairs=2, contexts=(2,))
LONG = Setting(lengths=(8, 16, 24, 32, 48, 64), units=256, vocabulary=8000)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="a tiny model: for the script, not for its numbers")
    arguments.add_argument("--long", action="store_true", help="real sizes: how long it takes to compile them")
    arguments.add_argument("--pairs", type=int, help="joint pairs to compile (default: one for each source bucket)")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    if options.long:
        subjects = {LOOPS: plain_loops(LONG), "split, XLA, context_buckets=1": split(LONG, 1)}
        print(table(TITLES[:4], [_row(name, costs) for name, costs in subjects.items()], flush_right=True))
        return
    setting = QUICK if options.quick else Setting()
    setting = setting._replace(pairs=options.pairs) if options.pairs else setting
    subjects = {"split, no XLA": split(setting, None), LOOPS: plain_loops(setting), JOINT: joint(setting)}
    subjects |= {f"split, XLA, context_buckets={count}": split(setting, count) for count in setting.contexts}

    able = {name: costs for name, costs in subjects.items() if costs.step}
    one_pair = measure(able, [batch_of(setting, [pair] * setting.rows) for pair in setting.sample], options.rounds)
    every = {name: costs for name, costs in able.items() if name != JOINT or is_whole(setting)}
    mixed = measure(every, [mixed_batch(setting, seed) for seed in range(4)], options.rounds)
    rows = [_row(name, costs, one_pair, mixed) for name, costs in subjects.items()]
    print(table(TITLES, rows, flush_right=True))
    print(
        "Real tokens of both sides in a second, forward and backward: of batches of one bucket pair, and of all mixed."
    )


def _row(name: str, costs: Costs, *speeds: Mapping[str, np.ndarray]) -> list:
    tokens = [f"{np.median(each[name]):,.0f}" if name in each else "-" for each in speeds]
    return [name, costs.graphs, costs.programs, f"{costs.building:.1f}", *tokens]


def is_whole(setting: Setting) -> bool:
    """Whether all bucket pairs are compiled."""
    return len(setting.sample) == len(setting.all_pairs)


def measure(subjects: Mapping[str, Costs], batches: Sequence[Batch], rounds: int) -> dict[str, np.ndarray]:
    """The tokens in a second of each subject, `[rounds]`."""
    tokens, weights = [tokens_of(batch) for batch in batches], [1.0] * len(batches)
    return speeds(
        {name: Work(timed(each.step), batches, tokens, weights) for name, each in subjects.items()}, rounds, ""
    )


def layers(setting: Setting) -> tuple[RecurrentEncoder, RecurrentDecoder]:
    """The model, with the same weights at every call."""
    keras.utils.set_random_seed(1)
    pieces, units = setting.vocabulary, setting.units
    encoder = RecurrentEncoder(pieces, units, units, bidirectional=False, name="encoder")
    return encoder, RecurrentDecoder(pieces, units, BOS, units, units, name="decoder")


def split(setting: Setting, context_buckets: int | None) -> Costs:
    """Return our model; without XLA where there is no number of context buckets."""
    encoder, decoder = layers(setting)
    buckets = s2s.Buckets(setting.lengths)
    compiled = {"jit_compile": True, "rows": setting.rows, "context_buckets": context_buckets}
    first = s2s.Node(encoder, "source", buckets)
    last = s2s.Node(decoder, [first, "target"], buckets, loss=True)
    model = s2s.SplitModel([first, last], **(compiled if context_buckets else {"row_multiple": 8}))
    building = processor_seconds(model.build)
    building += processor_seconds(lambda: model.loss_and_gradients(batch_of(setting, setting.all_pairs)))
    return Costs(len(model.graphs), model.compilations, building, model.loss_and_gradients)


def plain_loops(setting: Setting) -> Costs:
    """One program for each part and bucket, of layers in loops that TensorFlow differentiates."""
    encoder, decoder = layers(setting)
    weights = [[variable.value for variable in layer.trainable_variables] for layer in (encoder, decoder)]
    loop(encoder, decoder)

    def encode(source: Sequences) -> tuple:
        with tf.GradientTape() as tape:
            encoded = encoder(source, training=True)
            values = [encoded.outputs.values, encoded.summary]
        return encoded, tape.gradient(values, weights[0])

    def decode(encoded: Encoded, target: Sequences) -> tuple:
        values = [encoded.outputs.values, encoded.summary]
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss, _ = decoder(encoded, target, training=True)
        return loss, tape.gradient(loss, values + weights[1])

    def build() -> None:
        encoded = tf.nest.map_structure(tf.zeros_like, encoder(zeros(max(setting.lengths))))
        for inputs in map(zeros, setting.lengths):
            for run, arguments in ((encode, (inputs,)), (decode, (encoded, inputs))):
                program = tf.function(run, autograph=False, jit_compile=True)
                program.get_concrete_function(*arguments)(*arguments)

    def zeros(length: int) -> Sequences:
        return tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), field_spec(setting.rows, length))

    graphs = 2 * len(setting.lengths)
    return Costs(graphs, graphs, processor_seconds(build))


def joint(setting: Setting) -> Costs:
    """One program for each bucket pair; only those of the sample are made, and their costs scaled to all."""
    parts = layers(setting)
    variables = {layer.name: layer.trainable_variables for layer in parts}
    buckets, programs = s2s.Buckets(setting.lengths), {}

    def run(source: Sequences, target: Sequences, share: tf.Tensor) -> tuple:
        encoder, decoder = parts
        with tf.GradientTape() as tape:
            loss, _ = decoder(encoder(source, training=True), target, training=True)
        return loss, gradients_of(tape, loss, variables, share)

    def trace(pair: Pair) -> None:
        specs = [field_spec(setting.rows, length) for length in pair]
        function = tf.function(run, autograph=False, jit_compile=True)
        with tracing_for_xla():
            programs[pair] = function.get_concrete_function(*specs, tf.TensorSpec([]))

    def step(batch: Batch) -> tuple:
        share = tf.constant(1.0 / int(batch["target"].lengths.sum()), tf.float32)
        lengths = [buckets.padded(batch[side].lengths) for side in SIDES]
        found = [programs[pair](*fields, share) for pair, fields in filled(setting, batch, *lengths)]
        each = {name: zip(*(gradients[name] for _, gradients in found), strict=True) for name in variables}
        return tf.add_n([loss for loss, _ in found]), {name: list(map(add_up, sums)) for name, sums in each.items()}

    scale = len(setting.all_pairs) / len(setting.sample)
    building = sum(processor_seconds(partial(trace, pair)) for pair in setting.sample)
    whole = [batch_of(setting, [pair]) for pair in setting.sample]
    building += sum(processor_seconds(partial(step, batch)) for batch in whole)
    return Costs(len(setting.all_pairs), len(setting.all_pairs), scale * building, step)


def filled(setting: Setting, batch: Batch, source: np.ndarray, target: np.ndarray) -> Iterator[tuple[Pair, tuple]]:
    """The rows of a batch by their padded lengths, each part of it filled to the rows of a program with empty ones."""
    for pair in sorted(set(zip(source.tolist(), target.tolist(), strict=True))):
        rows = np.flatnonzero((source == pair[0]) & (target == pair[1]))
        for start in range(0, len(rows), setting.rows):
            fields = padded(batch, rows[start : start + setting.rows], *pair)
            missing = setting.rows - len(fields[0].lengths)
            fill = [
                Sequences(tf.pad(values, [[0, missing], [0, 0]]), tf.pad(lengths, [[0, missing]]))
                for values, lengths in fields
            ]
            yield pair, tuple(fill)


def field_spec(rows: int, length: int) -> Sequences:
    """One side of a batch."""
    return Sequences(tf.TensorSpec([rows, length], tf.int32), tf.TensorSpec([rows], tf.int32))


def batch_of(setting: Setting, pairs: Sequence[Pair], seed: int = 0) -> Batch:
    """A row for each bucket pair, of random pieces; as long as its bucket, or up to one piece shorter."""
    random = np.random.default_rng(seed)
    fields = {}
    for side, bounds in zip(SIDES, zip(*pairs, strict=True), strict=True):
        lengths = np.array(bounds, np.int32) - random.integers(0, 2, len(bounds)).astype(np.int32)
        pieces = random.integers(4, setting.vocabulary, [len(bounds), max(setting.lengths)]).astype(np.int32)
        fields[side] = Sequences(pieces * (np.arange(pieces.shape[1]) < lengths[:, None]), lengths)
    return fields


def mixed_batch(setting: Setting, seed: int) -> Batch:
    """Independent lengths of either side, as many of each bucket as a part graph has rows."""
    random = np.random.default_rng(seed)
    sides = [random.permutation(np.repeat(setting.lengths, setting.rows)).tolist() for _ in SIDES]
    return batch_of(setting, list(zip(*sides, strict=True)), seed)


def processor_seconds(task: Callable[[], object]) -> float:
    """What a task takes of the processor, in all threads."""
    start = time.process_time()
    task()
    return time.process_time() - start


if __name__ == "__main__":
    main()
