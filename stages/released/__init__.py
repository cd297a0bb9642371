"""Released data sets of traces in place of a teacher: what one says to our queries goes into the ledger as if generated.

Their rows are dialogues (``conversations`` of from and value, or ``messages`` of role and content) that end with the
response. They are verified and checked like any other; what they leave out nobody generates.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from stages.engines import NO_TRACE, Completion, Request
from stages.ledger import Ledger
from stages.messages import as_messages, asked_and_answered, identify
from stages.provenance import say
from stages.sources import Traces, scan
from stages.tables import DataError


def answers(traces: Traces, key: str) -> Iterator[tuple[str, str] | None]:
    """(query id, response) of every row, None for a row that has none; ``key`` names the setting that says where."""
    for _, row in scan(traces.source, traces.split, traces.revision, key, traces.files):
        try:
            if isinstance(row, DataError):
                raise row
            turns = as_messages(row.get("conversations") or row.get("messages"))
        except ValueError:
            yield None
            continue
        asked, answer = asked_and_answered([turn for turn in turns if turn["role"] != "system"])
        yield (identify(asked), answer) if answer else None


def bring_in(
    ledger: Ledger, traces: Traces, queries: list[dict[str, Any]], ask: Callable[[dict[str, Any], int], Request], key: str
) -> Counter[str]:
    """Puts every response to one of ``queries`` into the ledger, once; counts what was taken, foreign and unreadable.

    A query is known with or without its system prompt.
    """
    known = {identify([turn for turn in query["messages"] if turn["role"] != "system"]): query for query in queries}
    attempts: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    engine, last = f"released {traces.source} {traces.revision or ''}".strip(), time.monotonic()
    for found in answers(traces, key):
        counts["unreadable" if found is None else "taken" if found[0] in known else "of other queries"] += 1
        if found and found[0] in known:
            attempts[found[0]] += 1
            request = ask(known[found[0]], attempts[found[0]])
            if not ledger.entries.get(request.key):
                ledger.add(Completion(request.key, found[1], "stop", 0, 0, engine), request.attempt)
        if time.monotonic() - last > 5:
            last = time.monotonic()
            say("traces", f"{counts.total()} rows read, {counts['taken']} taken")
    return counts


class NoMore:
    """The engine behind released traces: to what they leave out there is no answer."""

    def __init__(self) -> None:
        self.asked: list[Completion] = []

    def submit(self, request: Request) -> None:
        self.asked.append(Completion(request.key, "", NO_TRACE, 0, 0, "none"))

    def poll(self) -> list[Completion]:
        asked, self.asked = self.asked, []
        return asked

    def close(self) -> None: ...
