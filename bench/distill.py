"""What the whole loop costs: vLLM's bare generation on the same prompts, and distillation with ledger and verifiers.

python -m bench.distill TEACHER, after `dvc repro`: the first attempt at every query of mathematics, code and instruction
following, by that teacher, with one engine in one process; bare and whole by turns.
"""

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from stages import locks, params
from stages.distill import Distill, Distiller, asker
from stages.engines import EngineSettings, Request, Sampling
from stages.engines.start import load
from stages.ledger import Ledger, LedgerEngine
from stages.ledger.verdicts import Verdicts
from stages.tables import QUERY, read
from stages.verifiers.route import Route, VerifyParams

ROUNDS = 7
CATEGORIES = ("math",)


def bare(engine: Any, requests: list[Request]) -> int:
    """Generates everything and does nothing with it, as vLLM's own `generate` does; the tokens that came."""
    for request in requests:
        engine.submit(request)
    tokens = 0
    while engine.engine.has_unfinished_requests():
        tokens += sum(len(out.outputs[0].token_ids) for out in engine.engine.step() if out.finished)
    return tokens


def whole(engine: Any, route: Route, queries: list[Any], ask: Any, in_flight: int, root: Path) -> int:
    """Distils with one attempt a query; the tokens that came."""
    ledgered = LedgerEngine(Ledger("t", root), 10**6, lambda: engine)
    distiller = Distiller(Distill(1, 0, in_flight), ledgered, route, ask)
    for _ in distiller.run(queries):
        pass
    ledgered.ledger.close()
    return distiller.tokens


def main(teacher: str) -> None:
    lock = locks.read(f"teacher-{teacher}")
    settings = params.load(EngineSettings, f"teacher.{teacher}.engine")
    ask = asker(lock, params.load(Sampling, f"teacher.{teacher}.sampling"), params.load(str, "system_prompt"))
    queries = [query for query in read("data/queries", QUERY).to_pylist() if query["category"] in CATEGORIES]
    verify, in_flight = params.load(VerifyParams, "verify"), params.load(int, "distill.max_in_flight")
    rules = {category: rule for category, rule in verify.rules.items() if category in CATEGORIES}
    plain = VerifyParams(rules, verify.timeout, verify.processes, verify.sandbox, None, None)
    requests = [ask(query, 1) for query in queries]
    engine = load(lock, settings)
    bare(engine, requests)
    times: dict[str, list[float]] = {"bare": [], "whole": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            alone = bare(engine, requests)
            times["bare"].append(time.monotonic() - start)
            with closing(Route(plain, verdicts=Verdicts("t", Path(folder)))) as route:
                time.sleep(5)  # until the verifiers' processes have started
                start = time.monotonic()
                tokens = whole(engine, route, queries, ask, in_flight, Path(folder))
                times["whole"].append(time.monotonic() - start)
        assert tokens == alone, "the same requests give the same tokens"
    a, b = median(times["bare"]), median(times["whole"])
    print(f"{len(requests)} requests, {tokens} tokens, {ROUNDS} rounds; medians: bare {a:.2f} s ({tokens / a:.0f} tokens/s),")
    print(f"whole loop {b:.2f} s ({tokens / b:.0f} tokens/s): {100 * (b / a - 1):+.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
