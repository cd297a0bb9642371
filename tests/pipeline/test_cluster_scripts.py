"""The scripts for Slurm, with commands of the test's own in place of sbatch, dvc and vllm."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from distillery.core.files import write_json

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts/slurm").iterdir())
TEACHERS = ["one", "two", "three"]


@pytest.fixture
def cluster(inside):
    """A project folder whose commands write their arguments to ``calls``; `made` makes a command out of a shell program."""
    (inside / ".venv/bin").mkdir(parents=True)
    (inside / ".venv/bin/python").symlink_to(sys.executable)
    (inside / "scripts").symlink_to(ROOT / "scripts")
    shutil.copy(ROOT / "dvc.yaml", inside / "dvc.yaml")
    (inside / "params.yaml").write_text(f"teachers: [{', '.join(TEACHERS)}]\narms: [{', '.join(TEACHERS)}]\n")
    return inside


PARSED = f"{sys.executable} -c 'import sys; from dvc.cli import parse_args; parse_args(sys.argv[1:])' \"$@\" || exit 255"
"""DVC's own parser, which knows what DVC would have refused."""


def made(folder: Path, name: str, program: str) -> None:
    path = folder / ".venv/bin" / name
    checked = PARSED if name == "dvc" else ""
    path.write_text(f"#!/bin/bash\necho \"$@\" >>'{folder}/calls'\n{checked}\n{program}\n")
    path.chmod(0o755)


def environment(folder: Path, **variables: str) -> dict[str, str]:
    path = f"{folder}/.venv/bin:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | variables


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, env=environment(folder, **variables), capture_output=True, text=True)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_shell(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", "--shell=bash", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def items() -> set[str]:
    """Every stage of dvc.yaml, with each teacher where it has teachers."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {f"{name}@{each}" if "matrix" in about else name for name, about in stages.items() for each in TEACHERS}


def needed_by_dvc() -> dict[str, set[str]]:
    """The stages whose outputs each stage depends on, as dvc.yaml says it."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made_by: dict[str, str] = {}
    for name, about in stages.items():
        for kind in ("outs", "metrics"):
            made_by |= {next(iter(out)) if isinstance(out, dict) else out: name for out in about.get(kind, [])}
    return {
        name: {
            maker for dep in about.get("deps", []) for out, maker in made_by.items() if out == dep or out.startswith(f"{dep}/")
        }
        for name, about in stages.items()
    }


def test_every_stage_is_submitted_once_after_those_that_it_needs(cluster):
    made(cluster, "sbatch", f"wc -l <'{cluster}/calls'")
    done = run(cluster, "scripts/slurm/submit.sh", SBATCH_ALL="--account=mine", SBATCH_TRAIN="--gpus-per-node=8")
    assert done.returncode == 0, done.stderr
    submitted = [re.search(r"--job-name=(\S+)", call)[1] for call in calls(cluster)]  # type: ignore[index]
    assert sorted(submitted) == sorted(items())
    assert all(
        "--account=mine" in call and call.endswith(f"stage.sbatch {name}")
        for call, name in zip(calls(cluster), submitted, strict=True)
    )
    on_gpus = {name.split("@")[0] for call, name in zip(calls(cluster), submitted, strict=True) if "--gpus-per-node=8" in call}
    assert on_gpus == {"train"}
    waits_for: dict[str, set[str]] = {}
    for call, name in zip(calls(cluster), submitted, strict=True):
        jobs = re.search(r"afterok:(\S+)", call)
        direct = {submitted[int(job) - 1] for job in jobs[1].split(":")} if jobs else set()
        waits_for[name] = direct | {each for other in direct for each in waits_for[other]}
    for stage, needed in needed_by_dvc().items():
        for name in submitted:
            if name.split("@")[0] == stage:
                assert needed <= {each.split("@")[0] for each in waits_for[name]} | {"code"}, name


def test_a_stage_job_runs_one_stage(cluster):
    made(cluster, "dvc", "")
    assert run(cluster, "bash", "scripts/slurm/stage.sbatch", "train@one").returncode == 0
    assert calls(cluster) == ["--wait-for-lock repro --single-item train@one"]


def test_params_that_name_no_teacher_start_nothing(cluster):
    for name in ("dvc", "sbatch"):
        made(cluster, name, "echo 1")
    (cluster / "params.yaml").write_text("teachers: []\narms: [one]\n")
    done = run(cluster, "scripts/slurm/submit.sh")
    assert done.returncode != 0 and "name at least one" in done.stderr and not (cluster / "calls").exists()


SERVER = """
while [ "$1" != --port ]; do shift; done
exec python -c 'import http.server, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()' "$2"
"""


def serve(folder: Path, program: str) -> subprocess.Popen:
    write_json({"id": "org/model", "local": False, "revision": "c0ffee"}, folder / "models/locks/teachers/one.json")
    made(folder, "vllm", program)
    variables = {"SERVE_HOST": "127.0.0.1", "SERVE_BIND": "127.0.0.1", "SERVE_POLL": "0.1", "SLURM_ARRAY_TASK_ID": "3"}
    command = ["bash", "scripts/slurm/serve.sbatch", "teachers/one", "--tensor-parallel-size", "8"]
    return subprocess.Popen(command, cwd=folder, env=environment(folder, **variables), stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_a_server_is_listed_while_it_answers(cluster):
    job = serve(cluster, SERVER)
    listed = cluster / ".servers/teachers/one/local-3"
    while not listed.exists():
        assert job.poll() is None
        time.sleep(0.05)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1\n", listed.read_text())
    (call,) = calls(cluster)
    assert call.startswith("serve org/model --revision c0ffee --served-model-name one --host 127.0.0.1 --port ")
    assert call.endswith("--tensor-parallel-size 8")
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) != 0 and not listed.exists()


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_a_server_that_ends_early_is_an_error(cluster):
    job = serve(cluster, "exit 3")
    assert job.wait(20) == 1 and job.stderr and "teachers/one: the server ended before it answered" in job.stderr.read()
    assert not (cluster / ".servers").exists()
