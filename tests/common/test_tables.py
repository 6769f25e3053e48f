"""Tables as text."""

import pytest

from seq2split.common.tables import table

ROWS = [["split", "1,000"], ["a", 7]]


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, ["who    speed", "-----  -----", "split  1,000", "a      7"]),
        ({"flush_right": True}, ["who    speed", "-----  -----", "split  1,000", "a          7"]),
        ({"markdown": True}, ["| who | speed |", "| --- | --- |", "| split | 1,000 |", "| a | 7 |"]),
        (
            {"flush_right": True, "markdown": True},
            ["| who | speed |", "| --- | ---: |", "| split | 1,000 |", "| a | 7 |"],
        ),
    ],
)
def test_a_table_is_aligned(options, lines):
    assert table(["who", "speed"], iter(ROWS), **options).splitlines() == lines


def test_a_table_without_rows_is_its_titles():
    assert table(["who", "speed"], []).splitlines() == ["who  speed", "---  -----"]


@pytest.mark.parametrize("markdown", [False, True])
def test_a_row_of_another_width_is_refused(markdown):
    with pytest.raises(ValueError, match="row 2 has 1 cells; expected 2, one for each title"):
        table(["who", "speed"], [["split", 1], ["a"]], markdown=markdown)
