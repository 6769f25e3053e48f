"""Text on one line."""

import pytest

from seq2split.common.text import one_line


@pytest.mark.parametrize("end", [*"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\r\n", "\n\n"])
def test_whatever_ends_a_line_becomes_a_space(end):
    assert len(f"a{end}b".splitlines()) > 1
    assert one_line(f"a{end}b{end}") == "a b "


@pytest.mark.parametrize("text", ["", "a b", "\ta\u00a0b\u200b", "\0"])
def test_other_text_stays(text):
    assert one_line(text) == text


def test_nothing_else_ends_a_line():
    text = one_line("".join(f"a{chr(code)}" for code in range(0x110000) if not 0xD800 <= code < 0xE000))
    assert len(text.splitlines()) == 1
