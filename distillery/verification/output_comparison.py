"""When a program's output is the expected one."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation

LONGEST_NUMBER = 50
TOLERANCE, RELATIVE = Decimal("1e-6"), Decimal("1e-9")
Same = Callable[[str, str], bool]


def same_output(said: str, expected: str) -> bool:
    """Whether two outputs have the same words in the same order, numbers by value, and decimals up to 1e-6.

    White space does not count: graders of contests ignore it, and statements are rarely exact about it.
    """
    ours, theirs = said.split(), expected.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def same_as_livecodebench(said: str, expected: str) -> bool:
    """LiveCodeBench's own rule, so that scores compare to the last digit: line by line, as text or as decimal numbers."""
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (said, expected))
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(said: str, expected: str) -> bool:
    if said == expected:
        return True
    try:
        ours, theirs = ([Decimal(word) for word in line.split()] for line in (said, expected))
        return ours == theirs
    except InvalidOperation:
        return False


def _same_word(said: str, expected: str) -> bool:
    if said == expected:
        return True
    if max(len(said), len(expected)) > LONGEST_NUMBER:
        return False
    a, b = number(said), number(expected)
    if a is None or b is None:
        return False
    return a == b or ("." in expected and abs(a - b) <= max(TOLERANCE, abs(b) * RELATIVE))


def number(word: str) -> Decimal | None:
    """A finite number as programs print them, or None."""
    try:
        value = Decimal(word)
    except InvalidOperation:
        return None
    return value if value.is_finite() and "_" not in word and word.isascii() else None
