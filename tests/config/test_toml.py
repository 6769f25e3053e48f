"""Keys and values as TOML has them, read back by Python's own reader."""

from __future__ import annotations

import datetime
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2split.config.toml import key_text, value_text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_is_read_back_as_key_and_value(text):
    assert tomllib.loads(f"{key_text(text)} = {value_text(text)}") == {text: text}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (3, "3"),
        (1e-4, "0.0001"),
        (1e22, "1e+22"),
        (math.inf, "inf"),
        ((1, 2), "[1, 2]"),
        ([], "[]"),
        ({"a b": {"c": [False]}}, '{"a b" = {c = [false]}}'),
        (datetime.date(2026, 11, 27), "2026-11-27"),
        ('a "b" \\ \n \x7f', '"a \\"b\\" \\\\ \\n \\u007f"'),
    ],
)
def test_value(value, text):
    assert value_text(value) == text
    assert tomllib.loads(f"key = {text}") == {"key": list(value) if isinstance(value, tuple) else value}


@pytest.mark.parametrize(("key", "text"), [("first_step", "first_step"), ("a.b", '"a.b"'), ("", '""'), ("ä", '"ä"')])
def test_key(key, text):
    assert key_text(key) == text
