"""Overhead of the distillation loop: ledger and verifiers included, against vLLM generation alone on the same prompts.

python -m bench.distill TEACHER, after `dvc repro`: that teacher's first attempt at every mathematics query, with one engine
in one process; runs alternate in pairs, since machine speed drifts.
"""

import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from distillery.core import config, model_locks
from distillery.core.formats import STUDY
from distillery.core.schemas import QUERY
from distillery.core.tables import read_table
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import EngineSettings, Sampling
from distillery.generation.engine import Request
from distillery.generation.factory import load
from distillery.generation.ledger import Ledger
from distillery.verification.config import VerifyParams
from distillery.verification.distiller import Distill, Distiller
from distillery.verification.router import Router
from distillery.verification.verdict_store import Verdicts
from stages.distill import ask_for

ROUNDS = 9
CATEGORIES = ("math",)


def bare(engine: Any, requests: list[Request]) -> int:
    """Generates only, like vLLM's own `generate`; returns the number of tokens."""
    for request in requests:
        engine.submit(request)
    tokens = 0
    while engine.engine.has_unfinished_requests():
        tokens += sum(len(out.outputs[0].token_ids) for out in engine.engine.step() if out.finished)
    return tokens


def whole(engine: Any, route: Router, queries: list[Any], ask: Any, in_flight: int, root: Path) -> int:
    """Distils with one attempt per query; returns the number of generated tokens."""
    ledgered = LedgerEngine(Ledger("t", root), 10**6, lambda: engine)
    distiller = Distiller(Distill(1, 0, in_flight), ledgered, route, ask, STUDY)
    for _ in distiller.run([queries]):
        pass
    ledgered.ledger.close()
    return distiller.tokens


def main(teacher: str) -> None:
    lock = model_locks.read(f"teacher-{teacher}")
    settings = config.load(EngineSettings, f"teacher.{teacher}.engine")
    ask = partial(ask_for, lock, config.load(Sampling, f"teacher.{teacher}.sampling"), config.load(str, "system_prompt"))
    queries = [query for query in read_table("data/queries", QUERY).to_pylist() if query["category"] in CATEGORIES]
    verify, in_flight = config.load(VerifyParams, "verify"), config.load(int, "distill.max_in_flight")
    rules = {category: rule for category, rule in verify.rules.items() if category in CATEGORIES}
    plain = VerifyParams(rules, verify.timeout, verify.processes, verify.sandbox, None, None)
    requests = [ask(query, 1) for query in queries]
    engine = load(lock, settings)
    bare(engine, requests)
    ratios, rates = [], []
    for turn in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder, closing(Router(plain, verdicts=Verdicts("t", Path(folder)))) as route:
            time.sleep(5)  # until the verifiers' processes have started
            took = {}
            for name in ("bare", "whole") if turn % 2 else ("whole", "bare"):
                start = time.monotonic()
                if name == "bare":
                    tokens = bare(engine, requests)
                else:
                    tokens = whole(engine, route, queries, ask, in_flight, Path(folder))
                took[name] = time.monotonic() - start
                rates.append((name, tokens / took[name]))
            ratios.append(took["whole"] / took["bare"])
    rates_by_name = {name: median(rate for other, rate in rates if other == name) for name in ("bare", "whole")}
    rate = ", ".join(f"{name} {rate:.0f} tokens/s" for name, rate in rates_by_name.items())
    print(f"{len(requests)} requests, {tokens} tokens, {ROUNDS} pairs; {rate}")
    slower = [f"{100 * (ratio - 1):+.1f} %" for ratio in (min(ratios), median(ratios), max(ratios))]
    print(f"overhead of the full loop: {slower[1]} (median of pairs; {slower[0]} to {slower[2]})")


if __name__ == "__main__":
    main(*sys.argv[1:])
