"""Distillations killed with kill -9 at random moments: the traces are the same, and nothing is generated twice."""

import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from distillery.generation.ledger import Ledger
from tests.support.distill_process import BATCH, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20

pytestmark = pytest.mark.exhaustive


def start(ledger: Path, out: Path) -> "subprocess.Popen[bytes]":
    out.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-m", "tests.support.distill_process", str(ledger), str(out)], cwd=ROOT)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """kill -9 for the process alone: its children must exit by themselves."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []


def wait(process: "subprocess.Popen[bytes]") -> None:
    assert process.wait(timeout=120) == 0


def traces(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "traces").iterdir())}


def events(*outs: Path) -> list[tuple[float, str, str]]:
    """(time, asked or answered, key), ordered by time; truncated lines are skipped."""
    lines = [line.split() for out in outs if (out / "engine.log").exists() for line in (out / "engine.log").open()]
    return sorted((float(line[0]), line[1], line[2]) for line in lines if len(line) == 3 and len(line[2]) == 32)


def asked(*outs: Path) -> Counter[str]:
    return Counter(key for _, what, key in events(*outs) if what == "asked")


def answered(*outs: Path) -> int:
    return sum(what == "answered" for _, what, _ in events(*outs))


def asked_though_answered(kept: set[str], *outs: Path, after: float = 1.0) -> list[str]:
    """Keys requested well after their completion was stored in the ledger."""
    first: dict[str, float] = {}
    late = []
    for when, what, key in events(*outs):
        if what == "answered":
            first.setdefault(key, when)
        elif key in first and when > first[key] + after and key in kept:
            late.append(key)
    return late


def stored(root: Path) -> list[str]:
    """The keys of all stored completions."""
    with closing(Ledger("t", root)) as ledger:
        return [key for key, _ in ledger.every()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    wait(start(out / "ledger", out))
    return traces(out), asked(out)


def test_twenty_kills_change_nothing_and_repeat_only_requests_in_flight(undisturbed, tmp_path):
    whole, once = undisturbed
    assert max(once.values()) == 1
    draw, held = random.Random(0), set()
    for _ in range(KILLS):
        process, until = start(tmp_path / "ledger", tmp_path), answered(tmp_path) + draw.randint(0, 2 * len(once) // KILLS)
        while process.poll() is None and answered(tmp_path) <= until:
            time.sleep(draw.uniform(0.0, 0.05))
        if process.poll() is None:
            kill(process)
        held.add(len(stored(tmp_path / "ledger")))
    assert len(held) > KILLS / 3, "many kills hit a working process"
    wait(start(tmp_path / "ledger", tmp_path))
    assert traces(tmp_path) == whole
    again = asked(tmp_path)
    assert again.keys() == once.keys()
    assert sum(again.values()) - len(once) <= KILLS * SETTINGS.max_in_flight
    keys = stored(tmp_path / "ledger")
    assert len(keys) == len(set(keys)), "no key was stored twice"


def test_two_writers_killed_in_turn_share_the_work(undisturbed, tmp_path):
    whole, once = undisturbed
    ledger, outs = tmp_path / "ledger", (tmp_path / "a", tmp_path / "b")
    draw = random.Random(1)
    first = start(ledger, outs[0])
    while answered(outs[0]) < len(once) / 4:
        time.sleep(0.05)
    running = [first, start(ledger, outs[1])]
    for turn in range(KILLS // 2):
        victim, before = turn % 2, answered(*outs)
        until = before + draw.randint(BATCH, len(once) // KILLS)
        while answered(*outs) < until and any(process.poll() is None for process in running):
            time.sleep(0.02)
        if running[victim].poll() is None:
            kill(running[victim])
            running[victim] = start(ledger, outs[victim])
    for process in running:
        wait(process)
    assert traces(outs[0]) == traces(outs[1]) == whole
    together = asked(*outs)
    assert together.keys() == once.keys()
    # Completed, but lost in the kill before it was stored: at most one batch per kill.
    assert len(asked_though_answered(set(once), *outs)) <= KILLS // 2 * BATCH
    assert sum(together.values()) < 1.75 * len(once), "other repeated requests were in flight in both"
    assert min(sum(asked(out).values()) for out in outs) > len(once) / 10, "both worked"
