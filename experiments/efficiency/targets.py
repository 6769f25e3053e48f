"""The ratios that the project aims at, and what a run reached."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from efficiency.plan import FINE, Plan
from efficiency.records import Records

BFLOAT16, FLOAT32 = "mixed_bfloat16", "float32"


class Target(NamedTuple):
    """One ratio.

    Attributes:
        name: What is divided by what.
        bound: What is aimed at, such as `>= 1.3`.
        reached: What was; `None` where it wasn't measured.
    """

    name: str
    bound: str
    reached: float | None

    @property
    def met(self) -> bool | None:
        """Whether that is enough; `None` where it wasn't measured."""
        if self.reached is None:
            return None
        sign, number = self.bound.split()
        return self.reached <= float(number) if sign == "<=" else self.reached >= float(number)


def judge(records: Records, plan: Plan) -> list[Target]:
    """All ratios of a run."""
    grid = f"split step / joint-pair step, median over {plan.main} x {plan.main} pairs"
    return [
        *_best_targets(records, plan),
        *(Target(f"{grid}, {name}", "<= 1.01", _pair_median(records, name)) for name in plan.precisions),
        *_speed_targets(records, plan),
        *_residual_targets(records, plan),
        *_building_targets(records, plan),
        *(
            Target(
                f"matrix products / split step, {_short(name)}",
                _by_machine(records, 0.85, 0.5),
                _floor(records, plan, name),
            )
            for name in plan.precisions
        ),
        Target(f"padding of {FINE}, share of an epoch", "<= 0.04", _padding(records, plan)),
    ]


def _best_targets(records: Records, plan: Plan) -> list[Target]:
    """The better of ours over the best that one would use instead, ratios of medians."""
    ours = ("split", FINE)
    others = (
        (("dynamic", "joint-pairs", "diagonal", "packed"), ">= 1.05"),
        (("torch", "torch-compile", "jax"), _by_machine(records, 1.0, 0.95)),
    )
    return [
        Target(
            f"{' or '.join(ours)} / the best of {', '.join(names)}, {_short(precision)}",
            bound,
            _ratio(_best(records, plan, precision, ours), _best(records, plan, precision, names)),
        )
        for names, bound in others
        for precision in plan.precisions
    ]


def _best(records: Records, plan: Plan, precision: str, names: tuple[str, ...]) -> float | None:
    """The most tokens in a second of some subjects on the first workload."""
    where = {"workload": plan.workloads[0], "precision": precision, "measure": "tokens/s"}
    counts = {name: plan.fine if name == FINE else plan.main for name in names}
    found = [records.value(subject=name, buckets=count, **where) for name, count in counts.items()]
    return max((each for each in found if each is not None), default=None)


def _by_machine(records: Records, without: float, with_amx: float) -> str:
    """A lower bound, which depends on whether the machine has matrix units."""
    return f">= {with_amx if 'AMX' in records.machine.extensions else without}"


def _speed_targets(records: Records, plan: Plan) -> list[Target]:
    first, independent = plan.workloads[0], "shuffled"
    wanted = [
        ("tape", ">= 1.15", (BFLOAT16, FLOAT32)),
        ("rerun", ">= 1.25", (BFLOAT16, FLOAT32)),
    ]
    found = [
        Target(
            f"split / {subject}, tokens/s, {_short(precision)}",
            bound,
            _over(records, plan, first, precision, subject, "split"),
        )
        for subject, bound, precisions in wanted
        for precision in precisions
        if precision in plan.precisions
    ]
    mixed = [
        Target(
            f"split-mixed / joint-pairs, same mixed batches, {independent}, {_short(precision)}",
            ">= 1.5",
            _over(records, plan, independent, precision, "joint-pairs-mixed", "split-mixed"),
        )
        for precision in plan.precisions
    ]
    cost = _over(records, plan, first, BFLOAT16, "split-mixed", "split")
    return [*found, *mixed, Target("split-mixed / split, time of a token, bfloat16", "<= 1.4", cost)]


def _residual_targets(records: Records, plan: Plan) -> list[Target]:
    def total(subject: str, precision: str, parts: tuple[str, ...]) -> float | None:
        where = {"workload": plan.workloads[0], "precision": precision, "subject": subject}
        sizes = [records.value(measure=f"residual bytes, {part}", **where) for part in parts]
        return None if None in sizes else sum(sizes)

    wanted = [
        ("cache-all", "<= 0.35", ("encoder",), "the encoder's"),
        ("cache-all", "<= 0.35", ("encoder", "decoder"), "both parts'"),
        ("tape", "<= 0.95", ("encoder",), "the encoder's"),
    ]
    return [
        Target(
            f"residual bytes, {whose}, split / {subject}, {_short(precision)}",
            bound,
            _ratio(total("split", precision, parts), total(subject, precision, parts)),
        )
        for subject, bound, parts, whose in wanted
        for precision in plan.precisions
    ]


def _building_targets(records: Records, plan: Plan) -> list[Target]:
    most = 12  # what the bound was set for
    measures = {"build time": "seconds to build", "memory growth of building": "memory growth, bytes"}
    return [
        Target(
            f"{shown}, {most} x {most} buckets, split / joint-pairs",
            "<= 0.2",
            _ratio(*(records.value(buckets=most, subject=each, measure=name) for each in ("split", "joint-pairs"))),
        )
        for shown, name in measures.items()
    ]


def _over(records: Records, plan: Plan, workload: str, precision: str, subject: str, by: str) -> float | None:
    measure = f"speed of {by} over it"
    return records.value(workload=workload, buckets=plan.main, precision=precision, subject=subject, measure=measure)


def _floor(records: Records, plan: Plan, precision: str) -> float | None:
    where = {"workload": plan.workloads[0], "precision": precision, "subject": "products"}
    return records.value(measure="share of the step of split", **where)


def _padding(records: Records, plan: Plan) -> float | None:
    return records.value(workload=plan.workloads[0], buckets=plan.fine, subject=FINE, measure="padding share")


def _pair_median(records: Records, precision: str) -> float | None:
    found = [each.median for each in records.get(precision=precision, subject="split") if is_pair(each.measure)]
    return float(np.median(found)) if found else None


def is_pair(measure: str) -> bool:
    """Whether a measure is the step over joint-pairs of one bucket pair."""
    return measure.startswith("step over joint-pairs, ")


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _short(precision: str) -> str:
    return precision.removeprefix("mixed_")
