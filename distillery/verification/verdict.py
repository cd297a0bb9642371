"""Items and verdicts: what every verifier takes and gives.

``pass`` and ``fail`` are what a verifier is sure of. ``unknown``, inconclusive, is everything else (a time-out, a reference
that does not parse, a judge that is down, no sandbox): it is counted, shown and retried, and never silently a fail.

A verifier takes an `Item` and gives a future `Verdict` whose score is from 0 to 1; the router sends every item to the
verifier of its category and turns scores into verdicts by the category's threshold.
"""

import json
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol

from distillery.core.schemas import FAIL, PASS, UNKNOWN

LONGEST_REASON = 200


@dataclass(frozen=True)
class Item:
    """What a verifier needs: the query with its reference, and the response's answer part."""

    key: str
    category: str
    answer: str | None
    messages: tuple[dict[str, str], ...] = ()
    ground_truth: str | None = None
    test_cases: str | None = None
    constraints: str | None = None
    digests: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def again(self, key: str, answer: str | None) -> "Item":
        """The item of another response to the same query; what was computed of the query is shared."""
        return replace(self, key=key, answer=answer)

    def digest(self, version: str) -> Any:
        """A running hash of a verifier's version and the query, which may have megabytes of tests: they are hashed once."""
        if version not in self.digests:
            self.digests[version] = hash_of(version, self)
        return self.digests[version].copy()

    @property
    def question(self) -> str:
        """The last user message."""
        return next((turn["content"] for turn in reversed(self.messages) if turn["role"] == "user"), "")


def hash_of(version: str, item: Item) -> Any:
    """The hash of a verifier's version and an item's query, each part behind its length."""
    digest = sha256()
    parts = (version, item.category, json.dumps(item.messages), item.ground_truth, item.test_cases, item.constraints)
    for part in parts:
        said = None if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"-" if said is None else b"%d:%b" % (len(said), said))
    return digest


def item_of(key: str, query: dict[str, Any], answer: str | None) -> Item:
    """An item from a query's row (fields of QUERY; those that are missing count as empty)."""
    fields: dict[str, Any] = {name: query.get(name) for name in ("ground_truth", "test_cases", "constraints")}
    return Item(key, query["category"], answer, tuple(query.get("messages") or ()), **fields)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score from 0 to 1 (None where unknown), the verdict, its reason, the verifier, and the seconds that it worked.

    ``hopeless`` marks an inconclusive verdict that retrying cannot change; ``certain`` a fail that is beyond doubt, so that
    no judge is asked.
    """

    score: float | None
    verdict: str
    reason: str
    verifier: str
    hopeless: bool = False
    certain: bool = False
    seconds: float = 0.0

    def at(self, threshold: float) -> "Verdict":
        """The same with its score compared to a threshold."""
        verdict = self.verdict if self.score is None else PASS if self.score >= threshold else FAIL
        return replace(self, verdict=verdict)

    def after(self, seconds: float) -> "Verdict":
        """The same with the seconds that it took, waiting for a free process left out."""
        return replace(self, seconds=round(seconds, 4))


def scored(verifier: str, score: float, reason: str, certain: bool = False) -> Verdict:
    """A verdict with a score, and pass or fail as for the threshold 1; a route applies the category's own."""
    verdict = PASS if score >= 1 else FAIL
    return Verdict(round(float(score), 6), verdict, one_line(reason), verifier, certain=certain)


def unknown(verifier: str, reason: str, hopeless: bool = False) -> Verdict:
    return Verdict(None, UNKNOWN, one_line(reason), verifier, hopeless)


def one_line(text: str) -> str:
    """A program's output or an answer, made fit for a table: one line, nothing that a terminal obeys, shortened."""
    start = text[: 20 * LONGEST_REASON].encode("utf-8", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in start).split())[:LONGEST_REASON]


class Verifier(Protocol):
    """Verifies the items of the categories that name it. ``verify`` returns at once."""

    def verify(self, item: Item) -> "Future[Verdict]": ...

    def close(self) -> None: ...


class Verifies(Protocol):
    """What `stages.distill` and `stages.evaluate` see: ``submit``, then ``poll`` for (key, verdict) in any order."""

    def submit(self, item: Item) -> None: ...

    def poll(self, wait: float) -> list[tuple[str, Verdict]]: ...
