"""Released data sets of traces in place of a teacher: their responses to our queries go into the ledger as if generated.

Their rows are dialogues (``conversations`` of from and value, or ``messages`` of role and content) that end with the
response. They are verified and checked like any other; what they lack is not generated.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from distillery.core.chat import UNWRITABLE, Messages, as_messages, asked_and_answered, identify
from distillery.core.progress import Progress
from distillery.corpus.sources import Origin, scan
from distillery.generation.engine import NO_TRACE, Completion, Request
from distillery.generation.ledger import Ledger


def answers(traces: Origin, key: str) -> Iterator[tuple[list[str], str] | None]:
    """(ids of the query, response) of every row, None for a row that has none; ``key`` names the setting that says where.

    A query with a system prompt has two ids: with it, and without.
    """
    for scanned in scan(traces, key):
        try:
            said = scanned.row.get("conversations") or scanned.row.get("messages")
            asked, answer = asked_and_answered(as_messages(said))
        except ValueError:
            yield None
            continue
        if answer and not UNWRITABLE.search(answer):
            yield [identify(asked), identify(bare(asked))], answer
        else:
            yield None


def bare(messages: Messages) -> Messages:
    return [turn for turn in messages if turn["role"] != "system"]


def by_id(queries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Queries by their ids, and by their ids without a system prompt where these are unique."""
    without = Counter(identify(bare(query["messages"])) for query in queries)
    known = {key: query for query in queries if without[key := identify(bare(query["messages"]))] == 1}
    return known | {query["id"]: query for query in queries}


def import_traces(
    ledger: Ledger, traces: Origin, queries: list[dict[str, Any]], ask: Callable[[dict[str, Any], int], Request], key: str
) -> Counter[str]:
    """Puts every response to one of ``queries`` into the ledger, once; counts what was taken, foreign and unreadable."""
    known, attempts, counts = by_id(queries), Counter[str](), Counter[str]()
    engine, progress = f"released {traces}", Progress("traces", "rows read")
    for found in answers(traces, key):
        query = next((known[each] for each in found[0] if each in known), None) if found else None
        counts["unreadable" if found is None else "taken" if query else "of other queries"] += 1
        if found and query:
            attempts[query["id"]] += 1
            request = ask(query, attempts[query["id"]])
            if not ledger.entries.get(request.key):
                ledger.add(Completion(request.key, found[1], "stop", 0, 0, engine), request.attempt)
        progress.update(counts.total(), f", {counts['taken']} taken")
    return counts


class NullEngine:
    """The engine behind released traces: it answers nothing, since missing traces are not generated."""

    def __init__(self) -> None:
        self.asked: list[Completion] = []

    def submit(self, request: Request) -> None:
        self.asked.append(Completion(request.key, "", NO_TRACE, 0, 0, "none"))

    def poll(self) -> list[Completion]:
        asked, self.asked = self.asked, []
        return asked

    def close(self) -> None: ...
