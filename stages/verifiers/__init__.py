"""Verifiers: is a response right? One file a verifier, one interface, three answers.

``pass`` and ``fail`` are what a verifier is sure of. ``unknown`` is everything else (a time-out, a reference that does
not parse, no verifier for the category): it is counted, shown and retried, and never silently a fail.
"""

import re
from dataclasses import dataclass
from typing import Literal, Protocol

from stages.params import Section

Category = Literal["math", "code", "science", "if", "multiturn", "other"]
PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
_INSIDE = r"(?:(?!</?(?:think|answer)>).)*"
_FORM = re.compile(rf"\s*<think>(?P<think>{_INSIDE})</think>\s*<answer>(?P<answer>{_INSIDE})</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(?P<answer>.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Rule(Section):
    """How one category is verified: which verifier, and the score (0 to 1) from which on a response passes."""

    verifier: str
    threshold: float


@dataclass(frozen=True)
class VerifyParams(Section):
    """``rules`` a category; ``timeout`` in seconds a response; ``processes`` of the pool that verifies."""

    rules: dict[Category, Rule]
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


def answer_part(text: str) -> str | None:
    """What is judged in free form: the last answer part, or else the whole text; None for a thought that was cut."""
    answers = _ANSWER.findall(text)
    if not answers and "<think>" in text and "</think>" not in text:
        return None
    return answers[-1].strip() if answers else text
