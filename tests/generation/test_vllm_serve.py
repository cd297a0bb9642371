"""A real vLLM server on loopback as the engine, killed mid-run and restarted; and one that never starts.

It is started through the module behind `vllm serve`, since the command itself requires a package named `vllm`, and the
CPU build has another name.
"""

import os
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import psutil
import pytest

from distillery.core import model_locks
from distillery.core.errors import EngineError
from distillery.core.formats import STUDY
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling, ServerSettings
from distillery.generation.ledger import Ledger
from distillery.generation.openai_engine import ServerEngine
from distillery.generation.vllm_engine import ON_CPU, QUIET
from distillery.verification.config import Rule
from distillery.verification.distiller import Distill, Distiller, trace_rows
from distillery.verification.router import Router
from stages.distill import ask_for
from tests.support.builders import make_query, verify_params

pytestmark = pytest.mark.exhaustive
QUERIES = [make_query(f"Ann has {i} apples .", str(i)) for i in range(60)]
SAMPLING = Sampling(1.0, 1.0, 100)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained model of the small world's shape: its responses are random and long, and hardly ever verify."""
    from mini.config import Models
    from mini.judge_data import prompts
    from mini.models import build
    from mini.tokenizer import build as tokenizer_of

    folder = tmp_path_factory.mktemp("model")
    tokenizer = tokenizer_of("be brief", prompts())
    build(Models(0, "", 96, 2, 1, 0.1, 1, {}, {}), tokenizer, "untrained").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class Serve:
    """The server process with its descendants."""

    def __init__(self, model: Path, port: int, log: Path):
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += ["--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "160", "--max-num-seqs", "16"]
        command += ["--enforce-eager", "--no-enable-chunked-prefill", "--generation-config", "vllm"]
        with log.open("ab") as output:
            environment = os.environ | QUIET | ON_CPU
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)

    def kill(self) -> None:
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for member in family:
            member.kill()
        self.process.wait()
        psutil.wait_procs(family, timeout=20)


def distiller_over(port: int, root: Path, route: Router, patience: float) -> tuple[Distiller, LedgerEngine]:
    urls = [f"http://127.0.0.1:{port}/v1"]
    settings = ServerSettings("server", urls, "tiny", 160, 8, 60.0, patience, None, 1)
    engine = LedgerEngine(Ledger("t", root), 160, lambda: ServerEngine(settings))
    lock = model_locks.Lock("teacher-t", "tiny", "revision", True, {})
    return Distiller(Distill(2, 0, 8), engine, route, partial(ask_for, lock, SAMPLING, ""), STUDY), engine


@pytest.fixture(scope="module")
def math_route():
    made = Router(verify_params(math=Rule("math", 0.9)))
    yield made
    made.close()


def test_a_server_killed_mid_run_and_restarted_finishes_the_run(model, tmp_path, math_route):
    port = free_port()
    servers = [Serve(model, port, tmp_path / "log")]
    distiller, engine = distiller_over(port, tmp_path, math_route, 240.0)
    killed = False
    try:
        for _ in distiller.run([QUERIES]):
            if not killed and sum(distiller.verdicts.values()) > 25:
                killed = True
                servers[0].kill()
                threading.Timer(1.0, lambda: servers.append(Serve(model, port, tmp_path / "log"))).start()
        rows = list(trace_rows(distiller.take_settled(), "t"))
    finally:
        engine.close()
        servers[-1].kill()
    assert killed and len(servers) == 2
    assert {row["query_id"] for row in rows} == {query["id"] for query in QUERIES}
    assert sum(row["completion_tokens"] > 1 for row in rows) > len(rows) / 2
    assert {row["engine"].split()[:2][1] for row in rows} == {"vllm"}
    keys = [key for key, _ in Ledger("t", tmp_path).every()]
    assert len(keys) == len(set(keys))


def test_a_server_that_never_starts_is_one_error_and_nothing_is_stored(tmp_path, math_route):
    port = free_port()
    distiller, engine = distiller_over(port, tmp_path, math_route, 2.0)
    with pytest.raises(EngineError, match=f"no answer from http://127.0.0.1:{port}/v1 for 2 s"):
        list(distiller.run([QUERIES]))
    engine.close()
    assert not list(Ledger("t", tmp_path).every())
