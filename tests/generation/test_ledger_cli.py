import json
import subprocess

import pytest

from distillery.generation import ledger_cli
from distillery.generation.engine import Completion
from distillery.generation.ledger import Ledger
from distillery.verification.verdict import Item, scored, unknown
from distillery.verification.verdict_store import Verdicts, key_of


def fill(root) -> None:
    """Two writers: a pass, a fail, an inconclusive verdict that became a pass, and one completion without a verdict."""
    for writer in range(2):
        ledger, verdicts = Ledger("t", root), Verdicts("t", root)
        for i in range(2):
            key = f"{writer}{i}" * 16
            ledger.add(Completion(key, "text", "stop", 1, 10, "test"), attempt=writer + 1, seconds=0.5)
            item = Item(key, "math", str(i))
            if (writer, i) == (0, 1):
                verdicts.add(key_of("v1", item), item, unknown("math", "late"))
                verdicts.add(key_of("v2", item), item, scored("math", 1, "equal"))
            elif (writer, i) != (1, 1):
                verdicts.add(key_of("v1", item), item, scored("math", i == writer, "numbers"))
        ledger.close()
        verdicts.close()


def test_it_summarises_a_ledger_by_verdict_and_attempt(tmp_path):
    fill(tmp_path)
    lines = [line.split() for line in ledger_cli.show("t", tmp_path) if not line.startswith("--")]
    assert " ".join(lines[0]).endswith("4 completions in 2 files")
    assert lines[1:5] == [
        ["verdict", "rows", "cut", "tokens", "engine", "s"],
        ["fail", "1", "0", "10", "0.5"],
        ["pass", "2", "0", "20", "1.0"],
        ["unverified", "1", "0", "10", "0.5"],
    ]
    assert lines[6:] == [["attempt", "fail", "pass", "unverified"], ["1", "0", "2", "0"], ["2", "1", "0", "1"]]


def test_compacting_keeps_every_record_once_and_drops_truncated_lines(tmp_path):
    fill(tmp_path)
    before = list(ledger_cli.show("t", tmp_path))
    (tmp_path / "t/part-x-1-twin.jsonl").write_bytes(next((tmp_path / "t").glob("part-*")).read_bytes() + b'{"torn": ')
    assert "3 files into one of 4 completions" in ledger_cli.compact("t", tmp_path)
    assert len(list((tmp_path / "t").glob("*.jsonl"))) == len(list((tmp_path / "t/verdicts").glob("*.jsonl"))) == 1
    assert list(ledger_cli.show("t", tmp_path))[1:] == before[1:]
    assert Verdicts("t", tmp_path).find(key_of("v2", Item("01" * 16, "math", "1")))


def test_compacting_refuses_live_writers_and_includes_dead_ones(tmp_path):
    writing = Ledger("t", tmp_path)
    writing.add(Completion("k", "text", "stop", 1, 10, "test"))
    with pytest.raises(SystemExit, match="is being written; wait for that run to end"):
        ledger_cli.compact("t", tmp_path)
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    host, _, random = writing.journal.own.rsplit("-", 2)
    writing.journal.path.rename(tmp_path / "t" / f"open-{host}-{dead.pid}-{random}.jsonl")
    assert "1 files into one of 1 completions" in ledger_cli.compact("t", tmp_path)


def test_a_missing_ledger_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_cli, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="no such ledger; there is nothing yet"):
        ledger_cli.main("ghost")
    fill(tmp_path)
    with pytest.raises(SystemExit, match="ghost: no such ledger; there is t"):
        ledger_cli.main("ghost")
    with pytest.raises(SystemExit, match="usage"):
        ledger_cli.main("t", "--all")


def test_a_verdicts_key_covers_all_its_inputs():
    item = Item("k", "math", "5", ground_truth="5")
    keys = {key_of("v1", item), key_of("v2", item)}
    for other in (
        Item("k", "math", "6", ground_truth="5"),
        Item("k", "math", "5", ground_truth="6"),
        Item("k", "code", "5", ground_truth="5"),
    ):
        keys.add(key_of("v1", other))
    assert len(keys) == 5
    assert key_of("v1", Item("other", "math", "5", ground_truth="5")) == key_of("v1", item)


def test_inconclusive_verdicts_are_recorded_and_not_reused(tmp_path):
    verdicts, item = Verdicts("t", tmp_path), Item("k", "math", "5")
    verdicts.add("key", item, unknown("math", "late"))
    verdicts.close()
    again = Verdicts("t", tmp_path)
    assert again.find("key") is None
    assert [json.loads(line)["verdict"] for line in next((tmp_path / "t/verdicts").iterdir()).open()] == ["unknown"]
