"""Distil until verified: generate, verify, and generate again with a fresh seed until an answer passes or attempts run out."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import randrange
from typing import Any

from distillery.core.config import NonNegative, Positive, Section
from distillery.core.errors import DataError
from distillery.core.response_format import columns_of, cut, locate
from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.engine import (
    NO_OUTPUT_REASONS,
    NO_TRACE,
    PROMPT_TOO_LONG,
    REFUSED,
    TEMPLATE_REJECTS,
    Completion,
    Request,
)
from distillery.verification.verdict import Verdict, Verifies, item_of, unknown

Query = dict[str, Any]


UNVERIFIED_PER_REQUEST, UNREAD = 8, 100


@dataclass(frozen=True)
class Distill(Section):
    """How long to try."""

    max_attempts: Positive
    """Attempts per query that may fail."""
    max_unknown: NonNegative
    """Further attempts per query whose verdict may be inconclusive."""
    max_in_flight: Positive
    """Requests that are in flight at any time; eight times as many responses may wait for their verdict."""


@dataclass
class Task:
    """One query on its way to a verified trace; ``unknown`` counts its inconclusive verdicts."""

    query: Query
    attempt: int = 1
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """One settled attempt. Its text stays in the ledger; a prompt that left no room has none."""

    query_id: str
    attempt: int
    request: Request
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    engine: str
    verdict: Verdict


class Distiller:
    """The loop. ``ask`` makes a query's request for an attempt; every attempt ends up in ``traces``.

    ``response_format`` names how the teacher writes; ``unread`` counts the first responses that cannot be read, None once one
    could.

    Several runs may share a ledger. Where one finds what another has just generated, it continues at a random other
    query, so that they do not generate the same queries in step.
    """

    def __init__(
        self,
        settings: Distill,
        engine: LedgerEngine,
        verifier: Verifies,
        ask: Callable[[Query, int], Request],
        response_format: str,
    ):
        self.settings, self.engine, self.verifier, self.ask = settings, engine, verifier, ask
        self.response_format = response_format
        self.todo: deque[Task] = deque()
        self.generating: dict[str, tuple[Task, Request]] = {}
        self.verifying: dict[str, tuple[Task, Request, Completion]] = {}
        self.traces: list[Trace] = []
        self.settled: Counter[tuple[str, str]] = Counter()
        self.tokens = 0
        self.unread: int | None = 0

    def run(self, queries: Iterable[Query]) -> Iterator[None]:
        """Works until every query is settled; yields after every turn, so that a caller can show progress."""
        self.todo.extend(Task(query) for query in queries)
        while self.todo or self.generating or self.verifying:
            while self.todo and self._room():
                self._submit(self.todo.popleft())
                if self.engine.met_another() and self.todo:
                    self.todo.rotate(randrange(len(self.todo)))
            for completion in self.engine.poll():
                self._generated(completion)
            for key, verdict in self.verifier.poll(0.0 if self.generating or (self._room() and self.todo) else 0.1):
                self._verified(*self.verifying.pop(key), verdict)
            yield

    def _room(self) -> bool:
        most = self.settings.max_in_flight
        return len(self.generating) < most and len(self.verifying) < UNVERIFIED_PER_REQUEST * most

    def _submit(self, task: Task) -> None:
        request = self.ask(task.query, task.attempt)
        self.generating[request.key] = (task, request)
        self.engine.submit(request)

    def _generated(self, completion: Completion) -> None:
        task, request = self.generating.pop(completion.key)
        if completion.finish_reason in NO_OUTPUT_REASONS:
            self._unanswered(task, request, completion)
            return
        self.tokens += completion.completion_tokens
        answer = answer_of(completion, self.response_format)
        self._check_format(completion, answer)
        self.verifying[completion.key] = (task, request, completion)
        self.verifier.submit(item_of(completion.key, task.query, answer))

    def _check_format(self, completion: Completion, answer: str | None) -> None:
        """Raises DataError where none of the first responses can be read: all attempts would be paid for in vain."""
        if self.unread is None or completion.finish_reason == "length":
            return
        self.unread = None if answer is not None else self.unread + 1
        if self.unread == UNREAD:
            begins, ends = " ".join(completion.text[:80].split()), " ".join(completion.text[-80:].split())
            raise DataError(
                f"none of the first {UNREAD} responses has a thought and an answer in the format {self.response_format!r}; the "
                f"last begins {begins!r} and ends {ends!r}; set the teacher's model.format, or model.template_arguments where "
                "its chat template switches thinking off; what was generated is kept"
            )

    def _unanswered(self, task: Task, request: Request, completion: Completion) -> None:
        """Settles a query that cannot be generated, or not again."""
        why = f"the prompt has {completion.prompt_tokens} tokens, which leaves no room in the model's context"
        if completion.finish_reason == NO_TRACE:
            why = "the released traces do not hold this query"
        if completion.finish_reason == PROMPT_TOO_LONG and completion.text:
            why = f"the prompt leaves no room in the model's context; the server says: {completion.text}"
        if completion.finish_reason == TEMPLATE_REJECTS:
            why = f"the chat template rejects the query: {completion.text}"
        if completion.finish_reason == REFUSED:
            why = f"the server refuses the query: {completion.text}"
        if task.attempt > 1 and completion.finish_reason != REFUSED:
            self.settled[task.query["category"], FAIL] += 1
        else:
            self._verified(task, request, completion, unknown("none", why, hopeless=True))

    def _verified(self, task: Task, request: Request, completion: Completion, verdict: Verdict) -> None:
        said = (completion.finish_reason, completion.prompt_tokens, completion.completion_tokens, completion.engine)
        self.traces.append(Trace(task.query["id"], task.attempt, request, *said, verdict))
        task.unknown += verdict.verdict == UNKNOWN
        fails = task.attempt - task.unknown
        more = fails < self.settings.max_attempts and task.unknown <= self.settings.max_unknown
        if verdict.verdict == PASS or verdict.hopeless or not more:
            self.settled[task.query["category"], verdict.verdict] += 1
            return
        task.attempt += 1
        self.todo.appendleft(task)


def answer_of(completion: Completion, response_format: str) -> str | None:
    parts = locate(completion.text, response_format, completion.finish_reason == "length")
    return cut(completion.text, parts.answer)


def trace_rows(
    traces: list[Trace], teacher: str, response_format: str, text_of: Callable[[Trace], str]
) -> Iterator[dict[str, Any]]:
    """The rows of every attempt, by query and attempt, texts fetched one by one."""
    for trace in sorted(traces, key=lambda trace: (trace.query_id, trace.attempt)):
        text, verdict = text_of(trace), trace.verdict
        yield {
            "query_id": trace.query_id,
            "teacher": teacher,
            "attempt": trace.attempt,
            "seed": trace.request.seed,
            **columns_of(text, response_format, trace.finish_reason == "length"),
            "finish_reason": trace.finish_reason,
            "prompt_tokens": trace.prompt_tokens,
            "completion_tokens": trace.completion_tokens,
            "verify_score": verdict.score,
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "verifier": verdict.verifier,
            "model_revision": trace.request.revision,
            "engine": trace.engine,
        }
