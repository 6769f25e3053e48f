"""The script that fetches Multi30k: verification, whole files or none, and its errors."""

import gzip
import hashlib
import http.client
import importlib.util
import io
import os
import urllib.error
from email.message import Message
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LOCAL_COPY = REPOSITORY.parent / "shared" / "data" / "multi30k"


def load_script():
    spec = importlib.util.spec_from_file_location("multi30k", REPOSITORY / "data" / "multi30k.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


multi30k = load_script()
TEXTS = {name: f"A caption of {name}.\n".encode() * 50 for name in multi30k.CHECKSUMS}
REAL_CHECKSUMS = dict(multi30k.CHECKSUMS)


@pytest.fixture(autouse=True)
def small_corpus(monkeypatch):
    """Replace the checksums by those of a corpus that tests can make."""
    for name, text in TEXTS.items():
        monkeypatch.setitem(multi30k.CHECKSUMS, name, hashlib.sha256(text).hexdigest())


@pytest.fixture
def source(tmp_path):
    """A folder that holds the small corpus."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(text))
    return folder


class FakeOpener:
    """Stands for `urlopen`: serves the small corpus, notes the addresses, and changes or breaks what it serves."""

    def __init__(self, change=lambda data: data, error=None):
        self.urls, self.change, self.error = [], change, error

    def __call__(self, url, timeout):
        self.urls.append(url)
        assert timeout > 0
        data = gzip.compress(TEXTS[url.rpartition("/")[2].removesuffix(".gz")])
        response = io.BytesIO(self.change(data))
        response.headers = Message()
        response.headers["Content-Length"] = str(len(data))
        if self.error:
            response.read = self._fail_midway(response.read)
        return response

    def _fail_midway(self, read):
        def fail(size=-1):
            if data := read(20):
                return data
            raise self.error

        return fail


@pytest.fixture
def serve(monkeypatch):
    def install(opener):
        monkeypatch.setattr(multi30k.urllib.request, "urlopen", opener)
        return opener

    return install


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_table_names_every_file():
    assert set(multi30k.CHECKSUMS) == {f"{split}.{lang}" for split in multi30k.SPLITS for lang in multi30k.LANGUAGES}


def test_local_copy_verifies(tmp_path, monkeypatch):
    if not LOCAL_COPY.is_dir():
        pytest.skip(f"no local copy of Multi30k in {LOCAL_COPY}")
    monkeypatch.setattr(multi30k, "CHECKSUMS", REAL_CHECKSUMS)
    paths = multi30k.fetch(tmp_path, source=LOCAL_COPY)
    assert files(tmp_path) == sorted(f"{name}.gz" for name in REAL_CHECKSUMS)
    lines = {path.name: gzip.decompress(path.read_bytes()).count(b"\n") for path in paths}
    assert {lines[f"train.{lang}.gz"] for lang in multi30k.LANGUAGES} == {29000}
    assert {lines[f"val.{lang}.gz"] for lang in multi30k.LANGUAGES} == {1014}
    assert {lines[f"test_2016_flickr.{lang}.gz"] for lang in multi30k.LANGUAGES} == {1000}


def test_checksum_ignores_how_the_text_was_packed(source, tmp_path):
    repacked = gzip.compress(TEXTS["val.de"], compresslevel=1, mtime=1234567)
    assert repacked != (source / "val.de.gz").read_bytes()
    (source / "val.de.gz").write_bytes(repacked)
    assert multi30k.fetch_file("val.de", tmp_path, source).read_bytes() == repacked


def test_command_line_copies_the_languages_asked_for(source, tmp_path, capsys):
    to = tmp_path / "new" / "to"
    multi30k.main(["--from", str(source), "--to", str(to), "--languages", "en", "de"])
    assert files(to) == sorted(f"{split}.{lang}.gz" for split in multi30k.SPLITS for lang in ("en", "de"))
    assert "6 files verified" in capsys.readouterr().out


def test_command_line_writes_beside_the_script_by_default(monkeypatch):
    asked = []
    monkeypatch.setattr(multi30k, "fetch", lambda *arguments: asked.append(arguments) or [])
    multi30k.main([])
    assert asked == [(REPOSITORY / "data" / "multi30k", multi30k.LANGUAGES, None)]


def test_command_line_knows_no_other_language(capsys):
    with pytest.raises(SystemExit):
        multi30k.main(["--languages", "nl"])
    assert "invalid choice: 'nl'" in capsys.readouterr().err


def test_command_line_error_is_a_message(source, tmp_path):
    (source / "train.en.gz").unlink()
    with pytest.raises(SystemExit, match=r"multi30k: there is no file .*train\.en\.gz: --from must name"):
        multi30k.main(["--from", str(source), "--to", str(tmp_path)])


def test_download(tmp_path, serve):
    opener = serve(FakeOpener())
    paths = multi30k.fetch(tmp_path, ["fr"])
    assert opener.urls == [f"{multi30k.URL}/{split}.fr.gz" for split in multi30k.SPLITS]
    assert {p.name: gzip.decompress(p.read_bytes()) for p in paths} == {
        f"{split}.fr.gz": TEXTS[f"{split}.fr"] for split in multi30k.SPLITS
    }


def test_download_from_a_real_address(source, tmp_path, monkeypatch):
    monkeypatch.setattr(multi30k, "URL", source.as_uri())
    path = multi30k.fetch_file("val.en", tmp_path)
    assert path.read_bytes() == (source / "val.en.gz").read_bytes()


def test_address_of_the_corpus():
    assert multi30k.URL == "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"


def test_second_run_fetches_nothing(tmp_path, serve, capsys):
    opener = serve(FakeOpener())
    multi30k.fetch(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    opener.urls.clear()
    multi30k.fetch(tmp_path)
    assert opener.urls == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert "does not verify" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: b"",
        lambda data: b"<html>",
        lambda data: data[:15] + bytes([data[15] ^ 255]) + data[16:],
        lambda data: data[:10] + b"\xff" * 20,  # a sound header, then what no compressor writes
        lambda data: gzip.compress(b"another caption\n"),
    ],
)
class TestDamage:
    def test_present_file_is_fetched_again(self, tmp_path, serve, capsys, damage):
        opener = serve(FakeOpener())
        path = multi30k.fetch_file("val.de", tmp_path)
        sound = path.read_bytes()
        path.write_bytes(damage(sound))
        multi30k.fetch_file("val.de", tmp_path)
        assert path.read_bytes() == sound
        assert len(opener.urls) == 2
        assert f"{path} does not verify: fetching it again" in capsys.readouterr().err

    def test_downloaded_file_is_turned_away(self, tmp_path, serve, damage):
        serve(FakeOpener(damage))
        with pytest.raises(ValueError, match=r"(?s)raw/val\.de\.gz is not Multi30k's val\.de.*--from DIR") as caught:
            multi30k.fetch_file("val.de", tmp_path)
        assert multi30k.CHECKSUMS["val.de"] in str(caught.value)
        assert files(tmp_path) == []

    def test_copied_file_is_turned_away(self, source, tmp_path, damage):
        path = source / "val.de.gz"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match=r"val\.de\.gz is not Multi30k's val\.de"):
            multi30k.fetch_file("val.de", tmp_path, source)
        assert files(tmp_path) == ["source"]


def test_error_holds_both_checksums(tmp_path, serve):
    serve(FakeOpener(lambda data: gzip.compress(b"another caption\n")))
    with pytest.raises(ValueError, match="expected SHA-256 of its text") as caught:
        multi30k.fetch_file("val.de", tmp_path)
    assert f"actual: {hashlib.sha256(b'another caption' + bytes([10])).hexdigest()}" in str(caught.value)


@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), ConnectionResetError("reset"), http.client.IncompleteRead(b"", 5)]
)
def test_download_that_breaks_leaves_no_file(tmp_path, serve, error):
    serve(FakeOpener(error=error))
    with pytest.raises(ConnectionError, match=r"(?s)could not download https://.*val\.de\.gz.*--from DIR"):
        multi30k.fetch_file("val.de", tmp_path)
    assert files(tmp_path) == []


def test_no_network(tmp_path, serve):
    def unreachable(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    serve(unreachable)
    with pytest.raises(SystemExit, match=r"(?s)Name or service not known.*--from DIR"):
        multi30k.main(["--to", str(tmp_path)])
    assert files(tmp_path) == []


@pytest.mark.parametrize("there", [None, b"old"])
@pytest.mark.parametrize("moment", ["writing", "replacing", "downloading"])
def test_interrupted_write_leaves_no_final_file(tmp_path, serve, monkeypatch, there, moment):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    def write_half(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    serve(FakeOpener(error=KeyboardInterrupt() if moment == "downloading" else None))
    path = tmp_path / "val.de.gz"
    if there:
        path.write_bytes(there)
    if moment == "replacing":
        monkeypatch.setattr(os, "replace", interrupt)
    if moment == "writing":
        monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(KeyboardInterrupt):
        multi30k.fetch_file("val.de", tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"val.de.gz": there} if there else {})
