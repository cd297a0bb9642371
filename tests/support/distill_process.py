"""One distillation with a scripted engine, as a process that a test can kill: python -m tests.support.distill_process."""

import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from distillery.core import model_locks
from distillery.core.formats import STUDY
from distillery.core.schemas import TRACE
from distillery.core.tables import write_table
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling
from distillery.generation.engine import Request
from distillery.generation.ledger import Ledger
from distillery.verification.config import Rule
from distillery.verification.distiller import Distill, Distiller, trace_rows
from distillery.verification.router import Router
from distillery.verification.verdict_store import Verdicts
from stages.distill import ask_for
from tests.support.builders import make_query, verify_params
from tests.support.scripted_engine import ScriptedEngine

QUERIES = 600
BATCH = 4
SETTINGS = Distill(max_attempts=4, max_unknown=1, max_in_flight=16)


def script(request: Request) -> str:
    """Right on the first, second or third attempt, or never, depending on the question's number."""
    number = int(request.messages[-1]["content"].split()[2])
    right = request.attempt > number % 5
    return f"<think> so </think> <answer> \\boxed{{ {number + (0 if right else 1)} }} </answer>"


class SlowEngine(ScriptedEngine):
    """Takes a while for each batch, and logs its requests and completions, with times."""

    def __init__(self, asked: Path):
        super().__init__(script, BATCH)
        self.log = asked.open("a")

    def note(self, what: str, key: str) -> None:
        self.log.write(f"{time.time()} {what} {key}\n")
        self.log.flush()

    def submit(self, request: Request) -> None:
        super().submit(request)
        self.note("asked", request.key)

    def poll(self):
        time.sleep(0.04)
        done = super().poll()
        for completion in done:
            self.note("answered", completion.key)
        return done


def main(root: Path, out: Path) -> None:
    queries = sorted((make_query(f"what is {i} ?", str(i)) for i in range(QUERIES)), key=lambda query: query["id"])
    lock = model_locks.Lock("teacher-t", "path", "revision", True, {})
    with (
        closing(Router(verify_params(math=Rule("math", 0.9)), verdicts=Verdicts("t", root))) as verifier,
        closing(LedgerEngine(Ledger("t", root), 4096, lambda: SlowEngine(out / "engine.log"))) as engine,
    ):
        distiller = Distiller(SETTINGS, engine, verifier, partial(ask_for, lock, Sampling(0.6, 0.95, 64), ""), STUDY)
        for _ in distiller.run([queries]):
            pass
        write_table(trace_rows(distiller.take_settled(), "t"), out / "traces", TRACE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
