"""Runs a plan, and shows what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from efficiency import peer_choice, report, workloads
from efficiency.agreement import check
from efficiency.batches import full_batch
from efficiency.building import build_apart, set_threads
from efficiency.layouts import LAYOUTS, lay_out, layout_of
from efficiency.machine import this_machine
from efficiency.making import Subjects, kind
from efficiency.peer_process import PeerError, PeerProcess
from efficiency.plan import BUCKETED, FINE, GROWING, PEERS, Plan
from efficiency.products import runner
from efficiency.records import WAY, Records
from efficiency.residuals import forward_runs, residual_bytes
from efficiency.samples import Sample
from efficiency.scaling import speeds_on
from efficiency.setting import Setting
from efficiency.subjects import Split
from efficiency.timing import Work, seconds, speeds, timed


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


def measured(plan: Plan) -> Records:
    """Measure, and return the records."""
    bench = Bench(plan, set_threads(plan.threads, plan.intra_op))
    for measure in bench.stages():
        measure()
    return bench.records


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
        self.records = Records(plan.model, this_machine())
        left_out = peer_choice.left_out(plan)
        if plan.model != "transformer" and "packed" in plan.subjects:
            left_out["packed"] = "only a Transformer can read several sentences in one row"
        for name, reason in left_out.items():
            self.records.fail(name, f"is left out: {reason}")
        able = [name for name in plan.subjects if name not in left_out]
        self.names = [name for name in able if name not in PEERS]
        self._peers = [name for name in able if name in PEERS]
        self._subjects = Subjects()
        self._first = plan.workloads[0]

    def stages(self) -> Iterator[Callable[[], None]]:
        """What is to be done, in order."""
        for workload in self.plan.workloads:
            yield partial(self.measure_padding, workload)
        for precision in self.plan.precisions:
            for workload in self.plan.workloads:
                if "speed" not in self.plan.skip:
                    yield partial(self.measure_speed, workload, precision)
                if workload == self._first and "pairs" not in self.plan.skip:
                    yield partial(self.measure_pairs, precision)
        if "runs" not in self.plan.skip:
            yield self.count_forward_runs
        if "counts" not in self.plan.skip:
            yield self.measure_bucket_counts
        if "building" not in self.plan.skip:
            yield self.measure_building
        for cores in self.plan.scaling:
            yield partial(self.measure_scaling, cores)

    def measure_padding(self, workload: str) -> None:
        """The share of padding in an epoch, for every number of buckets."""
        corpus = workloads.load(workload)
        names = [*self.names, *self._peers]
        for count in sorted({*self.plan.counts, *map(self._count, names)}):
            here = [name for name in names if (count == self.plan.fine if name == FINE else count in self.plan.counts)]
            shares = {
                layout: lay_out(layout, workload, count, self.plan.tokens).padding(corpus)
                for layout in sorted({layout_of(name) for name in here}, key=list(LAYOUTS).index)
            }
            for name in here:
                self.records.add(workload, count, "any", name, "padding share", shares[layout_of(name)])

    def measure_speed(self, workload: str, precision: str) -> None:
        """Tokens in a second of every subject, ratios, the products alone, residuals and runs of the forward."""
        settings = {name: self._setting(workload, self._count(name), precision) for name in ("split", *self.names)}
        self._subjects.keep(*settings.values())
        made = {name: self._subjects.get(name, settings[name]) for name in self.names}
        for model in {subject.model for subject in made.values()}:
            model.reset()  # another workload may have trained it
        setting, pure = settings["split"], self._sample("split", workload).first_pure(settings["split"])
        with self._started(setting, workload) as started:
            check(made | started, pure, precision)
            works = {name: self._sample(name, workload).work(timed(each.step)) for name, each in made.items()}
            if "split" in made:
                works["products"] = self._products(made["split"], self._sample("split", workload))
            works |= {way: self._peer_sample(way, setting, workload).work(each.step) for way, each in started.items()}
            found = speeds(works, self.plan.rounds, f"{workload}, {precision}")
        self._note_speeds(workload, precision, self._best_ways(workload, precision, found))
        for name in self.names:
            kept = residual_bytes(made[name], pure) if name != FINE else {}
            for part, size in kept.items():
                self.records.add(workload, self.plan.main, precision, name, f"residual bytes, {part}", size)

    @contextmanager
    def _started(self, setting: Setting, workload: str) -> Iterator[dict[str, PeerProcess]]:
        """All ways of the peers, each in its process; in the end a line in the report for each that failed."""
        started: dict[str, PeerProcess] = {}
        try:
            for way, peer in peer_choice.ways(self._peers, setting.precision):
                try:
                    started[way] = peer_choice.start(peer, setting)
                except PeerError as error:
                    self.records.fail(way, f"failed ({workload}, {setting.precision}): {error}")
            yield started
        finally:
            for way, each in started.items():
                if each.error is not None:
                    self.records.fail(way, f"failed ({workload}, {setting.precision}): {each.error}")
                each.close()

    def _best_ways(self, workload: str, precision: str, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was found, with the best of several ways to run a peer in the place of all of them."""
        best = dict(found)
        for name in self._peers:
            ways = {way: best.pop(way) for way in peer_choice.WAYS[name] if way in best}
            for way, each in ways.items() if len(peer_choice.WAYS[name]) > 1 else ():
                measure = WAY + way.removeprefix(f"{name}-")
                self.records.add(workload, self.plan.main, precision, name, measure, *each)
            if ways:
                best[name] = max(ways.values(), key=np.median)
        return best

    def count_forward_runs(self) -> None:
        """How often the forward of each part runs in a step, of every subject."""
        setting = self._setting(self._first, self.plan.main, self.plan.precisions[0])
        kinds = {kind(name) for name in self.names} - {"packed"}  # which calls the layers, not the encoder
        runs = {each: forward_runs(each, setting) for each in tqdm(kinds, desc="counting forward runs", leave=False)}
        for name in self.names:
            for part, times in runs.get(kind(name), {}).items():
                self.records.add(
                    self._first, self._count(name), setting.precision, name, f"forward runs, {part}", times
                )

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
                name: self._sample(name, self._first, count).work(timed(self._subjects.get(name, setting).step))
                for name in names
            }
            if works:
                for name, found in speeds(works, self.plan.rounds, f"{count} buckets").items():
                    self.records.add(self._first, count, precision, name, "tokens/s", *found)
        self._subjects = Subjects()

    def measure_building(self) -> None:
        """Graphs, seconds and memory, in the first precision."""
        plan, precision = self.plan, self.plan.precisions[0]
        tasks = [(name, self._count(name)) for name in self.names]
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

    def measure_scaling(self, cores: int) -> None:
        """Tokens in a second on some of the cores, in a process of its own, on the first workload."""
        found = speeds_on(cores, self.plan)
        for each in found.get(measure="tokens/s"):
            self.records.all.append(replace(each, measure=f"tokens/s, {cores} cores"))
        for name, reason in found.failures:
            if "left out" not in reason:
                self.records.fail(name, f"{reason} (on {cores} cores)")

    def _count(self, name: str) -> int:
        """The number of buckets a side at which a subject is measured."""
        return self.plan.fine if name == FINE else self.plan.main

    def _setting(self, workload: str, count: int, precision: str) -> Setting:
        return Setting.of(self.plan, workload, count, precision, self.threads)

    def _sample(self, name: str, workload: str, count: int | None = None, batches: int | None = None) -> Sample:
        """A sample of an epoch of a subject's batches."""
        count = count or self._count(name)
        return Sample.of(layout_of(name), workload, count, self.plan.tokens, batches or self.plan.batches)

    def _peer_sample(self, way: str, setting: Setting, workload: str) -> Sample:
        """Likewise; what is compiled for each shape runs batches of one bucket pair alone, padded to it."""
        if layout_of(way) == "homogeneous":
            return self._sample(way, workload, batches=min(self.plan.compiled, self.plan.batches)).to_buckets(setting)
        return self._sample(way, workload)

    def _products(self, subject: Split, sample: Sample) -> Work:
        """The matrix products of batches in the shapes in which split runs them."""
        setting = subject.setting
        shapes = [subject.shapes(batch) for batch in sample.batches]
        runs = [runner(setting.sizes, setting.precision, each, self.threads) for each in shapes]
        return sample.work(timed(lambda run: run()))._replace(items=runs)

    def _note_speeds(self, workload: str, precision: str, found: dict[str, np.ndarray]) -> None:
        def note(name: str, measure: str, values: Iterable[float]) -> None:
            self.records.add(workload, self._count(name), precision, name, measure, *values)

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
