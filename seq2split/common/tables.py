"""Tables as text: aligned columns for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence], flush_right: bool = False, markdown: bool = False) -> str:
    """Write a table.

    Args:
        titles: The titles of the columns.
        rows: The cells of each row, anything that can be written.
        flush_right: True to set all columns but the first flush right, as numbers are read; else all are flush left.
        markdown: True for a Markdown table; else the columns are aligned by spaces, and their titles ruled off.

    Returns:
        The lines of the table, without a newline at the end.

    Raises:
        ValueError: A row has not as many cells as there are titles.

    Example:
        >>> print(table(("part", "buckets"), [("encoder", 4), ("decoder", 12)]))
        part     buckets
        -------  -------
        encoder  4
        decoder  12
        >>> print(table(("part", "buckets"), [("encoder", 4), ("decoder", 12)], flush_right=True))
        part     buckets
        -------  -------
        encoder        4
        decoder       12
        >>> print(table(("part", "buckets"), [("encoder", 4)], flush_right=True, markdown=True))
        | part | buckets |
        | --- | ---: |
        | encoder | 4 |
    """
    cells = [[str(cell) for cell in row] for row in (titles, *rows)]
    right = [flush_right and column > 0 for column in range(len(titles))]
    _check_widths(cells)
    if markdown:
        cells.insert(1, ["---:" if each else "---" for each in right])
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(_line(row, widths, right) for row in cells)


def _check_widths(cells: Sequence[Sequence[str]]) -> None:
    for number, row in enumerate(cells[1:], 1):
        if len(row) != len(cells[0]):
            raise ValueError(f"row {number} has {len(row)} cells; expected {len(cells[0])}, one for each title: {row}")


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = zip(row, widths, right, strict=True)
    return "  ".join(cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in cells).rstrip()
