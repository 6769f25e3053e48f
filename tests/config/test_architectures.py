"""The names of architectures."""

import pytest

from seq2split.config.architectures import BUILT_IN, EXPECTED, absolute_architecture, is_architecture


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("recurrent", True),
        ("transformer", True),
        ("package:make", True),
        ("package.module:make", True),
        ("mine.py:make", True),
        ("../some where/mine.py:make", True),
        ("/a:b/mine.py:make", True),
        ("Recurrent", False),
        ("mine", False),
        ("mine.py", False),
        ("", False),
        (":make", False),
        (".py:make", False),
        ("mine:", False),
        ("mine.py:", False),
        ("mine:1st", False),
        ("mine:make()", False),
        ("pack age:make", False),
        ("package..module:make", False),
        ("folder/mine:make", False),
        (3, False),
        (["recurrent"], False),
    ],
)
def test_a_name_is_built_in_or_that_of_a_function(name, valid):
    assert is_architecture(name) == valid


@pytest.mark.parametrize(
    ("name", "absolute"),
    [
        ("recurrent", "recurrent"),
        ("package.module:make", "package.module:make"),
        ("mine.py:make", "/runs/mine.py:make"),
        ("../models/mine.py:make", "/models/mine.py:make"),
        ("/models/mine.py:make", "/models/mine.py:make"),
    ],
)
def test_paths_of_files_are_made_absolute(name, absolute):
    assert absolute_architecture(name, "/runs") == absolute


def test_messages_tell_all_that_are_built_in():
    assert all(f'"{name}"' in EXPECTED for name in BUILT_IN)
