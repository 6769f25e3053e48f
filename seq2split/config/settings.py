"""The settings of an experiment, as frozen dataclasses.

They are the single source of keys, types, defaults and ranges: a key is added by adding a field, and
`data/default.toml` shows every key with a comment (a test keeps the two together).
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from seq2split.config.architectures import BUILT_IN
from seq2split.config.values import (
    AUTO,
    Architecture,
    Count,
    CountOrZero,
    Files,
    Lengths,
    OptionalFile,
    OptionalFiles,
    Positive,
    PositiveOrZero,
    Range,
    Seed,
    Share,
    Unroll,
)
from seq2split.search.options import LARGEST, LARGEST_BEAM

# Above these a size makes no sense, and what it would take to find that out may take minutes.
Pieces = Annotated[int, Range(at_least=1, at_most=2**20)]
Width = Annotated[int, Range(at_least=1, at_most=2**20)]
Layers = Annotated[int, Range(at_least=1, at_most=1000)]
Tokens = Annotated[int, Range(at_least=1, at_most=10**9)]
Batches = Annotated[int, Range(at_least=1, at_most=2**16)]
Rows = Annotated[int, Range(at_least=1, at_most=2**16)]
Overhead = Annotated[int, Range(at_least=0, at_most=2**16)]
Beam = Annotated[int, Range(at_least=1, at_most=LARGEST_BEAM)]
Penalty = Annotated[float, Range(at_least=0, at_most=LARGEST["length_penalty"])]
Coverage = Annotated[float, Range(at_least=0, at_most=LARGEST["coverage"])]
Ratio = Annotated[float, Range(at_least=0, at_most=LARGEST["max_length_ratio"])]
CharacterCoverage = Annotated[float, Range(at_least=0.98, at_most=1)]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpora: parallel files of one sentence a line, plain text or .gz; and what becomes of overlong sentences."""

    train_source: Files
    train_source2: OptionalFiles = ()
    train_target: Files
    valid_source: Files
    valid_source2: OptionalFiles = ()
    valid_target: Files
    overlong: Literal["error", "truncate", "skip"] = "error"


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """The SentencePiece vocabularies: trained to `size` pieces, or loaded from the models that are named."""

    joint: bool = True
    size: Pieces = 8000
    algorithm: Literal["unigram", "bpe", "char", "word"] = "unigram"
    character_coverage: CharacterCoverage = 1.0
    start: Literal["auto", "bos", "eos", "pad"] = "auto"
    source_model: OptionalFile = ""
    source2_model: OptionalFile = ""
    target_model: OptionalFile = ""


@dataclass(frozen=True, kw_only=True)
class BucketsConfig:
    """The buckets of each side: as many as pay, or a count, fitted to the corpus for least padding; or boundaries."""

    source: Lengths = AUTO
    source2: Lengths = AUTO
    target: Lengths = AUTO


@dataclass(frozen=True, kw_only=True)
class BatchesConfig:
    """The batches: `tokens` counts the padded positions of all sides of a batch."""

    mode: Literal["homogeneous", "mixed"] = "homogeneous"
    tokens: Tokens = 4096
    row_multiple: Rows = 2
    group_overhead: Overhead = 8


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The encoder and the decoder, and what regularizes them.

    `architecture` names a built-in one, which reads the keys after it; or a function of one's own, which gets `options`
    as they are written: any keys, lists and tables.
    """

    architecture: Architecture = "recurrent"
    embedding: Width = 256
    units: Width = 256
    encoder_layers: Layers = 1
    decoder_layers: Layers = 1
    cell: Literal["lstm", "gru"] = "lstm"
    bidirectional: bool = True
    attention: Literal["luong", "bahdanau"] = "luong"
    unroll: Unroll = AUTO
    heads: Width = 4
    feedforward: Width = 1024
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    dropout: Share = 0.3
    attention_dropout: Share = 0.0
    activation_dropout: Share = 0.0
    tied_embeddings: bool = False
    shared_embeddings: bool = False
    label_smoothing: Share = 0.1
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def is_built_in(self) -> bool:
        """True if the architecture is a built-in one, and no function of one's own."""
        return self.architecture in BUILT_IN


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer, its learning rate schedule, and the steps in which it updates.

    `encoder`, `encoder2` and `decoder` give a part an optimizer of its own, and `groups` gives one to the variables
    whose paths a regular expression matches.
    """

    name: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop"] = "adam"
    learning_rate: Positive = 0.001
    schedule: Literal["constant", "inverse_sqrt", "cosine", "linear"] = "inverse_sqrt"
    warmup_steps: CountOrZero = 500
    weight_decay: PositiveOrZero = 0.0
    frozen: bool = False
    first_step: Count = 1
    last_step: CountOrZero = 0
    every: Count = 1
    encoder: "OptimizerConfig | None" = None
    encoder2: "OptimizerConfig | None" = None
    decoder: "OptimizerConfig | None" = None
    groups: "dict[str, OptimizerConfig]" = field(default_factory=dict, hash=False)


Groups = dict[str, OptimizerConfig]
Options = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The length of the training, and how often it is looked at: `steps` and every `..._every` count updates."""

    steps: Count = 10000
    accumulate: Batches = 1
    clip_norm: PositiveOrZero = 1.0
    most_left_out: Count = 5
    validate_every: Count = 500
    checkpoint_every: Count = 250
    log_every: Count = 20
    patience: CountOrZero = 5
    criterion: Literal["bleu", "loss"] = "bleu"
    average: CountOrZero = 0
    average_of: Literal["last", "best"] = "best"
    ema: Share = 0.0
    samples: CountOrZero = 3
    build_ahead: bool = False


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The search for translations: see `search.BeamSearch`. The ratios are to source pieces; 0 is no bound."""

    beam: Beam = 5
    length_penalty: Penalty = 1.0
    coverage: Coverage = 0.0
    min_length_ratio: Ratio = 0.0
    max_length_ratio: Ratio = 0.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment. `load` checks its values; those given in Python are taken as they are.

    Example:
        >>> data = DataConfig(train_source=("/a.en",), train_target=("/a.de",),
        ...                   valid_source=("/b.en",), valid_target=("/b.de",))
        >>> Config(data=data).model.cell
        'lstm'
    """

    seed: Seed = 1
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    data: DataConfig
    vocabulary: VocabularyConfig = VocabularyConfig()
    buckets: BucketsConfig = BucketsConfig()
    batches: BatchesConfig = BatchesConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides of the corpora: `source`, `source2` where there is a second one, and `target`."""
        return ("source", "source2", "target") if self.data.train_source2 else ("source", "target")

    def corpus(self, split: str) -> dict[str, tuple[str, ...]]:
        """The files of each side of a corpus, `train` or `valid`."""
        return {side: getattr(self.data, f"{split}_{side}") for side in self.sides}
