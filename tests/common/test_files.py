"""Files written whole or not at all."""

import os
from pathlib import Path

import pytest

from seq2split.common.files import check_writable, doing, write_atomically


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "file"
    for data in (b"first", b"second"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("owner", "name"), [(Path, "write_bytes"), (os, "replace")])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, owner, name):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_a_link_stays_one(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    link.symlink_to(path)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_a_pipe_is_written_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"data")
    assert os.read(reader, 10) == b"data"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_long_name_is_no_hindrance(tmp_path):
    path = tmp_path / ("ü" * 127)
    check_writable(path)
    write_atomically(path, b"data")
    assert path.read_bytes() == b"data"


# Errors that name the file


@pytest.fixture(params=["directory", "below a file", "missing", "closed", "loop"])
def unwritable(request, tmp_path):
    """A path that can't be written, for one of several reasons."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    paths = {"directory": tmp_path, "below a file": tmp_path / "file" / "out", "missing": tmp_path / "none" / "out"}
    if request.param == "closed" and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    if request.param == "closed":
        (tmp_path / "closed").mkdir(mode=0o500)
    return paths.get(request.param, tmp_path / request.param / "out")


@pytest.mark.parametrize("use", [check_writable, lambda path: write_atomically(path, b"data")])
def test_an_error_names_the_file(unwritable, use):
    with pytest.raises(OSError, match="can't write") as caught:
        use(unwritable)
    assert str(unwritable) in str(caught.value)
    assert "Errno" not in str(caught.value)


def test_the_number_of_an_error_stays():
    with pytest.raises(IsADirectoryError) as caught, doing("read", "/"), open("/"):
        pass
    assert (str(caught.value), caught.value.errno) == ("can't read /: Is a directory", 21)


@pytest.mark.parametrize(("what", "mend"), [("read", ""), ("write", "; make it writable, and try again")])
def test_only_what_is_written_is_to_be_made_writable(what, mend):
    with pytest.raises(PermissionError) as caught, doing(what, "x"):
        raise PermissionError(13, "Permission denied")
    assert str(caught.value) == f"can't {what} x: Permission denied{mend}"


def test_an_error_that_says_more_stays():
    with pytest.raises(FileNotFoundError, match="there is none; make one"), doing("read", "/"):
        raise FileNotFoundError("there is none; make one")


@pytest.mark.parametrize("there", [b"old", None])
def test_a_check_changes_nothing(tmp_path, there):
    path = tmp_path / "out"
    if there:
        path.write_bytes(there)
    check_writable(path)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([there] if there else [])


def test_a_check_of_a_pipe_does_not_wait_for_its_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    check_writable(tmp_path / "pipe")
    check_writable(Path("/dev/null"))
