"""The directory of a run: paths that can be none are refused before anything is written."""

import pytest

from seq2split.runs.directory import RunDirectory


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", 'a run needs a directory, got ""; the current one is "."'),
        ("runs/\udcff", "is no UTF-8; a run needs a directory with a name that is"),
        (__file__, "is a file; a run needs a directory"),
    ],
)
def test_what_can_be_no_run(path, message):
    with pytest.raises(ValueError, match=message):
        RunDirectory(path)


def test_the_current_directory_can_be_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not RunDirectory(".").has_checkpoint()
    assert list(tmp_path.iterdir()) == []
