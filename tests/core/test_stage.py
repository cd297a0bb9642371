import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from distillery.core import stage
from distillery.core.codehash import modules
from distillery.core.errors import ConfigError, DataError
from distillery.core.stage import read_run, record_metrics, run_stage

ROOT = Path(__file__).resolve().parents[2]


def test_metrics_are_identical_between_runs(inside):
    for _ in range(2):
        with record_metrics("metrics/kind/m.json", "numpy", "no-such-package") as (metrics, run):
            metrics.update(kept=3, provenance={"models": {"base": "x"}})
            run["reused"] = 7
        assert json.loads((inside / "metrics/kind/m.json").read_text()) == {"kept": 3, "provenance": {"models": {"base": "x"}}}


def test_run_information_goes_into_a_separate_script(inside):
    with record_metrics("metrics/kind/m.json", "numpy", "no-such-package", device="a GPU") as (_, run):
        run["reused"] = 7
    found = read_run("metrics/kind/m.json")
    assert found is not None and set(found["versions"]) == {"python", "numpy"}
    assert (found["reused"], found["device"]) == (7, "a GPU") and found["seconds"] >= 0 and found["finished"] and found["host"]
    assert (inside / ".runs/kind/m.js").read_text().startswith('runs["kind/m"] =\n{')
    assert read_run("metrics/other.json") is None


def test_a_block_that_fails_writes_nothing(inside):
    with pytest.raises(RuntimeError), record_metrics("metrics/m.json") as (metrics, _):
        metrics["kept"] = 3
        raise RuntimeError
    assert list(inside.iterdir()) == []


@pytest.fixture(autouse=True)
def logs(monkeypatch, tmp_path):
    monkeypatch.setattr(stage, "LOGS", tmp_path / "logs")
    return tmp_path / "logs"


def failing(monkeypatch, error: BaseException) -> str:
    """The exit message of a failing stage."""
    monkeypatch.setattr("sys.argv", ["stages/distill.py", "plain"])

    def main(teacher):
        raise error

    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    return str(ended.value)


@pytest.mark.parametrize("error", [ConfigError("params.yaml: a.b: missing"), DataError("x.jsonl:3: malformed")])
def test_a_user_error_is_one_line_without_a_log(monkeypatch, logs, error):
    assert failing(monkeypatch, error) == f"distill: {error}" and not logs.exists()


def test_two_errors_are_two_lines(monkeypatch):
    assert failing(monkeypatch, ConfigError("one\ntwo")) == "distill: one\ndistill: two"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "data/raw"),
            "distill: data/raw: No space left on device; outputs are",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "distill: disk: No space left on device"),
        (KeyError("bug"), "distill: unexpected KeyError: 'bug'"),
        (ValueError("two\nlines"), "distill: unexpected ValueError: two lines"),
    ],
)
def test_a_bug_is_one_line_with_its_traceback_in_a_log(monkeypatch, logs, error, line):
    said = failing(monkeypatch, error)
    assert said.startswith(line) and said.endswith(f"; traceback in {logs / 'distill-plain.log'}") and "\n" not in said
    assert "Traceback" in (logs / "distill-plain.log").read_text()


@pytest.mark.parametrize(
    ("main", "usage"),
    [(lambda teacher: None, "distill TEACHER"), (lambda teacher="": None, "distill [TEACHER]")],
)
def test_a_wrong_number_of_arguments_shows_the_usage(monkeypatch, main, usage):
    monkeypatch.setattr("sys.argv", ["stages/distill.py", "a", "b"])
    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    assert str(ended.value) == f"usage: python -m stages.{usage}"


def test_a_missing_argument_shows_the_usage(monkeypatch):
    monkeypatch.setattr("sys.argv", ["stages/distill.py"])
    with pytest.raises(SystemExit, match=r"usage: python -m stages.distill TEACHER"):
        run_stage(lambda teacher: None)


def test_an_interrupt_is_one_line(monkeypatch):
    assert failing(monkeypatch, KeyboardInterrupt()) == "distill: interrupted; what was done is kept"


def test_any_number_of_arguments_may_be_taken(monkeypatch):
    seen = []
    for arguments in ([], ["a"], ["a", "b", "c"]):
        monkeypatch.setattr("sys.argv", [str(ROOT / "distillery/core/pins.py"), *arguments])
        run_stage(lambda *names: seen.append(names))
    assert seen == [(), ("a",), ("a", "b", "c")]


def commands() -> list[str]:
    """Every module that runs as a command; of the stages, which are alike, one."""
    named = [name for name, path in modules().items() if 'if __name__ == "__main__"' in path.read_text()]
    return ["stages.distill", *(name for name in named if name.startswith("distillery.") and ".inside" not in name)]


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_every_command_says_what_it_is_for(command):
    name = command.removesuffix(".__main__")
    done = subprocess.run([sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()[0], done.stdout.splitlines()[-1]
    assert len(first) > 20 and last.startswith(f"usage: python -m {name}")
