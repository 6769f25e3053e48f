"""The corpora that are measured on."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from seq2split.buckets import Buckets
from seq2split.corpus.corpus import Corpus
from seq2split.corpus.parallel_text import read_parallel
from seq2split.corpus.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("source", "target")
BOS = 2
_MULTI30K = (ROOT / "data" / "multi30k", ROOT.parent / "shared" / "data" / "multi30k")


@cache
def load(name: str) -> Corpus:
    """Load a workload.

    Args:
        name: `multi30k`, English to German in 8,000 pieces; `shuffled`, the same with its targets permuted, so that
            lengths are independent; `embedded`, the number words that come with the project, in 100 pieces; or `words`,
            the same in 200, which makes for short sentences and small graphs.

    Returns:
        Its sentence pairs.

    Raises:
        FileNotFoundError: Multi30k is not there.
    """
    if name in ("embedded", "words"):
        return _encode(ROOT / "data" / "numbers", ("train.de", "train.en"), 100 if name == "embedded" else 200, "bpe")
    if name == "shuffled":
        corpus = load("multi30k")
        order = np.random.default_rng(0).permutation(len(corpus))
        return Corpus(corpus.fields | {"target": [corpus.fields["target"][row] for row in order]})
    folder = next((folder for folder in _MULTI30K if (folder / "train.en.gz").exists()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{_MULTI30K[0]} holds no Multi30k: fetch it with `python data/multi30k.py` from {ROOT}, or measure on "
            "`--workloads embedded`."
        )
    return _encode(folder, ("train.en.gz", "train.de.gz"), 8000, "unigram")


@cache
def fit(name: str, count: int) -> dict[str, Buckets]:
    """The buckets of both sides of a workload, with the least padding."""
    return {side: Buckets.fit(load(name).lengths[side], count) for side in SIDES}


def _encode(folder: Path, files: Sequence[str], size: int, algorithm: str) -> Corpus:
    """Cut two files into the pieces of one vocabulary, which is kept between runs under the text's checksum."""
    lines = read_parallel({side: [folder / file] for side, file in zip(SIDES, files, strict=True)})
    text = list(chain(*lines.values()))
    checksum = zlib.crc32("\n".join(text).encode())
    path = Path(tempfile.gettempdir(), "seq2split-efficiency", f"{folder.name}-{size}-{checksum:08x}.model")
    vocabulary = Vocabulary(path) if path.exists() else Vocabulary.train(text, path, size, algorithm)
    return Corpus({side: vocabulary.encode(each) for side, each in lines.items()})
