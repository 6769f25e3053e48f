"""Parallel text: files of one line a sentence, line i of each side belonging to line i of the others.

Files are read whole: a corpus must fit in memory.
"""

import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from seq2split.common.files import doing

PathLike = str | os.PathLike


def read_lines(path: PathLike) -> list[str]:
    r"""Read the lines of a UTF-8 file, plain or (by the suffix `.gz`) compressed.

    Lines end in `\n` or `\r\n` and nothing else, so that their count agrees with `wc -l`; a last line without an end
    counts too. A byte-order mark at the start is dropped.

    Args:
        path: The file.

    Returns:
        The lines, without their ends.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not UTF-8, or its name ends in `.gz` and it is not gzip or is cut short.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.en")
        ...     _ = path.write_bytes(b"a man\na dog\r\nno end")
        ...     read_lines(path)
        ['a man', 'a dog', 'no end']
    """
    path = Path(path)
    with doing("read", path):
        return split_lines(_read_bytes(path), str(path))


def split_lines(data: bytes, name: str) -> list[str]:
    """Return the lines of UTF-8 bytes, as `read_lines` splits them.

    Args:
        data: The bytes.
        name: The name of the bytes in errors.

    Returns:
        The lines, without their ends.

    Raises:
        ValueError: The bytes are not UTF-8.
    """
    text = _decode(data, name)
    # Not str.splitlines: it also splits on form feeds, U+2028 and others, and shifts one side against the other.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def locate_line(paths: Sequence[PathLike], row: int) -> str:
    """Return the file and the number of a line of one side of a corpus, as messages name them.

    Args:
        paths: The files of the side. They are read again, since only errors ask.
        row: The number of the line in all of them, from 0.
    """
    for path in paths:
        count = len(read_lines(path))
        if row < count:
            return f"{path}, line {row + 1}"
        row -= count
    return f"{paths[-1]}, which has changed meanwhile"


def read_parallel(paths: Mapping[str, Sequence[PathLike]]) -> dict[str, list[str]]:
    r"""Read a parallel corpus: line i of a file belongs to line i of each other side's file in the same place.

    Args:
        paths: For each side, such as `source` and `target`, its files in order; as many for each. See `read_lines`.

    Returns:
        For each side the lines of all its files, equally many and at least one.

    Raises:
        FileNotFoundError: A file is missing.
        TypeError: A side is a single path and not a list of paths.
        ValueError: The sides differ in files, two files differ in lines, or the corpus is empty.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     english, german = Path(folder, "train.en"), Path(folder, "train.de")
        ...     _ = english.write_text("one\ntwo\n"), german.write_text("eins\nzwei\n")
        ...     read_parallel({"source": [english], "target": [german]})
        {'source': ['one', 'two'], 'target': ['eins', 'zwei']}
    """
    listed = {side: _path_list(each, side) for side, each in paths.items()}
    if len({len(each) for each in listed.values()}) != 1:
        counts = " and ".join(f"{len(each)} {side} files {each}" for side, each in listed.items())
        raise ValueError(f"a parallel corpus needs as many files of each side: got {counts}")
    lines: dict[str, list[str]] = {side: [] for side in listed}
    for files in zip(*listed.values(), strict=True):
        for side, each in zip(listed, _read_aligned(files), strict=True):
            lines[side] += each
    if not all(lines.values()):
        named = " and ".join(str(each) for each in listed.values())
        raise ValueError(f"the corpus is empty: no lines in {named}")
    return lines


def _read_aligned(paths: Sequence[str]) -> list[list[str]]:
    """Return the lines of files of one corpus, equally many."""
    read = [read_lines(path) for path in paths]
    for path, lines in zip(paths, read, strict=True):
        if len(lines) != len(read[0]):
            raise ValueError(
                f"line i of one file must belong to line i of the other, but {paths[0]} has {len(read[0])} lines and "
                f"{path} has {len(lines)}: give files of the same corpus and split"
            )
    return read


def _read_bytes(path: Path) -> bytes:
    """Return the file's bytes, decompressed where its name ends in .gz."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}{_neighbour_hint(path)}") from error
    return _decompress(data, path) if path.suffix == ".gz" else data


def _neighbour_hint(path: Path) -> str:
    """Name the compressed or plain twin of a missing file, where there is one."""
    twin = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return f", but there is {twin}: give that name" if twin.is_file() else f" (looked from {Path.cwd()})"


def _decompress(data: bytes, path: Path) -> bytes:
    if not data:  # gzip.decompress takes this for an empty file
        raise ValueError(f"{path} ends in .gz and is an empty file, which gzip never writes: fetch or make it again")
    try:
        return gzip.decompress(data)
    except EOFError as error:
        raise ValueError(f"{path} is cut short ({error}): fetch or make it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} ends in .gz and is no sound gzip file ({error}): drop the suffix if it is plain text, "
            "else fetch or make it again"
        ) from error


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        mend = "give its name the suffix .gz" if data.startswith(b"\x1f\x8b") else "convert the file with iconv"
        raise ValueError(
            f"{name}, line {line}: expected UTF-8, got byte 0x{error.object[error.start]:02x} ({error.reason}): {mend}"
        ) from error


def _path_list(paths: Sequence[PathLike], side: str) -> list[str]:
    if isinstance(paths, str | os.PathLike):
        raise TypeError(f"the {side} side must be a list of paths, got the single path {paths}: write [{str(paths)!r}]")
    return [os.fspath(path) for path in paths]
