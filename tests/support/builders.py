"""Queries, settings and verdicts for tests."""

from collections import Counter
from typing import Any

from distillery.core.chat import identify
from distillery.verification.config import Rule, VerifyParams
from distillery.verification.router import Router
from distillery.verification.sandbox.sandbox import Limits
from distillery.verification.verdict import Item, Verdict
from stages.collect import Collect, collect

LIMITS = Limits(seconds=2.0, memory=256, output=1, processes=24, packages=("numpy", "pytest"))


def make_query(text: str = "what is 2 + 3 ?", answer: str | None = "5", category: str = "math", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    fields = {"source": "test", "difficulty": "1", "ground_truth": answer, "test_cases": None, "constraints": None}
    return {"id": identify(messages), "messages": messages, "category": category} | fields | more


class KeptQueries:
    """In-memory sink for `collect`."""

    def __init__(self) -> None:
        self.queries: list[dict[str, Any]] = []

    @property
    def rows(self) -> int:
        return len(self.queries)

    def add(self, query: dict[str, Any]) -> None:
        self.queries.append(query)


def collected(settings: Collect) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Queries, and the rows that cannot be read."""
    kept = KeptQueries()
    malformed = [row._asdict() for row in collect(settings, kept, Counter())]  # type: ignore[arg-type]
    return kept.queries, malformed


def verify_params(timeout: float = 20.0, processes: int = 2, **rules: Rule) -> VerifyParams:
    """Settings for verifiers without models; by default every category that needs none."""
    plain = {name: Rule(name, 0.9) for name in ("math", "code", "science")} | {"if": Rule("if", 0.9)}
    return VerifyParams(rules or plain, timeout, processes, LIMITS, None, None)  # type: ignore[arg-type]


def verdicts_of(route: Router, items: list[Item]) -> list[Verdict]:
    """The verdicts on items, in order; item keys must be unique."""
    for item in items:
        route.submit(item)
    found: dict[str, Verdict] = {}
    while len(found) < len(items):
        found.update(route.poll(0.1))
    return [found[item.key] for item in items]


def samples(rates, per=4, tokens=10, benchmark="b", seed=0):
    """Samples of one benchmark and training seed: question i passes round(rates[i] * per) of ``per`` times."""
    return [
        {
            "benchmark": benchmark,
            "question_id": f"q{i:03}",
            "difficulty": "1",
            "cluster": "",
            "seed": seed,
            "verdict": "pass" if s < round(rate * per) else "fail",
            "completion_tokens": tokens,
            "finish_reason": "stop",
            "answer": "1",
        }
        for i, rate in enumerate(rates)
        for s in range(per)
    ]
