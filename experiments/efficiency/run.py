"""Runs a plan, and shows what it found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from efficiency import peers, report, workloads
from efficiency.agreement import check
from efficiency.batches import Batch, batch_of, full_batch, padded, tokens_of
from efficiency.building import build_apart, set_threads
from efficiency.layouts import LAYOUTS, lay_out, layout_of
from efficiency.making import Subjects, kind
from efficiency.naming import weights_of
from efficiency.plan import BUCKETED, GROWING, PEERS, Plan
from efficiency.products import runner
from efficiency.records import Records
from efficiency.residuals import forward_runs, residual_bytes
from efficiency.setting import Setting
from efficiency.subjects import LEARNING_RATE, Split
from efficiency.timing import Work, seconds, speeds
from efficiency.workloads import BOS, SIDES
from seq2split.split.sequences import Sequences


def run(plan: Plan, json: Path | None, plot: Path | None) -> None:
    """Measure, print tables, and write what was asked for.

    Args:
        plan: What to measure.
        json: Where the records go, if anywhere.
        plot: The directory of the figures, if any.
    """
    start = time.monotonic()
    bench = Bench(plan, set_threads(plan.threads, plan.intra_op))
    try:
        for measure in bench.stages():
            measure()
            if json:
                bench.records.save(json)
    finally:  # a run that is cut short keeps and shows what it has
        print(report.text(bench.records, plan))
        if plot:
            from efficiency import plots

            plots.draw(bench.records, plan, plot)
    print(f"\n{time.monotonic() - start:.0f} s in all, {bench.threads} threads", flush=True)


class Sample(NamedTuple):
    """Batches that stand for an epoch.

    Attributes:
        batches: The batches.
        weights: How many of the epoch each stands for.
    """

    batches: list[Batch]
    weights: list[float]

    def work(self, step: Callable[[Any], Any]) -> Work:
        """What a subject runs that takes the batches."""
        return Work(step, self.batches, [tokens_of(batch) for batch in self.batches], self.weights)


class Bench:
    """Measures into records.

    Args:
        plan: What to measure.
        threads: Shards of a batch that run at once.

    Attributes:
        records: What was found.
        names: The subjects that can be measured here.
    """

    def __init__(self, plan: Plan, threads: int):
        self.plan, self.threads = plan, threads
        self.records = Records(plan.model)
        self.names = [name for name in plan.subjects if name not in PEERS]
        self._peers = [name for name in plan.subjects if name in PEERS and not _left_out(name, plan)]
        self._subjects = Subjects()
        self._first = plan.workloads[0]

    def stages(self) -> Iterator[Callable[[], None]]:
        """What is to be done, in order."""
        for workload in self.plan.workloads:
            yield partial(self.measure_padding, workload)
        for precision in self.plan.precisions:
            for workload in self.plan.workloads:
                yield partial(self.measure_speed, workload, precision)
                if workload == self._first and "pairs" not in self.plan.skip:
                    yield partial(self.measure_pairs, precision)
        if "counts" not in self.plan.skip:
            yield self.measure_bucket_counts
        if "building" not in self.plan.skip:
            yield self.measure_building

    def measure_padding(self, workload: str) -> None:
        """The share of padding in an epoch, for every number of buckets."""
        corpus = workloads.load(workload)
        for count in self.plan.counts:
            shares = {
                name: lay_out(name, workload, count, self.plan.tokens).padding(corpus)
                for name in sorted({layout_of(each) for each in (*self.names, *self._peers)}, key=list(LAYOUTS).index)
            }
            for name in (*self.names, *self._peers):
                self.records.add(workload, count, "any", name, "padding share", shares[layout_of(name)])

    def measure_speed(self, workload: str, precision: str) -> None:
        """Tokens in a second of every subject, ratios, the products alone, residuals and runs of the forward."""
        setting = self._setting(workload, self.plan.main, precision)
        self._subjects.keep(setting)
        made = {name: self._subjects.get(name, setting) for name in self.names}
        for model in {subject.model for subject in made.values()}:
            model.reset()  # another workload may have trained it
        made |= {name: _peer(name, setting) for name in self._peers if name != "jax" or precision == "float32"}
        samples = {name: self._sample(name, workload, self.plan.main) for name in made}
        pure = _first_pure(self._sample("split", workload, self.plan.main).batches, setting)
        check(made, pure, precision)
        if "jax" in made:
            samples["jax"] = _to_buckets(samples["jax"], setting)
        works = {name: samples[name].work(made[name].step) for name in made}
        if "split" in made:
            works["products"] = self._products(made["split"], samples["split"])
        found = speeds(works, self.plan.rounds, f"{workload}, {precision}")
        self._note_speeds(workload, precision, found)
        for name in self.names:
            kept = residual_bytes(made[name], pure)
            for part, size in kept.items():
                self.records.add(workload, self.plan.main, precision, name, f"residual bytes, {part}", size)
        if workload == self._first and precision == self.plan.precisions[0]:
            self._count_forward_runs(setting)

    def measure_pairs(self, precision: str) -> None:
        """The step of split over that of the joint graph, for each pair of buckets."""
        if not set(GROWING) <= set(self.names):
            return
        setting = self._setting(self._first, self.plan.main, precision)
        made = {name: self._subjects.get(name, setting) for name in GROWING}
        for source, target in tqdm(setting.pairs, desc=f"bucket pairs, {precision}", leave=False):
            batch = full_batch(source, target, self.plan.tokens, setting.sizes.vocabulary)
            steps = {name: lambda each=each, batch=batch: each.step(batch) for name, each in made.items()}
            found = seconds(steps, self.plan.pair_rounds)
            ratios = found["split"] / found["joint-pairs"]
            measure = f"step over joint-pairs, {source} x {target}"
            self.records.add(self._first, self.plan.main, precision, "split", measure, *ratios)

    def measure_bucket_counts(self) -> None:
        """Tokens in a second against the number of buckets, in the first precision."""
        precision = self.plan.precisions[0]
        names = [name for name in BUCKETED if name in self.names]
        for count in self.plan.counts:
            if count == self.plan.main:
                continue
            setting = self._setting(self._first, count, precision)
            self._subjects.keep(setting)
            works = {
                name: self._sample(name, self._first, count).work(self._subjects.get(name, setting).step)
                for name in names
            }
            if works:
                for name, found in speeds(works, self.plan.rounds, f"{count} buckets").items():
                    self.records.add(self._first, count, precision, name, "tokens/s", *found)
        self._subjects = Subjects()

    def measure_building(self) -> None:
        """Graphs, seconds and memory, in the first precision."""
        plan, precision = self.plan, self.plan.precisions[0]
        tasks = [(name, plan.main) for name in self.names]
        tasks += [
            (name, count) for name in self.names for count in plan.counts if name in GROWING and count != plan.main
        ]
        apart = sorted({(kind(name), count) for name, count in tasks})

        def build(task: tuple[str, int]) -> dict[str, float]:
            return build_apart(task[0], self._setting(self._first, task[1], precision), plan.intra_op)

        measures = {
            "graphs": "graphs",
            "seconds": "seconds to build",
            "growth": "memory growth, bytes",
            "resident": "resident memory, bytes",
        }
        with ThreadPoolExecutor(plan.builders) as pool:
            results = tqdm(pool.map(build, apart), total=len(apart), desc="building apart", leave=False)
            for done, found in zip(apart, results, strict=True):
                for name, count in tasks:
                    for key, measure in measures.items() if (kind(name), count) == done else ():
                        self.records.add(self._first, count, precision, name, measure, found[key])

    def _setting(self, workload: str, count: int, precision: str) -> Setting:
        return Setting.of(self.plan, workload, count, precision, self.threads)

    def _sample(self, name: str, workload: str, count: int) -> Sample:
        """A sample of an epoch of a subject's batches."""
        layout, corpus = (lay_out(layout_of(name), workload, count, self.plan.tokens), workloads.load(workload))
        batches, weights = layout.sample(self.plan.batches)
        return Sample([batch_of(corpus, rows) for rows in batches], weights)

    def _products(self, subject: Split, sample: Sample) -> Work:
        """The matrix products of batches in the shapes in which split runs them."""
        setting = subject.setting
        shapes = [subject.shapes(batch) for batch in sample.batches]
        runs = [runner(setting.sizes, setting.precision, each, self.threads) for each in shapes]
        return sample.work(lambda run: run())._replace(items=runs)

    def _note_speeds(self, workload: str, precision: str, found: dict[str, np.ndarray]) -> None:
        def note(name: str, measure: str, values: Iterable[float]) -> None:
            self.records.add(workload, self.plan.main, precision, name, measure, *values)

        products = found.pop("products", None)
        if products is not None:
            note("products", "share of the step of split", found["split"] / products)
        for name, each in found.items():
            note(name, "tokens/s", each)
            if "split" in found:
                note(name, "speed of split over it", found["split"] / each)
        if {"split-mixed", "joint-pairs-mixed"} <= found.keys():
            ratios = found["split-mixed"] / found["joint-pairs-mixed"]
            note("joint-pairs-mixed", "speed of split-mixed over it", ratios)

    def _count_forward_runs(self, setting: Setting) -> None:
        for name in tqdm(self.names, desc="counting forward runs", leave=False):
            for part, times in forward_runs(name, setting).items():
                self.records.add(self._first, self.plan.main, setting.precision, name, f"forward runs, {part}", times)


def _left_out(name: str, plan: Plan) -> bool:
    """Whether a peer can't be measured; says why."""
    reason = peers.available()[name]
    if not reason and plan.model == "gru":
        reason = "it is not written for the GRU"
    if not reason and name == "jax" and "float32" not in plan.precisions:
        reason = "it is measured in float32 alone"
    if reason:
        print(f"{name} is left out: {reason}", file=sys.stderr)
    return bool(reason)


def _peer(name: str, setting: Setting) -> Any:
    weights = weights_of(*setting.layers())
    heads = setting.sizes.heads if setting.sizes.model == "transformer" else None
    if name == "jax":
        return peers.JaxSubject(weights, BOS, LEARNING_RATE, heads)
    return peers.TorchSubject(weights, BOS, setting.precision, setting.threads, LEARNING_RATE, heads)


def _is_pure(batch: Batch, setting: Setting) -> bool:
    """Whether the rows of a batch are of one bucket pair; those left over at the end of an epoch are not."""
    return all(len(set(lengths.tolist())) == 1 for lengths in setting.by_bucket(batch))


def _first_pure(batches: list[Batch], setting: Setting) -> Batch:
    """The one of middle size among the batches of one bucket pair."""
    pure = [batch for batch in batches if _is_pure(batch, setting)]
    return (pure or batches)[len(pure or batches) // 2]


def _to_buckets(sample: Sample, setting: Setting) -> Sample:
    """The batches of one bucket pair, padded to it."""
    pure = [(batch, weight) for batch, weight in zip(*sample, strict=True) if _is_pure(batch, setting)]
    return Sample([_to_bucket(batch, setting) for batch, _ in pure], [weight for _, weight in pure])


def _to_bucket(batch: Batch, setting: Setting) -> Batch:
    lengths = (int(each.max()) for each in setting.by_bucket(batch))
    fields = padded(batch, np.arange(len(batch["source"].lengths)), *lengths)
    return {side: Sequences(*(each.numpy() for each in field)) for side, field in zip(SIDES, fields, strict=True)}
