"""Speed on some of the cores: TensorFlow and its peers read their numbers when a process starts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

from efficiency.own_script import answer
from efficiency.plan import STAGES, Plan
from efficiency.records import Records


def check_cores(plan: Plan) -> None:
    """Check that a plan's speeds on some cores can be measured.

    Raises:
        ValueError: The machine has fewer cores, or can't keep a process on some of them.
    """
    if plan.scaling and not hasattr(os, "sched_setaffinity"):
        raise ValueError("--scaling keeps a process on some cores, which only Linux can; leave it out.")
    if plan.scaling and max(plan.scaling) > len(os.sched_getaffinity(0)):
        raise ValueError(
            f"--scaling {max(plan.scaling)}: this process may use {len(os.sched_getaffinity(0))} cores; give fewer."
        )


def speeds_on(cores: int, plan: Plan) -> Records:
    """Measure the speed of all subjects of a plan on so many cores, on its first workload.

    Raises:
        RuntimeError: It failed.
    """
    skip = tuple(stage for stage in STAGES if stage != "speed")
    only = {"skip": skip, "scaling": (), "workloads": plan.workloads[:1], "counts": (plan.main,)}
    speed = replace(plan, threads=None, intra_op=None, **only)
    return Records.loads(answer("--speeds", [cores, asdict(speed)], f"measuring on {cores} cores"))


def keep_to(task: str) -> Plan:
    """Keep this process, before TensorFlow starts, to the cores of a task of `speeds_on`, and return its plan."""
    cores, given = json.loads(task)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    return Plan(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
