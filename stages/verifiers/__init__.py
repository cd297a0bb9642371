"""Verifiers: is a response right? One file a verifier, one interface, three answers.

``pass`` and ``fail`` are what a verifier is sure of. ``unknown`` is everything else (a time-out, a reference that does
not parse, no verifier for the category): it is counted, shown and retried, and never silently a fail.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from stages.params import Section

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
_FORM = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(?P<answer>.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Rule(Section):
    """How one category is verified: which verifier, and the score (0 to 1) from which on a response passes."""

    verifier: str
    threshold: float


@dataclass(frozen=True)
class VerifyParams(Section):
    """``rules`` a category; ``timeout`` in seconds a response; ``processes`` of the pool that verifies."""

    rules: dict[str, Rule]
    timeout: float
    processes: int


@dataclass(frozen=True)
class Item:
    """What a verifier needs: the reference and the response's answer part."""

    key: str
    category: str
    ground_truth: str | None
    answer: str | None


@dataclass(frozen=True)
class Verdict:
    """What came out: a score from 0 to 1 (None where unknown), why, and by which verifier.

    ``hopeless`` marks an unknown that no other response to the same query can mend.
    """

    score: float | None
    verdict: str
    reason: str
    verifier: str
    hopeless: bool = False


class Verifier(Protocol):
    """Verifies without blocking: ``submit``, then ``poll`` for (key, verdict) pairs in any order."""

    def submit(self, item: Item) -> None: ...

    def poll(self, wait: float = 0.0) -> list[tuple[str, Verdict]]: ...

    def close(self) -> None: ...


def split(text: str) -> tuple[str | None, str | None]:
    """The think part and the answer part of a response in the study's form, or (None, None)."""
    match = _FORM.fullmatch(text)
    return (match["think"].strip(), match["answer"].strip()) if match else (None, None)


def answer_part(text: str) -> str:
    """What is judged in free form: the last answer part if there is one, else the whole text."""
    answers = _ANSWER.findall(text)
    return answers[-1].strip() if answers else text
