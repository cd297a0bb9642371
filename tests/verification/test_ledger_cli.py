import json
from contextlib import closing

import pytest

from distillery.core.errors import DataError
from distillery.generation.engine import Completion
from distillery.generation.ledger import Ledger
from distillery.verification import ledger_cli
from distillery.verification.verdict import Item, Verdict, scored, unknown
from distillery.verification.verdict_store import Verdicts, key_of, key_of_first_version


def fill(root) -> None:
    """Two writers: a pass, a fail, an inconclusive verdict that became a pass, and one completion without a verdict."""
    for writer in range(2):
        ledger, verdicts = Ledger("t", root), Verdicts("t", root)
        for i in range(2):
            key = f"{writer}{i}" * 16
            ledger.add(Completion(key, "text", "stop", 1, 10, "test"), attempt=writer + 1, seconds=0.5)
            item = Item(key, "math", str(i))
            if (writer, i) == (0, 1):
                verdicts.add("v1", item, unknown("math", "late"))
                verdicts.add("v2", item, scored("math", 1, "equal"))
            elif (writer, i) != (1, 1):
                verdicts.add("v1", item, scored("math", i == writer, "numbers"))
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
    (tmp_path / "t/open-x-1-twin-0.zst").write_bytes(next((tmp_path / "t").glob("part-*")).read_bytes()[:-200])
    assert "3 files into new ones, of 4 completions" in ledger_cli.compact("t", tmp_path)
    assert len(list((tmp_path / "t").glob("*.zst"))) == len(list((tmp_path / "t/verdicts").glob("*.zst"))) == 1
    assert list(ledger_cli.show("t", tmp_path))[1:] == before[1:]
    assert Verdicts("t", tmp_path).find("v2", Item("01" * 16, "math", "1"))


def test_compacting_refuses_while_another_has_the_ledger_open(tmp_path):
    other = Ledger("t", tmp_path)
    with pytest.raises(DataError, match="t: in use by another run; wait for its end"):
        ledger_cli.compact("t", tmp_path)
    other.close()
    fill(tmp_path)
    assert "of 4 completions" in ledger_cli.compact("t", tmp_path)


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
    verdicts, item = Verdicts("t", tmp_path), Item("0" * 32, "math", "5")
    verdicts.add("v", item, unknown("math", "late"))
    verdicts.close()
    again = Verdicts("t", tmp_path)
    assert again.find("v", item) is None
    assert list(again.last()) == [("0" * 32, "unknown")]


def test_a_verdict_is_stored_once_per_completion(tmp_path):
    with closing(Verdicts("t", tmp_path)) as verdicts:
        for key in ("0" * 32, "1" * 32, "0" * 32):
            verdicts.add("v", Item(key, "math", "5"), scored("math", 1, "equal"))
        assert len(list(verdicts.journal.records())) == 2


def test_every_field_of_a_verdict_comes_back(tmp_path):
    verdict = Verdict(0.25, "fail", "because \u2028 of", "code", certain=True, seconds=1.5)
    with closing(Verdicts("t", tmp_path)) as verdicts:
        verdicts.add("v", Item("0" * 32, "code", "x"), verdict)
    assert Verdicts("t", tmp_path).find("v", Item("0" * 32, "code", "x")) == verdict


def test_a_ledger_of_the_first_version_is_taken_over(tmp_path, capsys):
    """Completions and verdicts are found as before; its broken lines, and answers that were broken off, are not taken."""
    folder, item = tmp_path / "t", Item("ab" * 16, "math", "5", ground_truth="5")
    (folder / "verdicts").mkdir(parents=True)
    line = {"key": "ab" * 16, "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 3, "engine": "e"}
    line |= {"attempt": 2, "seconds": 0.5, "text": "yes \ud83d"}
    lines = [line, line | {"key": "cd" * 16, "finish_reason": "abort"}, line | {"key": "ef" * 16, "finish_reason": "length"}]
    (folder / "part-a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines) + '{"key": "torn')
    verdict = {"key": key_of_first_version("v", item), "completion": "ab" * 16, "category": "math", "at": 7.0}
    verdict |= {"score": 1.0, "verdict": "pass", "reason": "equal", "verifier": "math", "hopeless": False, "certain": False}
    (folder / "verdicts/open-a.jsonl").write_text(json.dumps(verdict | {"seconds": 0.25}) + "\n")
    for _ in range(2):
        with closing(Ledger("t", tmp_path)) as ledger, closing(Verdicts("t", tmp_path)) as verdicts:
            assert sorted(key for key, _ in ledger.every()) == ["ab" * 16, "ef" * 16]
            (entry,) = ledger.entries("ab" * 16)
            assert (entry.attempt, entry.seconds) == (2, 0.5)
            assert ledger.completion("ab" * 16, entry) == Completion("ab" * 16, "yes \ud83d", "stop", 1, 3, "e")
            assert verdicts.find("v", item) == Verdict(1.0, "pass", "equal", "math", seconds=0.25)
    told = capsys.readouterr().out.splitlines()
    assert "2 records of an older version taken over, 2 broken ones not" in told[0] and len(told) == 2
    assert [path.name for path in (folder / "replaced").iterdir()] == ["part-a.jsonl"]
