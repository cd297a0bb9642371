"""Mathematics by Math-Verify, which decides whether two expressions are the same.

Two shortcuts are taken first, and only where they are sound: both sides plain rational numbers (compared exactly), or
both sides the same text. Everything else goes to Math-Verify in processes of its own: it needs their main thread, its
own time-outs read as "wrong", and some expressions never end, so that only killing the process helps.
"""

import re
from fractions import Fraction

from stages.verifiers import FAIL, PASS, UNKNOWN, Verdict

NAME = "math"
LONGEST = 20_000
_RATIONAL = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40}|/[1-9]\d{0,39})?", re.ASCII)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_PROSE = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}|[^\W\d_]{4,}")
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s-]+[^\W\d_]+)*")
_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(\d{1,40})\}\{([1-9]\d{0,39})\}", re.ASCII)


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, braces balanced, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for i in range(start + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + 7 : i].strip()
    return None


def rational(text: str) -> Fraction | None:
    """The value of a plain integer, decimal or fraction; None for everything else."""
    text = text.strip().removeprefix("$").removesuffix("$").strip()
    latex = _FRACTION.fullmatch(text)
    if latex:
        text = f"{latex[1]}{latex[2]}/{latex[3]}"
    return Fraction(text) if _RATIONAL.fullmatch(text) else None


def shortcut(gold: str, answer: str) -> Verdict | None:
    """The verdict where it can be had soundly without Math-Verify, else None."""
    candidate = boxed(answer) or answer.strip()
    expected = boxed(gold) or gold.strip()
    left, right = rational(expected), rational(candidate)
    if left is not None and right is not None:
        return judge(left == right, "equal numbers" if left == right else f"{candidate} is not {expected}")
    if (candidate.casefold() == expected.casefold() and _WORDS.fullmatch(expected)) or candidate == expected != "":
        return judge(True, "same text")
    return None


def judge(passed: bool, reason: str) -> Verdict:
    return Verdict(float(passed), PASS if passed else FAIL, reason[:200], NAME)


def unknown(reason: str, hopeless: bool = False) -> Verdict:
    return Verdict(None, UNKNOWN, reason[:200], NAME, hopeless)


def marked(text: str) -> str:
    """Text as Math-Verify reads it best: a bare expression is put between dollar signs, prose stays as it is.

    Unmarked, an expression is searched for any number, and "3" would be found in 3\\sqrt{2}.
    """
    text = text.strip().replace("\\$", "").replace("\u2212", "-")
    if any(sign in text for sign in ("$", "\\(", "\\[", "\\boxed")) or "\n" in text:
        return text
    return text if _PROSE.search(_COMMAND.sub(" ", text)) else f"${text}$"


def compare(gold: str, answer: str) -> Verdict:
    """Asks Math-Verify, gold first. Runs in a process of the pool: it may take for ever there, or kill it."""
    from math_verify import parse, verify

    if _WORDS.fullmatch(boxed(gold) or gold.strip()):
        return unknown(f"the reference is words, which mathematics cannot compare: {gold}")
    expected = parse(marked(gold), parsing_timeout=None)
    if not expected:
        return unknown(f"reference does not parse: {gold}", hopeless=True)
    found = parse(marked(answer), parsing_timeout=None)
    if not found:
        return judge(False, "no answer found in the response")
    return judge(verify(expected, found, timeout_seconds=None), "Math-Verify compared them")
