"""Running what changed: which stages, in which order, what is printed, and what a failure leaves."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from distillery.core import pipeline
from distillery.core.errors import ConfigError
from distillery.core.pipeline import Board, Ended, by_urgency, clock, log_of, problem, run_all, summary, up_to

DIAMOND = {"end": {"left", "right"}, "left": {"begin"}, "right": {"begin"}, "begin": set(), "alone": set()}


@pytest.fixture
def logs(inside):
    pipeline.LOGS.mkdir(parents=True)
    return inside


def scripted(monkeypatch, failing=()):
    """Stages that take a moment, each after those that it needs have ended; what gives the order in which they started."""
    started, ended = Path("started"), Path("ended")

    def reproduce(stage):
        before = set(ended.read_text().split()) if ended.exists() else set()
        assert DIAMOND.get(stage, set()) <= before, f"{stage} started before what it needs had ended"
        with started.open("a") as file:
            file.write(f"{stage} ")
        time.sleep(0.02)
        print(f"Running stage '{stage}'\n{stage}: it said this")
        os.write(2, b"and this to stderr\n")
        with ended.open("a") as file:
            file.write(f"{stage} ")
        return int(stage in failing)

    monkeypatch.setattr(pipeline, "reproduce", reproduce)
    return lambda: started.read_text().split()


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_a_stage_starts_after_those_it_needs(logs, monkeypatch, at_once):
    order = scripted(monkeypatch)
    ends = run_all(DIAMOND, at_once)
    started = order()
    assert len(ends) == 5 and not any(end.failed for end in ends)
    assert started.index("begin") < min(started.index("left"), started.index("right"))
    assert max(started.index("left"), started.index("right")) < started.index("end") and sorted(started) == sorted(DIAMOND)


def test_after_a_failure_nothing_further_starts(logs, monkeypatch, capsys):
    order = scripted(monkeypatch, failing={"left"})
    ends = run_all({name: needed for name, needed in DIAMOND.items() if name != "alone"}, 1)
    assert "and this to stderr" in log_of("left").read_text()
    assert "end" not in order() and [end.stage for end in ends if end.failed] == ["left"]
    said = capsys.readouterr().out
    assert "left FAILED after" in said and "everything it said: .logs/stages/left.log" in said


def test_long_chains_start_first():
    assert by_urgency(["alone", "begin"], DIAMOND) == ["begin", "alone"]


def test_a_line_has_place_time_and_summary_and_what_is_left_where_it_is_known(logs):
    board = Board(["a", "b@x"], 2)
    log_of("a").write_text("a: first\nsomebody else: no\na: 5 rows kept\n")
    (line,) = board.ended(Ended("a", True, False, 61.0))
    assert line.startswith("[1/2 0:00] a took 61 s: 5 rows kept")
    assert list(board.ended(Ended("b@x", False, False, 1.0))) == [] and board.unchanged == 1
    pipeline.DURATIONS.write_text('{"a": 10, "b@x": 30}')
    board = Board(["a", "b@x"], 1)
    (line,) = board.ended(Ended("a", True, False, 10.0))
    assert line.startswith("[1/2 0:00, 0:30 left] a took 10 s")


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599.5, "60:00"), (61, "1:01")])
def test_times_are_minutes_and_seconds(seconds, shown):
    assert clock(seconds) == shown


def test_a_problem_is_what_the_stage_said_itself(logs):
    text = "Running stage 'a':\n> python -m stages.a\na: data/x: missing\nERROR: failed to reproduce 'a'\n"
    log_of("a").write_text(text)
    assert problem("a") == "a: data/x: missing"
    log_of("a").write_text("")
    assert problem("a") == "it said nothing" and summary("a") == ""


def test_a_number_of_stages_is_needed(inside):
    for wrong in (("0",), ("1.5",), ("2", "compare", "report")):
        with pytest.raises(ConfigError, match="usage: make repro AT_ONCE=2"):
            pipeline.main(*wrong)


def test_a_stage_is_run_with_those_that_it_needs():
    assert set(up_to("left", DIAMOND)) == {"begin", "left"} and set(up_to("end", DIAMOND)) == DIAMOND.keys() - {"alone"}
    with pytest.raises(ConfigError, match=r"dvc.yaml: no stage 'middle'; there are alone, begin, end, left, right"):
        up_to("middle", DIAMOND)


STAGES = {
    "code": "echo 1 >code.out",
    "first": "echo first: made >&2; cp params.yaml a.out",
    "left": "sleep 0.1; cp a.out left.out; echo left: 3 rows",
    "right": "test ! -e broken || { echo right: a.out: broken; exit 1; }; cp a.out right.out",
    "both": "cat left.out right.out >both.out",
}
PARAMS = "seed: {}\nteachers: [a]\narms: [a]\narm: {{}}\nunverified: false\n"
DEPS = {"left": ["a.out"], "right": ["a.out"], "both": ["left.out", "right.out"]}
OUTS = {"code": "code.out", "first": "a.out", "left": "left.out", "right": "right.out", "both": "both.out"}


@pytest.fixture
def repository(inside):
    """A small pipeline of DVC's own."""
    stages = {
        name: {"cmd": cmd, "deps": DEPS.get(name, []), "outs": [OUTS[name]], "params": ["seed"] if name == "first" else []}
        for name, cmd in STAGES.items()
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    Path("sub").mkdir()
    idle = {"unused": {"cmd": "echo no >no.out", "outs": ["no.out"]}}
    Path("sub/dvc.yaml").write_text(yaml.safe_dump({"stages": idle}))
    Path("params.yaml").write_text(PARAMS.format(1))
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], check=True)
    return inside


def test_without_teachers_nothing_starts(inside):
    Path("params.yaml").write_text("teachers: []\narms: []\n")
    with pytest.raises(ConfigError, match="teachers: empty; name at least one"):
        pipeline.main()
    assert not Path(".logs").exists()


@pytest.mark.slow
def test_dvc_runs_what_changed_and_no_more(repository, capsys):
    pipeline.main("2")
    said = capsys.readouterr().out
    assert "[4/4" in said and "left took" in said and ": 3 rows" in said and "4 stages ran, 0 had not changed" in said
    assert Path("both.out").read_text() == 2 * PARAMS.format(1)
    assert not Path("sub/no.out").exists(), "nothing needs it"
    pipeline.main()
    assert capsys.readouterr().out.startswith("0 stages ran, 0 had not changed")
    Path("params.yaml").write_text(PARAMS.format(2))
    Path("broken").touch()
    with pytest.raises(ConfigError, match="a stage failed"):
        pipeline.main("2")
    said = capsys.readouterr().out
    assert "right FAILED" in said and "right: a.out: broken" in said and "both" not in said
    Path("broken").unlink()
    pipeline.main("1")
    assert Path("both.out").read_text() == 2 * PARAMS.format(2)
