"""An engine behind its ledger: completions that were generated before are reused."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import Any

from distillery.generation.engine import NO_OUTPUT_REASONS, Completion, Engine, Request
from distillery.generation.ledger import Ledger


class LedgerEngine:
    """An engine that generates only what the ledger does not hold, and starts the real engine only when needed.

    ``context`` is the real engine's, in tokens. ``renamed`` gives the name that a revision had in earlier ledgers. The real
    engine's time while it has work is divided among its completions by their tokens, so that the ledger records what each
    has cost; ``tokens`` and ``seconds_spent`` are this run's sums.
    """

    def __init__(
        self, ledger: Ledger, context: int, start: Callable[[], Engine], renamed: Mapping[str, str] = MappingProxyType({})
    ):
        self.ledger, self.context, self.start, self.renamed = ledger, context, start, renamed
        self.engine: Engine | None = None
        self.found: list[Completion] = []
        self.attempts: dict[str, int] = {}
        self.asked = 0
        self.reused = 0
        self.met = ledger.journal.others() > 0
        self.charged_to = 0.0
        self.tokens, self.seconds_spent = 0, 0.0

    def submit(self, request: Request) -> None:
        stored = self.ledger.find_again(request.key, request.sampling, self.context) or self._under_its_old_name(request)
        if stored:
            self.found.append(stored)
            self.reused += 1
            self.met |= request.key in self.ledger.fresh
            return
        if self.engine is None:
            self.engine = self.start()
        if not self.attempts:
            self.charged_to = time.monotonic()
        self.asked += 1
        self.attempts[request.key] = request.attempt
        self.engine.submit(request)

    def poll(self) -> list[Completion]:
        """Completions found in the ledger or finished by the engine. Raises EngineError where the engine died."""
        self.ledger.journal.sync_if_due()
        found, self.found = self.found, []
        if not self.attempts or self.engine is None:
            return found
        fresh = self.engine.poll()
        now, tokens = time.monotonic(), sum(completion.completion_tokens for completion in fresh)
        for completion in fresh:
            attempt = self.attempts.pop(completion.key)
            if completion.finish_reason not in NO_OUTPUT_REASONS:
                share = completion.completion_tokens / tokens if tokens else 0.0
                self.ledger.add(completion, attempt, share * (now - self.charged_to))
        if tokens:
            self.tokens += tokens
            self.seconds_spent += now - self.charged_to
            self.charged_to = now
        return found + fresh

    def _under_its_old_name(self, request: Request) -> Completion | None:
        if request.revision not in self.renamed:
            return None
        old = replace(request, revision=self.renamed[request.revision])
        found = self.ledger.find(old.key, old.sampling, self.context)
        return replace(found, key=request.key) if found else None

    def met_another(self) -> bool:
        """Whether a request since the last call had been answered by another writer; at first, whether others are active."""
        met, self.met = self.met, False
        return met

    def seconds(self, request: Request) -> float:
        """Engine seconds of all completions of a request, earlier truncated ones included."""
        return sum(entry.seconds for entry in self.ledger.entries(request.key))

    def servers(self) -> list[dict[str, Any]]:
        """The state of every server behind the engine; none where it has not started, or is in this process."""
        states = getattr(self.engine, "states", None)
        return states() if states else []

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
        self.ledger.close()


def complete_all(engine: LedgerEngine, requests: Iterable[Request], most: int) -> Iterator[tuple[Request, Completion]]:
    """Every request with its completion, as they finish; at most ``most`` are in flight."""
    todo = iter(requests)
    waiting: dict[str, Request] = {}
    while True:
        for request in islice(todo, most - len(waiting)):
            waiting[request.key] = request
            engine.submit(request)
        if not waiting:
            return
        for completion in engine.poll():
            yield waiting.pop(completion.key), completion
