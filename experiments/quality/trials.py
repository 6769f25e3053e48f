"""What is trained, and what is translated with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1]
TRAIN, VALID, TEST = SPLITS = ("train", "val", "test_2016_flickr")
SOURCE = "en"
LANGUAGES = ("de", "fr")
CONFIGS = {"lstm": "multi30k_en_{}.toml", "transformer": "multi30k_en_{}_transformer.toml"}
PRECISIONS = {"bfloat16": "mixed_bfloat16", "float32": "float32"}
PENALTIES = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0)  # of length; the configurations have the best on the validation corpus
MODES, SEEDS = ("homogeneous", "mixed"), (1, 2, 3)
SHORT = 2500  # steps of the runs that compare kinds of batches, 9 epochs; mixed ones take twice as long


class Decoding(NamedTuple):
    """One translation of a corpus.

    Attributes:
        name: Of its file.
        split: The corpus.
        search: What differs from the search of the configuration.
    """

    name: str
    split: str
    search: Mapping[str, float]

    def file(self, run: Path) -> Path:
        """Where the translations by a run are."""
        return run / f"{self.split}.{self.name}.txt"


GREEDY, BEAM = (Decoding(f"beam{beam}", TEST, {"beam": beam}) for beam in (1, 5))
PENALIZED = {
    penalty: Decoding(f"penalty{penalty}", VALID, {"beam": 5, "length_penalty": penalty}) for penalty in PENALTIES
}


@dataclass(frozen=True)
class Trial:
    """A run.

    Attributes:
        name: Of its directory.
        language: Of the target.
        config: Its configuration.
        settings: What is set otherwise than there.
        decodings: What is translated with it.
    """

    name: str
    language: str
    config: Path
    settings: Mapping[str, object]
    decodings: Sequence[Decoding]

    def corpus(self, split: str, data: Path) -> dict[str, Path]:
        """The files of both sides of a corpus."""
        languages = {"source": SOURCE, "target": self.language}
        return {side: (data / f"{split}.{language}.gz").resolve() for side, language in languages.items()}

    def overrides(self, data: Path) -> list[str]:
        """All settings, as `--set` takes them."""
        files = {f"data.train_{side}": path for side, path in self.corpus(TRAIN, data).items()}
        files |= {f"data.valid_{side}": path for side, path in self.corpus(VALID, data).items()}
        return [f"{key}={value}" for key, value in (files | self.settings).items()]


def model_trials() -> list[Trial]:
    """Both languages, architectures and precisions."""
    return [
        Trial(
            f"en_{language}_{architecture}_{short}",
            language,
            FOLDER / config.format(language),
            {"precision": precision},
            [GREEDY, BEAM, *PENALIZED.values()],
        )
        for language in LANGUAGES
        for architecture, config in CONFIGS.items()
        for short, precision in PRECISIONS.items()
    ]


def batch_trials() -> list[Trial]:
    """Homogeneous batches against uniformly shuffled ones, each with all seeds."""
    return [
        Trial(
            f"en_de_lstm_{mode}_{seed}",
            "de",
            FOLDER / CONFIGS["lstm"].format("de"),
            {"batches.mode": mode, "seed": seed, "training.steps": SHORT},
            [GREEDY, BEAM],
        )
        for mode in MODES
        for seed in SEEDS
    ]
