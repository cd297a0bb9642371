"""An evaluation killed with kill -9 at random moments: the samples are the same, and nothing is generated twice."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from distillery.core.tables import read_table
from distillery.generation.ledger import Ledger
from stages.evaluate import SAMPLES
from tests.support.evaluate_process import NAME, ROOT, prepare

QUESTIONS, SAMPLES_EACH, KILLS = 60, 6, 5
IN_FLIGHT = 128

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "sums.jsonl"
    rows = [{"question": f"what is {i} + {i + 1} ?", "answer": str(2 * i + 1)} for i in range(QUESTIONS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(folder: Path, source: Path) -> "subprocess.Popen[bytes]":
    if not (folder / "params.yaml").exists():
        columns = {"source": str(source), "question": "question", "answer": "answer"}
        prepare(folder, {"sums": columns}, SAMPLES_EACH, 64)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "tests.support.evaluate_process"], cwd=folder, env=environment)


def samples(folder: Path) -> list[dict]:
    """Every sample of the result."""
    return read_table(folder / f"data/samples/{NAME}", SAMPLES).to_pylist()


def kept(folder: Path) -> int:
    with closing(Ledger(f"evaluate-{NAME}", folder / ".ledger")) as ledger:
        return len(list(ledger.every()))


def test_five_kills_change_nothing_and_repeat_only_requests_in_flight(source, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert start(whole, source).wait(120) == 0
    wanted, draw = QUESTIONS * SAMPLES_EACH, random.Random(0)
    assert len(samples(whole)) == wanted and {row["verdict"] for row in samples(whole)} == {"pass", "fail"}
    for aim in sorted(draw.sample(range(1, wanted - 40), KILLS)):
        process = start(killed, source)
        while process.poll() is None and kept(killed) < aim:
            time.sleep(draw.uniform(0.01, 0.1))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
        assert not (killed / f"data/samples/{NAME}").exists()
    assert start(killed, source).wait(120) == 0
    assert samples(killed) == samples(whole)
    asked = Counter((killed / "asked.log").read_text().split())
    assert len(asked) == wanted and asked.total() - wanted <= KILLS * IN_FLIGHT
    scores = [json.loads((each / f"metrics/evaluate/{NAME}.json").read_text())["lm_eval"] for each in (whole, killed)]
    assert scores[0] == scores[1] and 0 < scores[0][NAME]["sums"] < 1
