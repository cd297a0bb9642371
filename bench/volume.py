"""What `distill` costs at the study's size, without engine and verifiers: the ledger, its index, the traces.

python -m bench.volume [QUERIES ...]: a scripted teacher answers so many queries 1.5 times with 14 kB, a tenth of them programs
with 200 kB of tests; from nothing, again with nothing missing, and with one query in a hundred added. ``data alone`` is the
floor under nothing missing: it reads the queries, and takes the texts out of the ledger and writes them. The figures for 1.89 M
queries continue the line through the two largest sizes.
"""

import hashlib
import random
import sys
import tempfile
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import Cost, Line, run, table
from distillery.core.files import atomic_dir
from distillery.core.formats import STUDY
from distillery.core.model_locks import Lock
from distillery.core.processes import collect_rarely
from distillery.core.schemas import QUERY
from distillery.core.tables import RowWriter, part_paths, parts_for, read_rows, write_table
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling
from distillery.generation.engine import Completion, Request
from distillery.generation.ledger import Ledger
from distillery.verification.distiller import Distill, Distiller, trace_rows
from distillery.verification.spending import Spending
from distillery.verification.verdict import Item, Verdict, scored
from distillery.verification.verdict_store import Verdicts
from stages.distill import TRACES_PER_GROUP, PartWriter, ask_for, work

STUDY_SIZE, SIZES, MORE = 1_890_000, (200_000, 600_000), 0.01
TEXT, TESTS, CHUNK, CHUNKS, WORDS = 14_000, 200_000, 500, 4000, 3000
AT_ONCE = 1024
RUNS = (("from nothing", "distil"), ("open", "open_only"), ("nothing missing", "distil"), ("data alone", "data_alone"))


def chunks() -> list[str]:
    """Pieces of random words, as frequent as in a language: zstd compresses a text of them to 2/7, as it does reasoning."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(WORDS)]
    often = [1 / (1 + place) ** 1.25 for place in range(WORDS)]
    return [" ".join(rng.choices(words, often, k=CHUNK // 6))[:CHUNK] for _ in range(CHUNKS)]


def query(number: int) -> dict[str, Any]:
    key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    tests = f'{{"inputs": ["{number} {"7 42 1 " * (TESTS // 7)}"], "outputs": ["1"]}}' if number % 10 == 0 else None
    messages = [{"role": "user", "content": f"question {number} " + "about a thing " * 30}]
    category = "code" if tests else "math"
    return dict.fromkeys(QUERY.names) | {
        "id": key,
        "messages": messages,
        "category": category,
        "source": "s",
        "ground_truth": "5",
        "test_cases": tests,
    }


def write_queries(folder: Path, count: int, parts: int) -> None:
    """The first ``count`` queries, each in the part of its id."""
    numbers = sorted(range(count), key=lambda number: hashlib.sha256(str(number).encode()).hexdigest())
    write_table(map(query, numbers), folder, QUERY, parts)


class Teacher:
    """Answers at once."""

    def __init__(self) -> None:
        self.chunks, self.waiting = chunks(), list[Request]()

    def submit(self, request: Request) -> None:
        self.waiting.append(request)

    def poll(self) -> list[Completion]:
        waiting, self.waiting = self.waiting, []
        return list(map(self.answer, waiting))

    def answer(self, request: Request) -> Completion:
        said = " ".join(random.Random(request.seed).choices(self.chunks, k=TEXT // CHUNK))
        return Completion(
            request.key, f"<think> {said} </think> <answer> {request.seed} </answer>", "stop", 100, 3500, "scripted 1"
        )

    def close(self) -> None: ...


class Verifier:
    """Passes two responses of three, and keeps verdicts as the router does."""

    def __init__(self, root: Path):
        self.verdicts, self.ready = Verdicts("t", root), list[tuple[str, Verdict]]()

    def submit(self, item: Item) -> None:
        verdict = self.verdicts.find("v", item)
        if verdict is None:
            verdict = scored("v", int(item.key[:4], 16) % 3 > 0, "scripted")
            self.verdicts.add("v", item, verdict)
        self.ready.append((item.key, verdict))

    def poll(self, wait: float) -> list[tuple[str, Verdict]]:
        ready, self.ready = self.ready, []
        return ready

    def close(self) -> None:
        self.verdicts.close()


def distil(folder: Path) -> None:
    """`distill` as the stage runs it."""
    parts, root = part_paths(folder / "queries"), folder / "ledger"
    ask = partial(ask_for, Lock("t", "t", "r", True, {}), Sampling(0.6, 0.95, 4096), "")
    with (
        closing(Verifier(root)) as verifier,
        closing(LedgerEngine(Ledger("t", root), 10**6, Teacher)) as engine,
        atomic_dir(folder / "traces") as traces,
    ):
        distiller = Distiller(Distill(20, 0, AT_ONCE), engine, verifier, ask, STUDY)
        rows_of = partial(trace_rows, teacher="t")
        left = [pq.read_metadata(path).num_rows for path in parts]
        work("t", distiller, parts, PartWriter(traces, left, rows_of), Spending(engine, None, 1, None))
        print(f"{sum(distiller.verdicts.values())} attempts, {engine.asked} generated", file=sys.stderr)


def data_alone(folder: Path) -> None:
    """What no run can do without: queries are read and their tests hashed, texts taken from the ledger and written."""
    for row in chain.from_iterable(read_rows(path, QUERY) for path in part_paths(folder / "queries")):
        hashlib.sha256((row["test_cases"] or "").encode()).digest()
    with closing(Ledger("t", folder / "ledger")) as ledger:
        entries = sorted(ledger.every(), key=lambda each: (each[1].record.file, each[1].record.start))
        writer = RowWriter(folder / "texts.parquet", pa.schema([("text", pa.string())]), TRACES_PER_GROUP)
        for completion in (ledger.completion(key, entry) for key, entry in entries):
            assert completion is not None
            writer.add({"text": completion.text})
        writer.close()


def open_only(folder: Path) -> None:
    Ledger("t", folder / "ledger").close()
    Verdicts("t", folder / "ledger").close()


def size_of(folder: Path) -> float:
    """In GB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def measure(count: int) -> dict[str, Cost | float]:
    with tempfile.TemporaryDirectory() as place:
        folder, parts = Path(place), parts_for(STUDY_SIZE) * count // STUDY_SIZE + 1
        found: dict[str, Cost | float] = {}
        write_queries(folder / "queries", count, parts)
        for name, action in RUNS:
            found[name] = run("bench.volume", action, place, folder=folder)
            found.setdefault("disk", size_of(folder / "ledger"))
        write_queries(folder / "queries", round(count * (1 + MORE)), parts)
        found["+1 %"] = run("bench.volume", "distil", place, folder=folder)
    return found


def continued(sizes: list[int], values: list[float]) -> float:
    """The line through the last two sizes at the study's; in proportion where there is but one."""
    if len(sizes) < 2:
        return values[-1] * STUDY_SIZE / sizes[-1]
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    return values[-1] + slope * (STUDY_SIZE - sizes[-1])


def main(sizes: list[int]) -> None:
    found = [measure(size) for size in sizes]
    lines = []
    for name in found[0]:
        shown = {"cpu": "CPU-s", "memory": "MB"} if isinstance(found[0][name], Cost) else {"": "GB"}
        for field, unit in shown.items():
            values = [getattr(each[name], field) if field else float(each[name]) for each in found]  # type: ignore[arg-type]
            figures = [f"{value:.4g}" for value in [*values, continued(sizes, values)]]
            lines.append(Line(f"{name}, {unit}", ", ".join(figures)))
    print(f"queries: {', '.join(map(str, [*sizes, STUDY_SIZE]))}")
    print(table(lines))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in dict(RUNS).values():
        collect_rarely()  # as every stage does
        globals()[sys.argv[1]](Path(sys.argv[2]))
    else:
        main(sorted(map(int, sys.argv[1:])) or list(SIZES))
