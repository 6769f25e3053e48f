"""The SentencePiece vocabulary that turns lines of text into ids of pieces.

The pieces are those of SentencePiece (Kudo and Richardson, 2018,
"SentencePiece: A simple and language independent subword tokenizer and detokenizer", arXiv:1808.06226); its training
normalizes text (NFKC, runs of spaces become one), so `decode` gives back the normalized line.
"""

import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from seq2split.common.choices import check_choice
from seq2split.common.files import doing, write_atomically
from seq2split.common.text import one_line

PathLike = str | os.PathLike

ALGORITHMS = ("unigram", "bpe", "char", "word")
STARTS = ("auto", "bos", "eos", "pad")
SPECIAL_PIECES = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
LARGEST = 2**20  # more pieces than any vocabulary has; SentencePiece takes minutes to refuse billions


class Vocabulary:
    """The pieces of one SentencePiece model, and their ids.

    Example:
        >>> import tempfile
        >>> lines = [f"{count} dogs and {count} cats" for count in range(100)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     vocabulary = Vocabulary.train(lines, Path(folder, "shared.model"), size=30)
        >>> rows = vocabulary.encode(["7 dogs", "3 cats and dogs"])
        >>> [row.dtype.name for row in rows], [int(row[-1]) for row in rows], vocabulary.eos
        (['int32', 'int32'], [3, 3], 3)
        >>> vocabulary.decode(rows)
        ['7 dogs', '3 cats and dogs']
    """

    def __init__(self, path: PathLike, start: str = "auto"):
        """Load a SentencePiece model, be it trained here or by others: of any algorithm, with any ids.

        Args:
            path: The `.model` file.
            start: The special piece that begins a decoder's input: "bos", "eos" or "pad"; "auto" for bos, or for eos
                where there is no bos.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is no SentencePiece model, or its model has no eos piece or no such piece to start.
        """
        check_choice("vocabulary.start", start, STARTS)
        self._path = Path(path)
        self._processor = _load(self._path)
        self._bos = _start(self._processor, self._path, start)

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        path: PathLike,
        size: int,
        algorithm: str = "unigram",
        character_coverage: float = 1.0,
        sample: int | None = None,
        seed: int = 0,
    ) -> "Vocabulary":
        """Train a SentencePiece model and write it, whole or not at all.

        The same lines and arguments give the same bytes on every machine: training runs in one thread, because the
        pieces of a unigram model depend on the number of threads (3 s for the 58,000 lines of Multi30k en-de).

        Args:
            lines: The text to train on, of all languages that share the vocabulary.
            path: The `.model` file to write, over one that is there; its folder is made where it is missing.
            size: The number of pieces, the four special ones included. A "char" model may come out smaller.
            algorithm: One of "unigram", "bpe", "char" and "word".
            character_coverage: The share of the characters that get a piece, 0.98 to 1; the rarest become unknown.
            sample: The number of lines to train on, drawn at random where there are more; `None` for all.
            seed: The seed of the draw of `sample`; without effect where all lines are trained on.

        Returns:
            The vocabulary.

        Raises:
            TypeError: `lines` is one string.
            ValueError: No line holds text, the size does not fit the text, or another argument is out of its range.
        """
        path = Path(path)
        lines = _sample(_line_list(lines), sample, seed)
        _check_training(lines, size, algorithm, character_coverage)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _train(lines, size, algorithm, character_coverage))
        return cls(path)

    @property
    def path(self) -> Path:
        """The model file."""
        return self._path

    @property
    def size(self) -> int:
        """The number of pieces; ids run from 0 to size - 1."""
        return self._processor.get_piece_size()

    @property
    def bos(self) -> int:
        """The id of the piece that begins a decoder's input; its own, or another special one that serves for it."""
        return self._bos

    @property
    def eos(self) -> int:
        """The id of the piece that ends every encoded line."""
        return self._processor.eos_id()

    def encode(self, lines: Iterable[str]) -> list[np.ndarray]:
        """Turn lines into ids.

        Args:
            lines: The lines.

        Returns:
            One int32 [pieces + 1] array a line: its ids and `eos`, without `bos`. An empty line is `eos` alone.

        Raises:
            TypeError: `lines` is one string, or holds anything but strings.
        """
        # Not encode(..., add_eos=True), which needs an eos that is a control symbol; that of others may be text.
        return [np.array([*row, self.eos], np.int32) for row in self._processor.encode(_line_list(lines))]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """Turn ids into lines.

        Args:
            rows: Integer [length] sequences of ids, or one [rows, length] array. What follows the first `eos` of a row
              is ignored, and so are `bos` and, where the model has a piece for it, padding.

        Returns:
            One line a row; pieces that would end a line become spaces.

        Raises:
            TypeError: A row is not a sequence of integers.
            ValueError: An id is outside the vocabulary.
        """
        rows = [self._plain_ids(row, number) for number, row in enumerate(rows)]
        texts = self._processor.decode(rows) if rows else []  # SentencePiece decodes an empty list to ''
        return [one_line(text) for text in texts]

    def pieces(self, row: Sequence[int]) -> list[str]:
        """Return the pieces of a row of ids as text, as SentencePiece writes them: `▁` stands for a space."""
        return [self._processor.id_to_piece(int(each)) for each in row]

    def _plain_ids(self, row: Sequence[int], number: int) -> list[int]:
        """Return the ids of `row` up to its first eos, without bos and padding."""
        ids = np.asarray(row)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise TypeError(
                f"row {number} must be a sequence of integer ids, got {ids.dtype} of shape {list(ids.shape)}: "
                "decode takes a list of rows, one a line"
            )
        outside = ids[(ids < 0) | (ids >= self.size)]
        if outside.size:
            raise ValueError(
                f"row {number} holds id {outside[0]}, but the ids of {self.path} run from 0 to {self.size - 1}: "
                "decode with the vocabulary that encoded"
            )
        ids = ids[: np.argmax(ids == self.eos)] if self.eos in ids else ids
        return ids[(ids != self.bos) & (ids != self._processor.pad_id())].tolist()


def _line_list(lines: Iterable[str]) -> list[str]:
    if isinstance(lines, str | bytes):
        raise TypeError(f"expected a list of lines, got the one string {lines[:40]!r}: write [line]")
    return list(lines)


def _load(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Load and check a model."""
    if not path.exists():
        raise FileNotFoundError(
            f"there is no vocabulary {path}: give the path of a .model file, or train one (in Python with "
            "Vocabulary.train; in a configuration with vocabulary.source_model and the others left empty)"
        )
    with doing("read", path):
        data = path.read_bytes()
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(data)
        for index in range(processor.get_piece_size()):
            processor.id_to_piece(index)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no SentencePiece model: expected the .model file of a training, not its .vocab or text"
        ) from error
    if processor.eos_id() < 0:
        raise ValueError(
            f"{path} has no eos piece, which ends every sentence: give a model that was trained with an eos_id of 0 or "
            "more"
        )
    return processor


def _start(processor: sentencepiece.SentencePieceProcessor, path: Path, start: str) -> int:
    """Return the id of the piece that begins a decoder's input."""
    ids = {"bos": processor.bos_id(), "eos": processor.eos_id(), "pad": processor.pad_id()}
    if start == "auto":
        start = "bos" if ids["bos"] >= 0 else "eos"
    if ids[start] < 0:
        there = " or ".join(f'"{name}"' for name, index in ids.items() if index >= 0)
        raise ValueError(f"{path} has no {start} piece to start translations with: set vocabulary.start to {there}")
    return ids[start]


def _sample(lines: list[str], count: int | None, seed: int) -> list[str]:
    """Return at most `count` of the lines, in their order."""
    if count is None or count >= len(lines):
        return lines
    if count < 1:
        raise ValueError(f"sample must be at least 1 line, got {count}; None trains on all lines")
    # Not SentencePiece's input_sentence_size: its generator's state outlives a call, so a second training differs.
    chosen = np.random.default_rng(seed).choice(len(lines), count, replace=False)
    return [lines[i] for i in np.sort(chosen)]


def _check_training(lines: list[str], size: int, algorithm: str, character_coverage: float) -> None:
    if not any(line.strip() for line in lines):
        raise ValueError(f"no text to train a vocabulary on: all of the {len(lines)} lines are empty")
    check_choice("vocabulary.algorithm", algorithm, ALGORITHMS)
    if size <= len(SPECIAL_PIECES):
        raise ValueError(
            f"vocabulary.size must exceed the {len(SPECIAL_PIECES)} special pieces (padding, unknown, bos, eos), "
            f"got {size}: raise it"
        )
    if size > LARGEST:
        raise ValueError(f"vocabulary.size must be at most {LARGEST}, got {size}: lower it")
    if not 0.98 <= character_coverage <= 1.0:  # the bounds are SentencePiece's
        raise ValueError(f"vocabulary.character_coverage must be from 0.98 to 1, got {character_coverage}")


def _train(lines: list[str], size: int, algorithm: str, character_coverage: float) -> bytes:
    """Train a model in memory."""
    longest = max(len(line.encode()) for line in lines)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type=algorithm,
            character_coverage=character_coverage,
            max_sentence_length=max(4192, longest),  # longer lines would be skipped silently; 4192 is the default
            num_threads=1,  # the pieces of a unigram model depend on it
            minloglevel=2,
            **SPECIAL_PIECES,
        )
    except RuntimeError as error:
        raise ValueError(_explain(str(error), size, len(lines))) from error
    return model.getvalue()


def _explain(message: str, size: int, lines: int) -> str:
    """Say in the user's terms what SentencePiece's message says in its own."""
    if found := re.search(r"set it to a value <= (\d+)", message):
        return (
            f"vocabulary.size is {size}, but these {lines} lines give at most {found[1]} pieces: "
            f"lower vocabulary.size to {found[1]} or less, or train on more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"vocabulary.size is {size}, but the characters of these {lines} lines and the special pieces need "
            f"{found[1]}: raise vocabulary.size to {found[1]} or more, or lower vocabulary.character_coverage"
        )
    return f"SentencePiece could not train {size} pieces on these {lines} lines: {message}"
