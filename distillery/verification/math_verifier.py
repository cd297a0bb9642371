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
from typing import Any

from distillery.core.schemas import PASS
from distillery.verification.futures import done, then
from distillery.verification.judge import Judge, JudgeReply
from distillery.verification.math_compare import compare, is_words
from distillery.verification.math_text import final_expression, normalize, number_of
from distillery.verification.process_pool import LATE, Pool
from distillery.verification.verdict import Item, Verdict, scored, unknown

NAME = "math"
YES_OR_NO = re.compile(r"Verdict: ?(yes|no)\.?", re.IGNORECASE)
LONGEST = 20_000
LONGEST_REFERENCE, DEEPEST_REFERENCE = 2_000, 50
"""Characters, and brackets inside brackets, beyond which a reference is compared as text only."""
GIVEN_UP = "the reference is too large to compare"
SIMPLE, TRIAL = "x + 17", 0.2
"""Compared with a reference to find out whether that can be compared at all, in this share of the usual time."""
_COSTLY = re.compile(r"!|\^.*\^|\^[{(\s-]*\d{2}|\\d?binom|\\(sum|prod|int)|\|{4}|(\\[a-z]{2,4}\W+){5}", re.DOTALL)
"""References that are tried first: powers, factorials and the like may have more digits than there is time."""
_COMMAND = re.compile(r"\\(?:begin|end)\{[a-zA-Z*]+\}|\\text\{[^{}]*\}|\\[a-zA-Z]+")
_PROSE = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}|[^\W\d_]{4,}")
_ROUNDING, _PRECISE = 1e-6, 1e-9
"""The relative difference of constants that counts as rounding, since Math-Verify rounds to six decimals however small they
are; and that of values too small for a float, and of functions at a point."""


def reference_of(gold: str) -> str:
    """A reference without the sentence, box or mark that it may come in."""
    return final_expression(gold) or gold


def quick_verdict(gold: str, answer: str) -> Verdict | None:
    """The verdict where it is certain without Math-Verify, else None."""
    expected, candidate = reference_of(gold), final_expression(answer)
    if candidate is None:
        return scored(NAME, 0, "the last box is empty or truncated")
    left, right = number_of(normalize(expected)), number_of(normalize(candidate))
    if left is not None and right is not None:
        if left == right:
            return scored(NAME, 1, "equal numbers")
        return scored(NAME, 0, f"{candidate} is not {expected}", certain="." not in expected + candidate)
    return scored(NAME, 1, "same text") if candidate == expected else None


def is_excessive(reference: str) -> bool:
    """Whether a reference is longer, or nested deeper, than what can be compared in time."""
    depth = deepest = 0
    for sign in reference:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return len(reference) > LONGEST_REFERENCE or deepest > DEEPEST_REFERENCE


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


def equal_by_library(gold: str, answer: str) -> bool | None:
    """Whether Math-Verify takes two expressions for equal; None where the reference does not parse."""
    from math_verify import parse, verify

    expected = parse(wrap_latex(gold), parsing_timeout=None)
    found = parse(wrap_latex(answer), parsing_timeout=None)
    if not expected:
        return None
    if not found:
        return False
    if verify(expected, found, timeout_seconds=None):
        return not _differ(expected[0], found[0])
    return bool(re.search(r"\\(?:log|ln)\b", gold + answer)) and _same_function(expected[0], found[0])


def _same_function(expected: Any, found: Any) -> bool:
    """Whether two expressions with logarithms have the same values where all their variables are positive."""
    names = getattr(expected, "free_symbols", None)
    if not names or names != getattr(found, "free_symbols", None) or getattr(expected, "is_Relational", True):
        return False
    points = [{name: 1 + (7 * i + 3 * j) % 11 / 4 for j, name in enumerate(sorted(names, key=str))} for i in range(5)]
    try:
        values = [complex((expected - found).subs(point).evalf(30)) for point in points]
    except (TypeError, ValueError, AttributeError, OverflowError):
        return False
    return all(abs(value) < _PRECISE for value in values)


def _is_prose(text: str) -> bool:
    return bool(_PROSE.search(_COMMAND.sub(" ", text)))


def _differ(expected: Any, found: Any) -> bool:
    """Whether two constants differ by more than rounding."""
    try:
        ours, theirs = (complex(each.evalf(30)) for each in (expected, found))
    except (TypeError, ValueError, AttributeError, OverflowError):
        return False
    if ours == theirs == 0 and expected.is_number and found.is_number:
        return bool(abs((expected - found).evalf(30)) > _PRECISE * abs(expected.evalf(30)))
    return abs(ours - theirs) > _ROUNDING * abs(ours)


def verify_with_library(gold: str, answer: str) -> Verdict:
    """Compares by kind, expressions by Math-Verify. Runs in a process of the pool: it may never return, or crash it."""
    expected, candidate = reference_of(gold), final_expression(answer)
    if candidate is None:
        return scored(NAME, 0, "the last box is empty or truncated")
    if "\\boxed" not in answer and _is_prose(candidate) and not _is_prose(expected) and not is_words(expected):
        found = equal_by_library(expected, candidate)
    else:
        found = compare(expected, candidate, equal_by_library)
    if found is None:
        return unknown(NAME, f"not comparable: {expected} and {candidate}")
    return scored(NAME, found, "compared" if found else f"{candidate} is not {expected}")


class MathVerifier:
    """Asks Math-Verify in the pool; ``judge``, where there is one, decides what that rejects or cannot parse."""

    def __init__(self, pool: Pool, judge: Judge | None):
        self.pool, self.judge = pool, judge
        self.given_up: set[str] = set()

    def verify(self, item: Item) -> "Future[Verdict]":
        gold, answer = item.ground_truth, item.answer or ""
        if not gold:
            return done(unknown(NAME, "the query has no ground truth", hopeless=True))
        if len(answer) > LONGEST or len(gold) > LONGEST:
            return done(unknown(NAME, f"longer than {LONGEST} characters"))
        quick = quick_verdict(gold, answer)
        first = done(quick) if quick else self._compared(gold, answer)
        return then(first, lambda verdict: self._judged(item, verdict)) if self.judge else first

    def _compared(self, gold: str, answer: str) -> "Future[Verdict]":
        if gold in self.given_up or is_excessive(gold):
            return done(unknown(NAME, GIVEN_UP, hopeless=True))
        if _COSTLY.search(gold):
            return then(self._tried(gold, 0.0), lambda hostile: hostile or self._in_pool(gold, answer))
        return self._in_pool(gold, answer)

    def _in_pool(self, gold: str, answer: str) -> "Future[Verdict]":
        return then(self.pool.run(NAME, verify_with_library, gold, answer), lambda verdict: self._blame(gold, verdict))

    def _blame(self, gold: str, verdict: Verdict) -> "Verdict | Future[Verdict]":
        """After a time-out: that of the reference, where it cannot be compared with something simple either."""
        if not verdict.reason.startswith(LATE):
            return verdict
        return then(self._tried(gold, verdict.seconds), lambda hostile: hostile or verdict)

    def _tried(self, gold: str, spent: float) -> "Future[Verdict | None]":
        """None where a reference can be compared with something simple; otherwise it is given up for good."""

        def ended(tried: Verdict) -> Verdict | None:
            if not tried.reason.startswith(LATE):
                return None
            self.given_up.add(gold)
            return unknown(NAME, GIVEN_UP, hopeless=True).after(spent + tried.seconds)

        return then(self.pool.run(NAME, verify_with_library, gold, SIMPLE, share=TRIAL), ended)

    def _judged(self, item: Item, verdict: Verdict) -> "Verdict | Future[Verdict]":
        if self.judge is None or verdict.verdict == PASS or verdict.certain or verdict.reason.startswith(LATE):
            return verdict
        return then(self.judge.ask("math", YES_OR_NO, item), lambda said: self._decided(verdict, said))

    def _decided(self, verdict: Verdict, said: JudgeReply) -> Verdict:
        if said.words is None:
            return unknown(NAME, said.why).after(verdict.seconds + said.seconds)
        agrees = said.words == "yes"
        decided = scored(NAME, agrees, f"the judge says {said.words}; before: {verdict.reason}")
        return decided.after(verdict.seconds + said.seconds)

    def close(self) -> None: ...
