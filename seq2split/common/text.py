"""Text that must stand on one line."""

import re

# What `str.splitlines`, and so many a program that reads our output, takes for the end of a line.
_LINE_ENDS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


def one_line(text: str) -> str:
    r"""Return a text as one line: a space stands for each run of characters that end lines.

    Example:
        >>> one_line("a man\n\u2028a dog")
        'a man a dog'
    """
    return _LINE_ENDS.sub(" ", text)
