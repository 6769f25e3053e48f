"""What splitting a model by bucket costs and saves, against everything that one would do instead.

    python experiments/bucket_efficiency.py --quick
    python experiments/bucket_efficiency.py --json results.json --plot figures
    python experiments/bucket_efficiency.py --model transformer
    python experiments/bucket_efficiency.py --compare here.json there.json

Every subject trains the same model from the same weights on the same corpus, a few batches of each in turn, so that a
machine that slows down slows all of them; PyTorch and JAX in a process each. `efficiency/plan.py` says who they are and
how much is measured. The process starts itself anew once, with a tuned C allocator; what one subject gets, all get.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from efficiency.plan import FULL, MODELS, PEERS, PRECISIONS, QUICK, STAGES, SUBJECTS, WORKLOADS, Plan
from efficiency.scaling import check_cores, keep_to

# Tuning glibc's allocator halves PyTorch's step, by sparing it page faults. It is read when a process starts.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "8000000000",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def main() -> int:
    """Run the benchmark and return the status of the process."""
    chosen = _arguments()
    try:
        if chosen.compare:
            from efficiency.comparison import compare

            print(compare(chosen.compare))
            return 0
        plan = _plan(chosen)
        check_cores(plan)
        _check_writable(chosen)
    except (ValueError, FileNotFoundError) as error:
        return _refuse(error)
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ALLOCATOR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if _is_called_by_itself(chosen):
        return _answer(chosen)
    from efficiency import run  # TensorFlow comes with it

    try:
        run.run(plan, chosen.json, chosen.plot)
    except (ValueError, FileNotFoundError) as error:
        return _refuse(error)
    return 0


def _is_called_by_itself(chosen: argparse.Namespace) -> bool:
    return chosen.peer is not None or bool(chosen.build or chosen.speeds)


def _answer(chosen: argparse.Namespace) -> int:
    """Do a part of the work for another process of this script."""
    if chosen.peer is not None:
        from efficiency.peer_server import serve  # the one that holds no TensorFlow

        serve(chosen.peer)
    elif chosen.build:
        from efficiency.building import build_here

        print(json.dumps(build_here(chosen.build)))
    else:
        plan = keep_to(chosen.speeds)
        from efficiency.run import measured

        print(measured(plan).dumps())
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model on the embedded corpus, within 3 minutes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every number there")
    parser.add_argument("--plot", metavar="DIR", type=Path, help="write figures there (needs matplotlib)")
    parser.add_argument("--model", choices=MODELS, help="what is trained (default: lstm)")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, help="the corpora (default: all)")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS + PEERS, help="default: all that can run")
    parser.add_argument("--buckets", nargs="+", type=int, metavar="COUNT", help="numbers of buckets a side")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="default: both")
    parser.add_argument("--rounds", type=int, help="repetitions of each step, but for those of bucket pairs")
    parser.add_argument("--skip", nargs="+", choices=STAGES, help="what to leave out; building takes longest")
    parser.add_argument("--threads", type=int, help="shards of a batch that run at once (default: one for each core)")
    parser.add_argument("--intra-op", type=int, help="threads of one TensorFlow operation (default: cores / threads)")
    parser.add_argument("--scaling", nargs="+", type=int, metavar="CORES", help="measure on so many cores as well")
    parser.add_argument("--compare", nargs="+", metavar="FILE", type=Path, help="only show files of --json, as a table")
    # What the script calls itself with: to build one subject, to run a peer, to measure on some cores.
    parser.add_argument("--build", help=argparse.SUPPRESS)
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--speeds", help=argparse.SUPPRESS)
    return parser.parse_args()


def _plan(chosen: argparse.Namespace) -> Plan:
    base = QUICK if chosen.quick else FULL
    given = {
        "model": chosen.model,
        "workloads": chosen.workloads,
        "subjects": chosen.subjects,
        "counts": chosen.buckets and sorted(set(chosen.buckets)),
        "precisions": chosen.precisions,
        "rounds": chosen.rounds,
        "skip": chosen.skip,
        "threads": chosen.threads,
        "intra_op": chosen.intra_op,
        "scaling": chosen.scaling and sorted(set(chosen.scaling)),
    }
    given = {key: tuple(dict.fromkeys(v)) if isinstance(v, list) else v for key, v in given.items() if v is not None}
    if "counts" in given and base.main not in given["counts"]:
        given["main"] = given["counts"][len(given["counts"]) // 2]
    return replace(base, **given)


def _check_writable(chosen: argparse.Namespace) -> None:
    """Whatever would lose the numbers of a long run is an error before it."""
    if chosen.json and (chosen.json.is_dir() or not chosen.json.resolve().parent.is_dir()):
        raise ValueError(f"--json {chosen.json}: give a file in a directory that exists.")
    if chosen.plot and chosen.plot.exists() and not chosen.plot.is_dir():
        raise ValueError(f"--plot {chosen.plot}: this is a file; give a directory.")
    if chosen.plot:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise ValueError("--plot needs matplotlib: pip install -e '.[plot]'.") from None


def _refuse(error: Exception) -> int:
    print(f"bucket_efficiency: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
