"""Mathematics by Math-Verify, which decides whether two expressions are equal.

Shortcuts are taken first, and only where they are sound: both sides plain rational numbers (compared exactly), or both
sides the same text. Everything else goes to Math-Verify in processes of its own: it needs their main thread, its own
time-outs read as "wrong", and some expressions never end, so that only killing the process helps.

On a fail, where a judge is configured, the judge decides, as in the study, except for two integers or fractions that
differ, which leave nothing to judge.
"""

import logging
import re
from concurrent.futures import Future
from fractions import Fraction

from distillery.core.schemas import PASS
from distillery.verification.futures import done, then
from distillery.verification.judge import Judge, JudgeReply
from distillery.verification.process_pool import LATE, Pool
from distillery.verification.verdict import Item, Verdict, scored, unknown

NAME = "math"
YES_OR_NO = re.compile(r"Verdict: ?(yes|no)\.?", re.IGNORECASE)
LONGEST = 20_000
_INTEGER = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_RATIONAL = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40}|/[1-9]\d{0,39})?", re.ASCII)
_MIXED = re.compile(
    r"([+-]?)(\d{1,40})(?:\s+(\d{1,40})/([1-9]\d{0,39})|\s*\\[dt]?frac\{(\d{1,40})\}\{([1-9]\d{0,39})\})", re.ASCII
)
_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(\d{1,40})\}\{([1-9]\d{0,39})\}", re.ASCII)
_SPACE = r"(?:\s|\\[ ,;]|~)*"
_QUANTITY = re.compile(
    rf"(?P<number>.*?[\d}}]){_SPACE}(?P<unit>\\(?:text|mathrm|rm)\b.*|[^\W\d_][^\d\\{{}}()=<>+*]*(?:[\^/]-?\d+)?)", re.DOTALL
)
_COMMAND = re.compile(r"\\(?:begin|end)\{[a-zA-Z*]+\}|\\text\{[^{}]*\}|\\[a-zA-Z]+")
_PROSE = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}|[^\W\d_]{4,}")
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s-]+[^\W\d_]+)*")


def boxes(text: str) -> list[str]:
    r"""The contents of every outermost ``\boxed{...}`` whose braces balance."""
    found, start = [], text.find("\\boxed{")
    while start >= 0:
        depth, i = 0, start + 6
        for i in range(start + 6, len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                found.append(text[start + 7 : i].strip())
                break
        start = text.find("\\boxed{", i + 1)
    return found


def single_expression(text: str) -> str | None:
    r"""The single expression of a text: the content that all its boxes share, or all of it if it has none; else None."""
    found = set(boxes(text))
    if not found:
        return text.strip().strip("*").strip()
    if len(found) > 1:
        return None
    (inner,) = found
    return single_expression(inner) if "\\boxed{" in inner else inner


def rational(text: str) -> Fraction | int | None:
    """The value of a plain integer, decimal, fraction or mixed number; None for everything else."""
    text = text.strip().removeprefix("$").removesuffix("$").strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    if _RATIONAL.fullmatch(text):
        return Fraction(text)
    if latex := _FRACTION.fullmatch(text):
        return Fraction(f"{latex[1]}{latex[2]}/{latex[3]}")
    if mixed := _MIXED.fullmatch(text):
        value = int(mixed[2]) + Fraction(int(mixed[3] or mixed[5]), int(mixed[4] or mixed[6]))
        return -value if mixed[1] == "-" else value
    return None


def key_of(answer: str | None) -> str | None:
    """A key that equal answers share, as far as normalization goes; None where there is no answer."""
    expression = single_expression(answer) if answer else None
    if not expression:
        return None
    value = rational(expression)
    return re.sub(_SPACE, "", expression).casefold() if value is None else str(value)


def quantity(text: str) -> tuple[Fraction | int, str] | None:
    r"""A plain number and its unit, written ``5 cm`` or ``5\text{ cm}``; the unit is empty where there is none."""
    value = rational(text)
    if value is not None:
        return value, ""
    match = _QUANTITY.fullmatch(text.strip().strip("$").strip())
    value = rational(match["number"]) if match else None
    if match is None or value is None:
        return None
    unit = re.sub(r"\\(?:text|mathrm|rm)\b|[{}\s.~]|\\[ ,;]", "", match["unit"])
    return value, unit.replace("^", "").casefold()


def quick_verdict(gold: str, answer: str) -> Verdict | None:
    """The verdict where it is certain without Math-Verify, else None."""
    expected, candidate = single_expression(gold), single_expression(answer)
    if not expected or not candidate:
        return None
    left, right = rational(expected), rational(candidate)
    if left is not None and right is not None:
        if left == right:
            return scored(NAME, 1, "equal numbers")
        return scored(NAME, 0, f"{candidate} is not {expected}", certain="." not in expected + candidate)
    if candidate == expected or (candidate.casefold() == expected.casefold() and _WORDS.fullmatch(expected)):
        return scored(NAME, 1, "same text")
    ours, theirs = quantity(expected), quantity(candidate)
    if ours and theirs and ours[1] and theirs[1] and ours[1] != theirs[1]:
        return unknown(NAME, f"the units differ, or are spelt differently: {candidate} and {expected}")
    return None


def wrap_latex(text: str) -> str:
    """Text as Math-Verify reads it best: a bare expression is put between dollar signs, prose stays as it is.

    Unmarked, an expression is searched for any number, and "3" would be found in 3\\sqrt{2}.
    """
    text = text.strip().replace("\\$", "").replace("\u2212", "-")
    if any(sign in text for sign in ("$", "\\(", "\\[", "\\boxed")) or "\n" in text:
        return text
    return text if _PROSE.search(_COMMAND.sub(" ", text)) else f"${text}$"


def prepare() -> None:
    """Imports Math-Verify, and silences its warning that its time-outs are off."""
    import math_verify

    logging.getLogger(math_verify.__name__).setLevel(logging.ERROR)


def verify_with_library(gold: str, answer: str) -> Verdict:
    """Asks Math-Verify, gold first. Runs in a process of the pool: it may never return, or crash the process."""
    from math_verify import parse, verify

    if _WORDS.fullmatch(single_expression(gold) or ""):
        return unknown(NAME, f"the reference is words, which mathematics cannot compare: {gold}")
    expected = parse(wrap_latex(gold), parsing_timeout=None)
    if not expected:
        return unknown(NAME, f"reference does not parse: {gold}", hopeless=True)
    found = parse(wrap_latex(answer), parsing_timeout=None)
    if not found:
        return scored(NAME, 0, "no answer found in the response")
    return scored(NAME, verify(expected, found, timeout_seconds=None), "Math-Verify compared them")


class MathVerifier:
    """Asks Math-Verify in the pool; ``judge``, where there is one, decides what that rejects or cannot parse."""

    def __init__(self, pool: Pool, judge: Judge | None):
        self.pool, self.judge = pool, judge

    def verify(self, item: Item) -> "Future[Verdict]":
        gold, answer = item.ground_truth, item.answer or ""
        if not gold:
            return done(unknown(NAME, "the query has no ground truth", hopeless=True))
        if len(answer) > LONGEST or len(gold) > LONGEST:
            return done(unknown(NAME, f"longer than {LONGEST} characters"))
        quick = quick_verdict(gold, answer)
        first = done(quick) if quick else self.pool.run(NAME, verify_with_library, gold, answer)
        return then(first, lambda verdict: self._judged(item, verdict)) if self.judge else first

    def _judged(self, item: Item, verdict: Verdict) -> "Verdict | Future[Verdict]":
        if self.judge is None or verdict.verdict == PASS or verdict.certain or verdict.reason.startswith(LATE):
            return verdict
        return then(self.judge.ask("math", YES_OR_NO, item), lambda said: self._decided(verdict, said))

    def _decided(self, verdict: Verdict, said: JudgeReply) -> Verdict:
        if said.words is None:
            return unknown(NAME, said.why)
        agrees = said.words == "yes"
        return scored(NAME, agrees, f"the judge says {said.words}; before: {verdict.reason}")

    def close(self) -> None: ...
