"""Tables as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Aligns columns, and rules off their titles.

    Args:
        titles: Of the columns.
        rows: The cells, anything that can be written.

    Returns:
        Lines of text without a last line's end.

    Example:
        >>> print(table(("part", "buckets"), [("encoder", 4), ("decoder", 6)]))
        part     buckets
        -------  -------
        encoder  4
        decoder  6
    """
    cells = [[str(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
