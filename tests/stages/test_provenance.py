import errno
import json

import pytest

from stages import provenance
from stages.params import ParamsError
from stages.tables import DataError


def test_metrics_are_written_with_what_they_ran_with(tmp_path):
    with provenance.record(tmp_path / "m.json", "numpy", "no-such-package") as metrics:
        metrics.update(kept=3, provenance={"models": {"base": "x"}})
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["kept"] == 3 and found["provenance"]["models"] == {"base": "x"}
    assert set(found["provenance"]["versions"]) == {"python", "numpy"}
    assert found["provenance"]["seconds"] >= 0 and found["provenance"]["device"]


def test_a_block_that_fails_writes_nothing(tmp_path):
    with pytest.raises(RuntimeError), provenance.record(tmp_path / "m.json") as metrics:
        metrics["kept"] = 3
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ParamsError("params.yaml: a.b: missing"), "stage: params.yaml: a.b: missing"),
        (DataError("x.jsonl:3: malformed"), "stage: x.jsonl:3: malformed"),
        (OSError(errno.ENOSPC, "No space left on device", "data/raw"), "stage: data/raw: No space left on device"),
    ],
)
def test_a_users_mistake_is_one_line_and_a_failure(monkeypatch, error, line):
    monkeypatch.setattr("sys.argv", ["stages/stage.py"])

    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        provenance.run(main)
    assert str(ended.value).startswith(line) and "\n" not in str(ended.value)


def test_a_forgotten_argument_is_told_by_name(monkeypatch):
    monkeypatch.setattr("sys.argv", ["stages/distill.py"])
    with pytest.raises(SystemExit, match=r"usage: python -m stages.distill TEACHER"):
        provenance.run(lambda teacher: None)


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["stages/stage.py"])

    def main():
        raise KeyError("bug")

    with pytest.raises(KeyError):
        provenance.run(main)
