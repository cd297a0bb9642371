"""Tables for the terminal."""

from collections.abc import Iterator
from textwrap import fill

WIDTH = 80


def format_table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table's lines, columns padded to their widest cell, numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([row[0].ljust(widths[0]), *numbers])


def wrapped(text: str) -> str:
    """A paragraph in lines that fit a terminal."""
    return fill(text, WIDTH)
