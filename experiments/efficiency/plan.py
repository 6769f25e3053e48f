"""What is measured: the subjects, and how much of everything. Nothing here needs TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

SUBJECTS = (
    "split",  # ours; homogeneous batches
    "split-fine",  # ours; homogeneous batches, as many buckets a side as "auto" takes
    "split-mixed",  # ours; uniformly shuffled batches
    "joint-pairs",  # one joint graph for each pair of buckets
    "joint-pairs-mixed",  # the same graphs, on the batches of split-mixed
    "tape",  # one eager tape over a function for each bucket of either part
    "rerun",  # split, but every backward runs its forward again
    "rerun-encoder",  # the same, but the decoder's loss and gradients are one graph
    "cache-all",  # split, but every forward tensor is kept
    "diagonal",  # joint graphs of buckets that bound both sides at once
    "dynamic",  # one joint graph of unknown lengths, recurrent layers as loops; batches sorted by length
    "padded",  # one joint graph at the largest lengths
    "packed",  # one joint graph of rows that hold several sentence pairs each; a Transformer alone
)
PEERS = (
    "torch",  # PyTorch eager; batches sorted by length
    "torch-compile",  # compiled for each pair of buckets, or with dynamic shapes on sorted batches: the better one
    "jax",  # JAX, the encoder by bucket and the decoder by pair; homogeneous batches, float32
)
WORKLOADS = ("multi30k", "shuffled", "embedded", "words")
PRECISIONS = ("mixed_bfloat16", "float32")
_VOCABULARIES = {"embedded": 100, "words": 200}
FINE = "split-fine"
GROWING = ("split", "joint-pairs")
"""Those that are built for every number of buckets, so that growth shows."""
BUCKETED = ("split", "diagonal")
"""Those whose speed is measured for every number of buckets."""
MODELS = ("lstm", "gru", "transformer")
STAGES = ("speed", "pairs", "runs", "counts", "building")
"""What can be left out: speed, the step of bucket pairs, how often forwards run, other numbers of buckets, building."""


@dataclass(frozen=True)
class Sizes:
    """The model that is measured.

    Attributes:
        model: One of `MODELS`.
        vocabulary: Pieces of either side.
        units: Of embeddings, states and attention.
        layers: Of either side of a Transformer; a recurrent model has one.
        heads: Of each attention of a Transformer.
    """

    model: str = "lstm"
    vocabulary: int = 8000
    units: int = 256
    layers: int = 3
    heads: int = 4

    @property
    def feedforward(self) -> int:
        """The inner size of the feed-forward layers of a Transformer."""
        return 4 * self.units


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        workloads: The corpora; whatever is measured on one alone is measured on the first.
        precisions: The Keras policies, likewise.
        subjects: Who is measured.
        model: What is trained, one of `MODELS`.
        units: Of the model.
        layers: Of a Transformer.
        counts: Numbers of buckets a side, ascending.
        main: The one of them at which everything is measured.
        fine: The number at which `split-fine` is measured: what the default takes for Multi30k.
        tokens: Padded pieces of both sides in a batch.
        batches: How many batches stand for an epoch; a sample of few finds more kernels compiled than an epoch does.
        compiled: How many of them run where each shape is compiled, which takes long.
        rounds: How often each runs.
        pair_rounds: How often the full batch of a bucket pair runs.
        threads: Shards of a batch that run at once; `None` for one on each core.
        intra_op: Threads of one operation of TensorFlow; `None` for the cores' share of a shard.
        builders: How many subjects are built at once, each in a process of its own.
        skip: Which of `STAGES` are left out.
        scaling: Numbers of cores that speed is measured on as well.

    Raises:
        ValueError: A number is below 1.
    """

    workloads: tuple[str, ...] = ("multi30k", "shuffled", "embedded")
    precisions: tuple[str, ...] = PRECISIONS
    subjects: tuple[str, ...] = SUBJECTS + PEERS
    model: str = "lstm"
    units: int = 256
    layers: int = 3
    counts: tuple[int, ...] = (2, 4, 6, 8, 12)
    main: int = 6
    fine: int = 20
    tokens: int = 4096
    batches: int = 16
    compiled: int = 6
    rounds: int = 3
    pair_rounds: int = 9
    threads: int | None = None
    intra_op: int | None = None
    builders: int = 1
    skip: tuple[str, ...] = ()
    scaling: tuple[int, ...] = ()

    def __post_init__(self):
        numbers = {"--buckets": min(self.counts), "--rounds": self.rounds}
        numbers |= {"--threads": self.threads, "--intra-op": self.intra_op}
        numbers["--scaling"] = min(self.scaling, default=None)
        for option, number in numbers.items():
            if number is not None and number < 1:
                raise ValueError(f"{option} {number}: give at least 1.")

    def sizes(self, workload: str) -> Sizes:
        """The model on a corpus."""
        return Sizes(self.model, _VOCABULARIES.get(workload, 8000), self.units, self.layers)


FULL = Plan()
# For the harness, not for its numbers: they are too few, and processes that build at once disturb each other. Compiling
# by `torch.compile` alone would take longer than all the rest.
QUICK = Plan(
    ("words",),
    subjects=tuple(name for name in SUBJECTS + PEERS if name != "torch-compile"),
    units=32,
    layers=1,
    counts=(2, 3),
    main=2,
    fine=4,
    tokens=512,
    batches=3,
    rounds=3,
    pair_rounds=3,
    builders=2,
)
