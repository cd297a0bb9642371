"""What the reader's server takes at the study's size: the index, the first page, lists, searches and one query.

python -m bench.browse [QUERIES]: so many queries of 2 kB (the study's 1.89 M without a number), two teachers with one or two
attempts each. Times are from request to whole answer over HTTP on this machine, the slowest of five.
"""

import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pyarrow as pa

from bench.measure import ROOT, Line, run, table
from bench.volume import STUDY_SIZE, chunks
from distillery.core.schemas import CATEGORIES, MALFORMED, PERPLEXITY, QUERY, REJECTED_QUERY, TRACE
from distillery.core.tables import parts_for, write_table
from distillery.reader.sources import REMOVING

TEACHERS, TIMES = ("left", "right"), 5
REMOVED_TRACE = TRACE.append(pa.field("rejected_for", pa.string()))
PARAMS = """teachers: [left, right]
arms: [left, right]
seed: 0
evaluate: {benchmarks: {}}
"""


def identity(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def queries(numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Texts of 2 kB with words as frequent as in a language, and one word that no other has."""
    pieces, rng = chunks(), random.Random(0)
    for number in numbers:
        text = f"only{number} {' '.join(rng.choices(pieces, k=4))}"
        about = {"category": CATEGORIES[number % len(CATEGORIES)], "source": f"source-{number % 21}"}
        yield dict.fromkeys(QUERY.names) | {"id": identity(number), "messages": [{"role": "user", "content": text}]} | about


def traces(numbers: list[int], teacher: str) -> Iterator[dict[str, Any]]:
    """One attempt for two of three queries, two for the others; most verify."""
    text = "<think> so </think> <answer> 5 </answer>"
    spans = {"think_start": 8, "think_end": 10, "answer_start": 29, "answer_end": 30}
    for number in numbers:
        for attempt in range(1, 2 + (number % 3 == 0)):
            passed = (number + attempt + len(teacher)) % 4 > 0
            yield (
                dict.fromkeys(TRACE.names)
                | spans
                | {
                    "query_id": identity(number),
                    "teacher": teacher,
                    "attempt": attempt,
                    "text": text,
                    "format": "study",
                    "finish_reason": "stop",
                    "completion_tokens": number % 4000,
                    "verdict": "pass" if passed else "fail",
                    "reason": None if passed else "another answer",
                }
            )


def write_study(folder: Path, count: int) -> None:
    """The tables that the reader reads; of ten queries each one more was removed."""
    numbers, parts, data = sorted(range(count), key=identity), parts_for(count), folder / "data"
    gone = sorted(range(count, count + count // 10), key=identity)
    (folder / "params.yaml").write_text(PARAMS)
    write_table(queries(numbers), data / "queries", QUERY, parts)
    write_table(iter(()), data / "rejected/collect", MALFORMED)
    for stage in REMOVING:
        write_table((row | {"reason": "a rule"} for row in queries(gone)), data / "rejected" / stage, REJECTED_QUERY, parts)
    for teacher in TEACHERS:
        write_table(traces(numbers, teacher), data / "traces" / teacher, TRACE, parts)
        removed = (row | {"rejected_for": "ngram"} for row in traces(numbers[::10], teacher))
        write_table(removed, data / "rejected/curate" / teacher, REMOVED_TRACE, parts)
        scores = ({name: row.get(name, 2.0) for name in PERPLEXITY.names} for row in traces(numbers, teacher))
        write_table(scores, data / "perplexity" / teacher, PERPLEXITY, parts)


def slowest(action: Callable[[int], object]) -> float:
    """In seconds, of five times."""
    found = []
    for number in range(TIMES):
        began = time.monotonic()
        action(number)
        found.append(time.monotonic() - began)
    return max(found)


def served(count: int) -> Iterator[Line]:
    """Times of requests to a server on the present folder."""
    from distillery.reader.server import Handler, Rows

    began = time.monotonic()
    rows = Rows(0)
    yield Line("server ready, index there", f"{time.monotonic() - began:.2f} s")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, rows))
    Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_address[1]}"

    def get(path: str, **values: object) -> bytes:
        with urlopen(f"{place}{path}?{urlencode(values)}") as answer:
            return bytes(answer.read())

    rng, listing, often = random.Random(1), partial(get, "/api/list", view="queries"), chunks()[0].split()
    some = [rng.randrange(count) for _ in range(TIMES)]
    requests: dict[str, Callable[[int], object]] = {
        "first page": lambda _: (get("/"), listing()),
        "page of a hundred, at random": lambda i: listing(offset=some[i]),
        "search, a word of one query": lambda i: listing(search=f"only{some[i]}"),
        "search, a word of most": lambda i: listing(search=often[i]),
        "search, three words": lambda i: listing(search=" ".join(often[i : i + 3])),
        "search, a word of none": lambda i: listing(search=f"nowhere{i}"),
        "search within a category and source": lambda i: listing(search=often[i], category="math", source=f"source-{i}"),
        "only one teacher verified, over 3,000 tokens": lambda _: listing(only="left", tokens=3000),
        "reason": lambda _: listing(reason="another"),
        "reason that none has": lambda _: listing(reason="nothing"),
        "one query with its traces": lambda i: get("/api/row", view="queries", id=identity(some[i])),
    }
    for what, action in requests.items():
        yield Line(what, f"{slowest(action):.2f} s")
    server.shutdown()


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_study(folder, count)
        cost = run("bench.browse", "index", folder=folder)
        size = sum(path.stat().st_size for path in (folder / ".reader").iterdir()) / 1e9
        lines = [Line("index, built once", f"{cost.wall:.0f} s, {cost.memory:.0f} MB of memory, {size:.2f} GB of disk")]
        os.chdir(folder)
        print(table([*lines, *served(count)]))


def build_index() -> None:
    from distillery.reader import index

    index.opened(list(TEACHERS))


if __name__ == "__main__":
    if sys.argv[1:] == ["index"]:
        build_index()
    else:
        sys.path.insert(0, str(ROOT))
        main(int(sys.argv[1]) if len(sys.argv) > 1 else STUDY_SIZE)
