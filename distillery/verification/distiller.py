"""Distil until verified: generate, verify, and generate again with a fresh seed until an answer passes or attempts run out."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import randrange
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from annotated_types import Ge

from distillery.core.config import NonNegative, Positive, PositiveFloat, Section
from distillery.core.errors import DataError
from distillery.core.response_parts import answer_of, columns_of
from distillery.core.schemas import FAIL, MAJORITY, PASS, UNKNOWN
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
from distillery.verification import majority
from distillery.verification.verdict import Item, Verdict, Verifies, item_of, unknown

Query = dict[str, Any]


UNVERIFIED_PER_REQUEST, UNREAD = 8, 100


@dataclass(frozen=True)
class Budget(Section):
    """What a teacher's traces may cost in all, earlier runs included."""

    gpu_hours: PositiveFloat | None = None
    """Hours of one GPU of the teacher's engine; null for no limit."""
    tokens: Positive | None = None
    """Generated tokens; null for no limit."""
    money: PositiveFloat | None = None
    """GPU-hours at ``price.device_hour``, in its currency; null for no limit."""


@dataclass(frozen=True)
class Distill(Section):
    """How long to try."""

    max_attempts: Positive
    """Attempts per query that may fail."""
    max_unknown: NonNegative
    """Further attempts per query whose verdict may be inconclusive."""
    max_in_flight: Positive
    """Requests that are in flight at any time; eight times as many responses may wait for their verdict."""
    traces: Positive = 1
    """Verified traces per query."""
    votes: Annotated[int, Ge(2)] = 5
    """Answers per query whose category has the verifier ``majority``, in place of attempts until one verifies."""
    budget: Budget | None = None
    """Where to stop; null for no limit."""


class Trace(NamedTuple):
    """One attempt with its verdict."""

    attempt: int
    request: Request
    completion: Completion
    columns: dict[str, Any]
    """The text and where its parts stand (`response_parts.columns_of`)."""
    verdict: Verdict


@dataclass(slots=True)
class Task:
    """One query on its way to its verified traces.

    ``passed`` and ``unknown`` count verdicts, the latter inconclusive ones; ``number`` its predecessors, ``row`` those in its
    part.
    """

    query: Query
    number: int = 0
    row: int = 0
    attempt: int = 1
    passed: int = 0
    unknown: int = 0
    item: Item | None = None
    traces: list[Trace] = field(default_factory=list)


class Distiller:
    """The loop. ``ask`` makes a query's request for an attempt; every attempt ends up in its query's task.

    ``majorities`` has the threshold of each category whose verifier is ``majority``: its queries are answered ``votes`` times.

    ``response_format`` names how the teacher writes; ``unread`` counts the first responses that cannot be read, None once one
    could.

    Queries come in parts, each read when the one before has been submitted, so that the engine never waits for a part's last
    query. A settled query leaves through ``take_settled``; memory holds those on their way.

    Several runs may share a ledger. Where one finds what another has just generated, it continues at a random other
    query of the part, so that they do not generate the same queries in step.
    """

    def __init__(
        self,
        settings: Distill,
        engine: LedgerEngine,
        verifier: Verifies,
        ask: Callable[[Query, int], Request],
        response_format: str,
        majorities: Mapping[str, float] = MappingProxyType({}),
    ):
        self.settings, self.engine, self.verifier, self.ask = settings, engine, verifier, ask
        self.majorities = majorities
        self.response_format = response_format
        self.todo: deque[Task] = deque()
        self.loaded = 0
        self.generating: dict[str, tuple[Task, Request]] = {}
        self.verifying: dict[str, tuple[Task, Request, Completion, dict[str, Any]]] = {}
        self.finished: list[Task] = []
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.settled: Counter[tuple[str, str]] = Counter()
        self.tokens = self.refused = 0
        self.unread: int | None = 0

    def run(self, parts: Iterable[list[Query]]) -> Iterator[None]:
        """Works until every query is settled; yields after every turn, so that a caller can show progress."""
        coming = iter(parts)
        while self._load(coming) or self.generating or self.verifying:
            while self._room() and self._load(coming):
                self._submit(self.todo.popleft())
                if self.engine.met_another() and self.todo:
                    self.todo.rotate(randrange(len(self.todo)))
            for completion in self.engine.poll():
                self._generated(completion)
            for key, verdict in self.verifier.poll(0.0 if self.generating or (self._room() and self.todo) else 0.1):
                self._verified(*self.verifying.pop(key), verdict)
            yield

    def take_settled(self) -> list[Task]:
        """The queries that were settled since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def _load(self, coming: Iterator[list[Query]]) -> bool:
        """Whether there is a query to submit; reads the next part where all have been."""
        while not self.todo and (part := next(coming, None)) is not None:
            self.todo.extend(Task(query, self.loaded + row, row) for row, query in enumerate(part))
            self.loaded += len(part)
        return bool(self.todo)

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
        columns = columns_of(completion.text, self.response_format, completion.finish_reason == "length")
        answer = answer_of(columns)
        self._check_format(completion, answer)
        if task.query["category"] in self.majorities:
            self._vote(task, request, completion, columns)
            return
        self.verifying[completion.key] = (task, request, completion, columns)
        task.item = task.item.again(completion.key, answer) if task.item else item_of(completion.key, task.query, answer)
        self.verifier.submit(task.item)

    def _vote(self, task: Task, request: Request, completion: Completion, columns: dict[str, Any]) -> None:
        """Keeps an answer, and asks for the next; the last one settles what all are worth."""
        task.traces.append(Trace(task.attempt, request, completion, columns, majority.TOO_FEW))
        if len(task.traces) < self.settings.votes:
            task.attempt += 1
            self.todo.appendleft(task)
            return
        answers = [answer_of(trace.columns) for trace in task.traces]
        found = majority.verdicts(answers, self.majorities[task.query["category"]])
        task.traces = [trace._replace(verdict=verdict) for trace, verdict in zip(task.traces, found, strict=True)]
        self.verdicts.update(verdict.verdict for verdict in found)
        task.passed = sum(verdict.verdict == PASS for verdict in found)
        if not task.passed:
            self.reasons[f"{MAJORITY}: {found[0].reason}"] += len(found)
        self._settle(task, PASS if task.passed else UNKNOWN)

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
            self.refused += 1
            why = f"the server refuses the query: {completion.text}"
        if task.attempt > 1 and completion.finish_reason != REFUSED:
            undecided = UNKNOWN if task.query["category"] in self.majorities else FAIL
            self._settle(task, PASS if task.passed else undecided)
        else:
            self._verified(task, request, completion, columns_of("", self.response_format), unknown("none", why, hopeless=True))

    def _verified(
        self, task: Task, request: Request, completion: Completion, columns: dict[str, Any], verdict: Verdict
    ) -> None:
        task.traces.append(Trace(task.attempt, request, completion, columns, verdict))
        self.verdicts[verdict.verdict] += 1
        if verdict.verdict == UNKNOWN:
            task.unknown += 1
            self.reasons[f"{verdict.verifier}: {verdict.reason}"] += 1
        task.passed += verdict.verdict == PASS
        fails = task.attempt - task.passed - task.unknown
        more = fails < self.settings.max_attempts and task.unknown <= self.settings.max_unknown
        if task.passed == self.settings.traces or verdict.hopeless or not more:
            self._settle(task, PASS if task.passed else verdict.verdict)
            return
        task.attempt += 1
        self.todo.appendleft(task)

    def _settle(self, task: Task, verdict: str) -> None:
        self.settled[task.query["category"], verdict] += 1
        self.finished.append(task)


def trace_rows(tasks: list[Task], teacher: str) -> Iterator[dict[str, Any]]:
    """The rows of every attempt, by query and attempt."""
    for task in sorted(tasks, key=lambda task: task.query["id"]):
        for trace in task.traces:
            completion, verdict = trace.completion, trace.verdict
            yield {
                "query_id": task.query["id"],
                "teacher": teacher,
                "attempt": trace.attempt,
                "seed": trace.request.seed,
                **trace.columns,
                "finish_reason": completion.finish_reason,
                "prompt_tokens": completion.prompt_tokens,
                "completion_tokens": completion.completion_tokens,
                "verify_score": verdict.score,
                "verdict": verdict.verdict,
                "reason": verdict.reason,
                "verifier": verdict.verifier,
                "model_revision": trace.request.revision,
                "engine": completion.engine,
            }
