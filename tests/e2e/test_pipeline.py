"""The full study on an even smaller world with real engines: run, kill, resume, share and compare.

The tests build on one another in file order, as in one user's session with the project.
"""

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from distillery.generation.ledger import Ledger
from tests.e2e.conftest import ENVIRONMENT, dvc, edit, git, metrics, run

TEACHERS = ("adaptive", "plain")

pytestmark = pytest.mark.slow


def kill_tree(process: subprocess.Popen) -> None:
    """Kills a process and all its descendants."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family, timeout=10)


def killed_when(folder: Path, stage: str, condition) -> None:
    """Starts `dvc repro STAGE` and kills it as soon as ``condition`` holds."""
    with subprocess.Popen(
        ["dvc", "repro", stage], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as process:
        while not condition():
            assert process.poll() is None, f"{stage} ended before it could be killed"
            time.sleep(0.005)
        kill_tree(process)


def ledger_keys(folder: Path, owner: str) -> list[str]:
    with closing(Ledger(owner, folder / ".ledger")) as ledger:
        return [key for key, _ in ledger.every()]


def run_of(folder: Path, name: str) -> dict:
    """The run information of a stage."""
    text = (folder / ".runs" / f"{name}.js").read_text()
    return json.loads(text.partition("=\n")[2].rstrip(";\n"))


def unlock(folder: Path) -> None:
    """What `make repro` does first: a killed DVC can leave an empty lock."""
    lock = folder / ".dvc/tmp/rwlock"
    if lock.exists() and not lock.stat().st_size:
        lock.unlink()


def test_killed_distill_repeats_no_request(project):
    dvc(project, "repro", "decontaminate")
    killed_when(project, "distill@adaptive", lambda: len(ledger_keys(project, "adaptive")) > 20)
    before = ledger_keys(project, "adaptive")
    unlock(project)
    dvc(project, "repro", "distill@adaptive")
    found, keys = run_of(project, "distill/adaptive"), ledger_keys(project, "adaptive")
    assert len(before) >= 20 and found["reused"] == len(before)
    assert len(keys) == len(set(keys)) == found["generated"] + found["reused"]


def test_killed_train_resumes_from_its_checkpoint(project):
    dvc(project, "repro", "pack@adaptive")
    killed_when(project, "train@adaptive", lambda: any((project / ".checkpoints").glob("*/checkpoint-*/complete")))
    unlock(project)
    assert "resuming from checkpoint-" in dvc(project, "repro", "train@adaptive")
    assert run_of(project, "train/adaptive")["students"]["0"]["resumed"] is True
    assert not list((project / ".checkpoints").glob("*/checkpoint-*")), "checkpoints are deleted after training"
    steps = (project / "data/training/adaptive/0/loss.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in steps] == list(
        range(1, metrics(project, "train/adaptive")["students"]["0"]["steps"] + 1)
    )


def test_rerunning_a_finished_training_takes_no_step(project):
    before = (project / "models/students/adaptive/0/model.safetensors").read_bytes()
    output = dvc(project, "repro", "--force", "--single-item", "train@adaptive")
    assert "this training was finished before" in output and "step 1/" not in output
    assert run_of(project, "train/adaptive")["students"]["0"]["reused"] is True
    assert (project / "models/students/adaptive/0/model.safetensors").read_bytes() == before


def test_the_full_study_runs(project):
    dvc(project, "repro")
    summary = run(project, sys.executable, "-m", "distillery.evaluation.summary")
    assert all(f"{name} - base" in summary for name in TEACHERS) and "data/report/index.html" in summary
    page = (project / "data/report/index.html").read_text()
    assert page.count("<svg") == 11 and "http://www.w3.org" in page and "<script src" not in page


def test_every_removed_row_is_counted_by_reason(project):
    collected, cleaned, kept = (metrics(project, name) for name in ("collect", "clean", "decontaminate"))
    assert collected["queries"] == cleaned["kept"] + sum(cleaned["rejected"].values())
    away = sum(count for methods in kept["rejected"].values() for count in methods.values())
    assert cleaned["kept"] == kept["kept"] + away
    assert {"duplicate", "empty", "incomplete", "table", "unicode_ratio", "url"} <= set(cleaned["rejected"])
    assert away >= 6


def test_run_information_is_stored_apart_from_metrics(project):
    for path in (project / "metrics").rglob("*.json"):
        name = str(path.relative_to(project / "metrics").with_suffix(""))
        if name.startswith("runs") or name == "student":
            continue
        text = path.read_text()
        assert not any(f'"{word}"' in text for word in ("seconds", "device", "host", "versions", "finished")), path
        assert {"device", "versions"} <= run_of(project, name).keys(), path


def test_data_sets_are_parallel_and_a_student_is_a_plain_checkpoint(project):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = []
    for teacher in TEACHERS:
        parts = sorted((project / "data/parallel" / teacher).glob("*/part-*.parquet"))
        rows = [row for path in parts for row in pq.read_table(path).to_pylist()]
        assert len(rows) == metrics(project, "parallel")["instances"] > 10
        assert all(row["conversations"][-1]["info"]["verify_score"] >= 0.8 for row in rows)
        prompts.append([[turn["value"] for turn in row["conversations"][:-1]] for row in rows])
        student = project / "models/students" / teacher / "0"
        assert AutoModelForCausalLM.from_pretrained(student).config.vocab_size == len(AutoTokenizer.from_pretrained(student))
    assert prompts[0] == prompts[1]


def test_lm_eval_and_score_agree(project):
    for name in (*TEACHERS, "base"):
        ours = metrics(project, f"students/{name}")
        for benchmark, value in metrics(project, f"evaluate/{name}")["lm_eval"][
            name if name == "base" else f"{name}-0"
        ].items():
            assert ours[benchmark]["pass@1"] == pytest.approx(100 * value, abs=0.006)


def test_a_second_repro_runs_nothing(project):
    output = dvc(project, "repro")
    assert "Running stage" not in output and "up to date" in output


def test_new_queries_repeat_no_answered_request(project):
    before = len(ledger_keys(project, "plain"))
    settings = project / "mini/params.yaml"
    old = settings.read_text()
    edit(settings, lambda p: p["corpus"].update(queries=p["corpus"]["queries"] + 5))
    dvc(project, "repro", "distill@plain")
    found = run_of(project, "distill/plain")
    assert 1 <= found["generated"] <= 12 * 6, "five new queries, and those that other planted copies had removed"
    assert found["reused"] >= 0.8 * before
    keys = ledger_keys(project, "plain")
    assert len(keys) == len(set(keys)) == before + found["generated"]
    settings.write_text(old)
    assert "Running stage 'distill" not in dvc(project, "repro"), "restored from DVC's run cache"


@pytest.mark.exhaustive
def test_a_removed_teacher_leaves_nothing_and_is_restored_from_cache(project):
    git(project, "add", "-A")
    git(project, "commit", "-qm", "two teachers")
    table = project / "data/outcomes.json"
    earlier = json.loads(table.read_text())
    params = project / "params.yaml"
    old = params.read_text()
    edit(params, lambda p: p.update(teachers=["plain"], arms=["plain"], headline={"arm": "plain"}))
    output = dvc(project, "repro")
    assert "Running stage 'distill" not in output and "Running stage 'perplexity" not in output
    folders = ("data/curated", "data/samples", "data/training", "metrics/teachers", "metrics/students", "metrics/train")
    assert not [path for name in folders for path in (project / name).glob("adaptive*")]
    assert list(metrics(project, "compare")["differences"]) == ["plain - base"]
    params.write_text(old)
    output = dvc(project, "repro")
    assert not re.findall("Running stage '(?:distill|train|evaluate)", output), "both are restored from the run cache"
    changed = {line.split()[-1] for line in git(project, "status", "--porcelain").splitlines()}
    assert changed <= {"data/outcomes.json", "metrics/outcomes.json", "dvc.lock"}, "every other output and metric is unchanged"
    assert [row for row in json.loads(table.read_text()) if row in earlier] == earlier, "what was learnt before is kept"


ARMS = {
    "both": {"teachers": ["adaptive", "plain"]},
    "twice": {"teachers": ["plain"], "per_query": 2},
    "short": {"teachers": ["adaptive"], "take": "shortest", "tokens": "equal"},
    "long": {"teachers": ["adaptive"], "take": "longest", "tokens": "equal"},
    "fitting": {"teachers": ["adaptive", "plain"], "take": "best_fit"},
    "wrong": {"teachers": ["plain"], "verified": False},
}


@pytest.mark.exhaustive
def test_arms_take_one_line_each_and_only_what_is_missing_is_generated(project):
    params = project / "params.yaml"
    old = params.read_text()
    packed = {name: (project / f"data/packed/{name}/sha256").read_text() for name in TEACHERS}
    before = {name: len(ledger_keys(project, name)) for name in TEACHERS}

    def change(settings):
        settings["unverified"], settings["distill"]["traces"] = True, 2
        settings["arms"] += ARMS
        settings["arm"] = ARMS

    edit(params, change)
    output = dvc(project, "repro")
    for name in TEACHERS:
        found, keys = run_of(project, f"distill/{name}"), ledger_keys(project, name)
        assert found["generated"] > 0 and len(keys) == len(set(keys)) == before[name] + found["generated"]
        assert (project / f"data/packed/{name}/sha256").read_text() == packed[name], "the same traces as before"
        assert f"Running stage 'train@{name}'" not in output
    taken = metrics(project, "parallel")["arms"]
    assert len({taken[name]["queries"] for name in ("adaptive", "plain", "both", "twice", "fitting", "wrong")}) == 1
    assert taken["twice"]["traces"] > taken["plain"]["traces"] == taken["both"]["traces"], "a second one where it differs"
    assert taken["short"]["queries"] >= taken["long"]["queries"]
    assert abs(taken["short"]["response_tokens"] - taken["long"]["response_tokens"]) < 0.1 * taken["long"]["response_tokens"]
    compared = metrics(project, "compare")
    assert list(compared["models"]) == [*TEACHERS, *ARMS, "base"]
    different = {(project / f"data/packed/{name}/sha256").read_text() for name in (*TEACHERS, *ARMS)}
    rows = json.loads((project / "data/outcomes.json").read_text())
    (group,) = {row["group"] for row in rows if row["arm"] in ARMS}
    assert sum(row["group"] == group for row in rows) == len(different) > 4, "two arms of the same data are one"
    params.write_text(old)
    dvc(project, "repro")


def test_comparing_teachers_leaves_the_workspace_clean(project):
    git(project, "add", "-A")
    git(project, "commit", "--allow-empty", "-qm", "results")
    output = run(project, "scripts/arm_experiments.sh", "adaptive", "plain")
    for benchmark in ("aime2024", "aime2025", "math500", "livecodebench"):
        assert f"{benchmark}.pass@1" in output and f"{benchmark}.mean_tokens" in output
    assert git(project, "status", "--porcelain") == ""
    shown = dvc(project, "exp", "show", "--no-pager", "--csv")
    assert "adaptive" in shown and "plain" in shown


def check_that_a_changed_verifier_generates_nothing(second):
    """Where the ledger was pulled. The code of a comparison changes, and with it no verdict."""
    assert not (second / ".ledger").exists()
    assert "files added to .ledger" in run(second, "make", "ledger-pull", "READY=")
    verifier = second / "distillery/verification/math_compare.py"
    verifier.write_text(verifier.read_text() + "\n\ndef unused() -> None: ...\n")
    dvc(second, "repro", "--single-item", "code")
    for stage in ("distill@plain", "evaluate@adaptive"):
        assert "Running stage" in dvc(second, "repro", "--single-item", stage)
    for name in ("distill/plain", "evaluate/adaptive"):
        assert run_of(second, name)["generated"] == 0 and run_of(second, name)["reused"] > 0
    assert git(second, "status", "--porcelain", "metrics") == ""


def test_after_a_pull_nothing_is_recomputed(project, tmp_path):
    from datasets import load_dataset

    dvc(project, "remote", "add", "-d", "-f", "local", str(tmp_path / "remote"))
    git(project, "commit", "-aqm", "remote")
    run(project, "make", "ledger-push", "READY=")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "ledger")
    dvc(project, "push")
    second = tmp_path / "second"
    git(tmp_path, "clone", "-q", str(project), str(second))
    dvc(second, "pull")
    assert "Running stage" not in dvc(second, "repro")
    check_that_a_changed_verifier_generates_nothing(second)
    dvc(tmp_path, "get", str(project), "data/parallel/adaptive", "-o", str(tmp_path / "taken"))
    taken = load_dataset(str(tmp_path / "taken"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(taken) == metrics(project, "parallel")["instances"]


@pytest.mark.exhaustive
def test_a_reproduction_elsewhere_gives_the_same_bytes(project, tmp_path):
    """Another folder with an empty ledger: the small world and one teacher's traces are pulled, the other's are computed."""
    second = tmp_path / "deeper" / "elsewhere"
    second.parent.mkdir()
    git(tmp_path, "clone", "-q", str(project), str(second))
    pulled = [f"{stage}@adaptive" for stage in ("distill", "tokenise", "perplexity", "curate")]
    dvc(second, "pull", "--quiet", "mini/dvc.yaml", *pulled)
    dvc(second, "repro", "--no-run-cache", "score@plain")
    assert (
        run_of(second, "distill/plain")["generated"] > 0 and run_of(second, "train/plain")["students"]["0"]["reused"] is False
    )
    assert git(second, "status", "--porcelain") == ""
