"""Fetches Multi30k, task 1: 29,000 captions of images in English, and their translations into German and French.

    python data/multi30k.py [--from DIR] [--to DIR] [--languages en de fr]

writes {train,val,test_2016_flickr}.{en,de,fr}.gz to data/multi30k/. Files that are there and verify are kept, the
others are fetched (or, with --from, copied), verified, and only then put in place.

The corpus is that of Elliott, Frank, Sima'an and Specia, 2016, "Multi30K: Multilingual English-German Image
Descriptions", Workshop on Vision and Language (the French: Elliott et al., 2017). Its captions come from Flickr30k,
under that data set's terms of use: it is fetched by whoever uses it, and never committed here.
"""

import argparse
import gzip
import hashlib
import http.client
import io
import os
import shutil
import sys
import urllib.request
import zlib
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
TIMEOUT = 30  # seconds without a byte
SPLITS = ("train", "val", "test_2016_flickr")
LANGUAGES = ("en", "de", "fr")

# SHA-256 of the decompressed text. Not of the .gz: its header holds a time stamp and its body depends on the
# compressor, so that a re-packed file with the very same lines would be turned away.
CHECKSUMS = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
}


def fetch(to: Path, languages: Iterable[str] = LANGUAGES, source: Path | None = None) -> list[Path]:
    """Put the files of the languages, all splits, into a folder.

    Args:
      to: The folder; made where it is missing.
      languages: Among `LANGUAGES`.
      source: A folder that holds the .gz files, to copy from; None downloads them.

    Returns:
      The paths of the files, all verified.

    Raises:
      OSError: A file could not be read or downloaded.
      ValueError: A file is not the one whose checksum is in `CHECKSUMS`.
    """
    to.mkdir(parents=True, exist_ok=True)
    return [fetch_file(f"{split}.{language}", to, source) for split in SPLITS for language in languages]


def fetch_file(name: str, to: Path, source: Path | None = None) -> Path:
    """Put one file, such as "train.en", into a folder, unless it is there and verifies; see `fetch`."""
    path = to / f"{name}.gz"
    if path.exists():
        if checksum(path.read_bytes()) == CHECKSUMS[name]:
            return path
        tqdm.write(f"{path} does not verify: fetching it again", file=sys.stderr)
    data, origin = _copy(path.name, source) if source else _download(path.name)
    _verify(name, data, origin)
    _write_atomically(path, data)
    return path


def checksum(data: bytes) -> str:
    """The SHA-256 of gzip data's text in hexadecimal, or why it has none."""
    try:
        return hashlib.sha256(gzip.decompress(data)).hexdigest()
    except (EOFError, OSError, zlib.error) as error:  # cut short; no gzip; damaged
        return f"none, for it does not decompress ({error})"


def _verify(name: str, data: bytes, origin: str) -> None:
    actual = checksum(data)
    if actual != CHECKSUMS[name]:
        raise ValueError(
            f"{origin} is not Multi30k's {name}\n"
            f"  expected SHA-256 of its text: {CHECKSUMS[name]}\n"
            f"  actual: {actual}\n"
            "  try again, or copy sound files with --from DIR"
        )


def _copy(name: str, source: Path) -> tuple[bytes, str]:
    """A local file's bytes, and where they come from."""
    path = source / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: --from must name a folder that holds {name}")
    return path.read_bytes(), str(path)


def _download(name: str) -> tuple[bytes, str]:
    """A remote file's bytes, and where they come from."""
    url = f"{URL}/{name}"
    data = io.BytesIO()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            total = int(response.headers.get("Content-Length", 0)) or None
            with tqdm.wrapattr(response, "read", total=total, desc=name, disable=None) as reader:
                shutil.copyfileobj(reader, data)
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"could not download {url}: {error}\n  without a network, copy the files from a local folder: --from DIR"
        ) from error
    return data.getvalue(), url


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a file such that a killed process leaves the old one, or none, and never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    """Fetch the files that the command line asks for."""
    parser = argparse.ArgumentParser(description="Fetches and verifies the Multi30k corpus, task 1.")
    folder = Path(__file__).parent / "multi30k"
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="copy from DIR, download nothing")
    parser.add_argument("--to", type=Path, default=folder, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=LANGUAGES, help="default: all")
    options = parser.parse_args(arguments)
    try:
        paths = fetch(options.to, options.languages, options.source)
    except (OSError, ValueError) as error:
        sys.exit(f"multi30k: {error}")
    print(f"{len(paths)} files verified in {options.to}")


if __name__ == "__main__":
    main()
