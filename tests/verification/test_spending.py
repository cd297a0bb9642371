"""What distilling costs: the limit that ends a run, and the forecast."""

import math
import re
from functools import partial
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from distillery.core import model_locks
from distillery.core.errors import ConfigError, DataError
from distillery.core.formats import STUDY
from distillery.core.schemas import QUERY
from distillery.core.tables import part_paths, write_table
from distillery.generation import cached_engine
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling
from distillery.generation.engine import Completion
from distillery.generation.ledger import Ledger
from distillery.verification import spending as spending_module
from distillery.verification.distiller import Budget, Distill, Distiller, Task, Trace, trace_rows
from distillery.verification.spending import Spending
from stages.distill import PartWriter, ask_for, work
from tests.support.builders import make_query
from tests.support.scripted_engine import ScriptedEngine
from tests.verification.test_distiller import Equal

LOCK = model_locks.Lock("teacher-t", "path", "revision", True, {})
ANSWER = "<think> so </think> <answer> 5 </answer>"
TOKENS = len(ANSWER.split())


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock takes a second of the engine's time."""
    now = SimpleNamespace(seconds=0.0)

    def monotonic() -> float:
        now.seconds += 1.0
        return now.seconds

    monkeypatch.setattr(cached_engine.time, "monotonic", monotonic)
    return now


def run(folder, count, budget=None, price=None, devices=8, most=4):
    """Distils ``count`` queries; the engine and its spending."""
    if not (folder / "queries").exists():
        queries = sorted((make_query(f"what is {i} ?") for i in range(count)), key=lambda query: query["id"])
        write_table(queries, folder / "queries", QUERY, 1)
    engine = LedgerEngine(Ledger("t", folder), 4096, lambda: ScriptedEngine(lambda request: ANSWER, batch=2))
    spending = Spending(engine, budget, devices, price)
    distiller = Distiller(Distill(3, 1, most), engine, Equal(), partial(ask_for, LOCK, Sampling(0.6, 0.95, 64), ""), STUDY)
    paths = part_paths(folder / "queries")
    (folder / "traces").mkdir(exist_ok=True)
    left = [pq.read_metadata(path).num_rows for path in paths]
    writer = PartWriter(folder / "traces", left, partial(trace_rows, teacher="t"))
    try:
        work("t", distiller, paths, writer, spending)
    finally:
        engine.close()
    return engine, spending


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(tokens=10 * TOKENS), "distill.budget.tokens: 60 is spent"),
        (Budget(gpu_hours=0.01), "distill.budget.gpu_hours: 0.01 is spent"),
        (Budget(money=0.02), "distill.budget.money: 0.02 is spent"),
    ],
)
def test_a_spent_budget_ends_the_run_and_a_larger_one_continues_it(tmp_path, clock, budget, words):
    with pytest.raises(DataError, match=re.escape(words)):
        run(tmp_path, 100, budget, price=2.0)
    kept = len(list(Ledger("t", tmp_path).every()))
    assert 0 < kept < 100
    with pytest.raises(DataError, match=re.escape(words)):
        run(tmp_path, 100, budget, price=2.0)
    assert len(list(Ledger("t", tmp_path).every())) - kept <= 4, "earlier runs count, too"
    engine, spending = run(tmp_path, 100)
    assert engine.reused >= kept and engine.asked + engine.reused == 100
    assert spending.so_far().tokens == 100 * TOKENS and math.isnan(spending.so_far().money)


def test_a_budget_that_is_spent_to_the_last_does_not_stop_what_needs_nothing_more(tmp_path):
    run(tmp_path, 10)
    engine, _ = run(tmp_path, 10, Budget(tokens=1))
    assert engine.asked == 0


def test_what_another_run_spends_counts_once_it_is_seen(tmp_path):
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(lambda request: ANSWER))
    other = Ledger("t", tmp_path)
    other.add(Completion("a" * 32, "x", "stop", 1, 5000, "scripted"), seconds=36.0)
    spending = Spending(engine, Budget(tokens=1000), 1, None)
    assert spending.so_far().tokens == 0
    engine.ledger.look()
    assert spending.so_far()[:2] == (5000, 0.01)


def test_money_needs_a_price(tmp_path):
    with pytest.raises(ConfigError, match=r"distill.budget.money: needs price.device_hour"):
        run(tmp_path, 1, Budget(money=5.0))


def test_the_forecast_comes_from_the_first_queries_once_all_of_them_are_settled(tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setattr(spending_module, "FORECAST_FROM", 20)
    monkeypatch.setattr("stages.distill.FORECAST_FROM", 20)
    _, spending = run(tmp_path, 100, price=3.0)
    lines = [line for line in capsys.readouterr().out.splitlines() if "are left" in line]
    assert len(lines) == 1 and "at price.device_hour" in lines[0]
    left = int(lines[0].split()[1])
    assert 76 <= left <= 80 and f"{left} queries are left: {left * TOKENS:.3g} tokens" in lines[0]
    assert spending.so_far().money == pytest.approx(3.0 * spending.so_far().gpu_hours)


def test_a_forecast_is_a_mean_with_its_interval():
    tasks = [task_of(tokens) for tokens in ([100], [200], [100, 200])]
    engine = SimpleNamespace(ledger=SimpleNamespace(tokens=0, seconds=0.0), tokens=600, seconds_spent=36.0)
    said = Spending(engine, None, 8, 2.0).forecast(tasks, 1000)  # type: ignore[arg-type]
    # 200 tokens per query, standard deviation 100; 0.06 s per token on eight devices
    assert said.startswith("1000 queries are left: 2e+05 tokens, 26.7 GPU-hours, 53.33 at price.device_hour")
    assert f"tokens {(200 - 196 / math.sqrt(3)) * 1000:.3g} to {(200 + 196 / math.sqrt(3)) * 1000:.3g}" in said


def task_of(tokens: list[int]) -> Task:
    completions = [SimpleNamespace(completion_tokens=each) for each in tokens]
    return Task({}, traces=[Trace(1, None, each, {}, None) for each in completions])  # type: ignore[arg-type]
