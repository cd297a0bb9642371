"""Released data sets of traces in place of a teacher: their responses to our queries go into the ledger as if generated.

Their rows are dialogues that end with the response (``conversations``, ``messages``), or a question with one response or
several, as the large public sets have them. They are verified and checked like any other; what they lack is not generated.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from distillery.core.chat import UNWRITABLE, Messages, as_messages, asked_and_answered, thought_beside
from distillery.core.formats import STUDY, format_of
from distillery.core.progress import Progress
from distillery.corpus.query_index import QueryIndex
from distillery.corpus.sources import Origin, scan
from distillery.generation.engine import NO_TRACE, Completion, Request
from distillery.generation.ledger import Ledger

DIALOGUES = ("conversations", "messages", "conversation", "input")
QUESTIONS = ("problem", "question", "prompt", "instruction", "query")
RESPONSES = ("generations", "generated_solution", "output", "response", "responses", "completion")
FIRST_ROWS = 1000


class Released(NamedTuple):
    """One row: the question and the responses to it, or why it has none."""

    where: str
    row: dict[str, Any]
    asked: Messages
    responses: list[str]
    problem: str = ""


def read_released(traces: Origin, key: str | None) -> Iterator[Released]:
    """Every row; ``key`` names the setting that says where they are."""
    for where, fields, problem in scan(traces, key):
        row = fields or {}
        try:
            asked, responses = dialogue_of(row)
        except ValueError as error:
            yield Released(where, row, [], [], problem or str(error))
            continue
        written = [text for text in responses if text.strip() and not UNWRITABLE.search(text)]
        yield Released(where, row, asked, written, "" if written else "no response")


def read_source(source: str, revision: str | None, split: str) -> Iterator[Released]:
    """Every row of a file, a folder, or a data set on the hub, whether or not DVC watches it."""
    return read_released(Origin(source, revision, split), None)


def dialogue_of(row: dict[str, Any]) -> tuple[Messages, list[str]]:
    """The question and its responses. Raises ValueError where there is none, or it is not text alone."""
    turns: Any = next((row[name] for name in DIALOGUES if isinstance(row.get(name), list) and row[name]), None)
    question = next((row[name] for name in QUESTIONS if isinstance(row.get(name), str)), None)
    several = next((row[name] for name in RESPONSES if isinstance(row.get(name), str | list)), None)
    if turns is None and question is None:
        raise ValueError("no dialogue and no question")
    asked, answer = asked_and_answered(as_messages(turns if turns is not None else question))
    if several is not None:
        return asked, [text for text in ([several] if isinstance(several, str) else several) if isinstance(text, str)]
    thought = (thought_beside(turns[-1]) if turns else None) or thought_beside(row)
    return asked, [] if answer is None else [f"<think>\n{thought}\n</think>\n\n{answer}" if thought else answer]


def import_traces(
    ledger: Ledger, traces: Origin, queries: QueryIndex, ask: Callable[[dict[str, Any], int], Request], key: str
) -> Counter[str]:
    """Puts every response to one of ``queries`` into the ledger, once; counts the rows taken, foreign and unreadable."""
    attempts, counts = np.zeros(queries.count, np.uint16), Counter[str]()
    engine, progress = f"released {traces}", Progress("traces", "rows read")
    for found in read_released(traces, key):
        place = None if found.problem else queries.find(found.asked)
        taken = "of other queries" if place is None else "taken"
        counts[f"unreadable: {found.problem}" if found.problem else taken] += 1
        if place is not None:
            query = {"messages": queries.messages_of(place)}
            for text in found.responses:
                attempts[place] += 1
                request = ask(query, int(attempts[place]))
                if not ledger.entries(request.key):
                    ledger.add(Completion(request.key, text, "stop", 0, 0, engine), request.attempt)
        progress.update(counts.total(), f", {counts['taken']} taken")
    return counts


def usual_format(traces: Origin, key: str) -> str:
    """The format of most responses among the first rows."""
    rows = islice(read_released(traces, key), FIRST_ROWS)
    formats = Counter(format_of(text) for row in rows for text in row.responses)
    return formats.most_common(1)[0][0] if formats else STUDY


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
