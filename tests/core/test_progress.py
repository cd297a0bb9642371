"""The table of what all running stages are at."""

import json
import subprocess
import sys
import time

import pytest

from distillery.core import progress
from distillery.core.progress import Progress, forget, in_words, own_path, table


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "FOLDER", tmp_path / "progress")
    return tmp_path / "progress"


def reported(stage="distill@t", done=50, total=100, **figures) -> None:
    work = Progress(stage, "queries settled", total, every=0.0)
    work.update(0)
    work.update(done, "", **figures)


def changed(stage, **fields) -> None:
    path = own_path(stage)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_every_running_stage_has_a_line_with_its_figures():
    reported(inconclusive=3, **{"GPU-hours": 1.5})
    reported("collect numina-math", 7, None)
    head, _, collect, distill = table(time.time())
    assert head.split()[:3] == ["stage", "done", "rate"]
    assert "7 queries settled" in collect and "running" in collect
    assert "50/100 queries settled" in distill and "0 min left" in distill and "inconclusive 3, GPU-hours 1.5" in distill


def test_every_server_has_a_line_below_its_stage():
    servers = [
        {"url": "http://a/v1", "answers": 40, "in_flight": 7, "rests": 0.0},
        {"url": "http://b/v1", "answers": 0, "in_flight": 0, "rests": 12.3},
    ]
    work = Progress("distill@t", "queries", 100, every=0.0)
    work.update(0)
    work.update(50, "", servers)
    _, _, stage, first, second = table(time.time())
    assert stage.startswith("distill@t") and "http://a/v1" in first and "40 answers" in first and "7 in flight" in first
    assert "http://b/v1" in second and "rests 12 s" in second


def test_a_stage_whose_process_is_gone_is_shown_as_stopped():
    reported()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    changed("distill@t", pid=gone.pid, at=time.time() - 300)
    assert "stopped 5 min ago" in list(table(time.time()))[-1]


@pytest.mark.parametrize(("silent", "state"), [(30, "0 min left"), (120, "stopped 2 min ago")])
def test_a_stage_on_another_machine_is_known_by_its_last_sign_of_life(silent, state):
    reported()
    changed("distill@t", host="another", at=time.time() - silent)
    assert state in list(table(time.time()))[-1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "x"}'])
def test_an_entry_that_cannot_be_read_is_left_out(folder, content):
    reported()
    (folder / "bad.json").write_text(content)
    assert len(list(table(time.time()))) == 3


def test_a_folder_that_cannot_be_written_ends_no_stage(folder):
    folder.write_text("a file")
    reported()
    reported("s" * 300)
    assert folder.read_text() == "a file"


def test_a_stage_that_ends_leaves_no_line():
    reported()
    forget()
    assert list(table(time.time())) == ["no stage is at work"]


def test_counts_are_said_in_words():
    assert in_words({"ngram": 2, "perplexity": 5, "none": 0}) == "5 perplexity, 2 ngram" and in_words({}) == "nothing"
    assert in_words({"aime": {"exact": 1, "words": 2}, "math": {}}) == "3 aime"
