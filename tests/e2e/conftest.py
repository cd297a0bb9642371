"""A copy of the project in its own repository, shared in sequence by all tests of the full study."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(folder: Path, *command: str, ok: bool = True) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode == 0) is ok, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def dvc(folder: Path, *arguments: str, ok: bool = True) -> str:
    return run(folder, "dvc", *arguments, ok=ok)


def git(folder: Path, *arguments: str) -> str:
    return run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments)


def edit(path: Path, change) -> None:
    settings = yaml.safe_load(path.read_text())
    change(settings)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))


def metrics(folder: Path, name: str) -> dict:
    return json.loads((folder / "metrics" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The project with smaller settings and two teachers."""
    folder = tmp_path_factory.mktemp("project")
    for name in git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines():
        if (ROOT / name).is_file() and not name.endswith("dvc.lock") and not name.startswith(("metrics/", "data/outcomes")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

    def small_world(settings):
        settings["corpus"] = {"seed": 1, "queries": 150, "duplicates": 5, "urls": 2, "tables": 2, "garbage": 4, "twins": 6}
        for benchmark in settings["benchmarks"].values():
            benchmark["levels"] = dict.fromkeys(benchmark["levels"], 3)
        settings["models"]["steps"] = {
            "adaptive": 350,
            "plain": 350,
            "verbose": 10,  # no teacher here
            "base": 150,
            "assistant": 200,
            "reward": 200,
        }

    def small_run(settings):
        settings["teachers"], settings["arms"] = ["adaptive", "plain"], ["adaptive", "plain"]
        settings["distill"]["max_attempts"] = 6
        settings["train"] |= {"processes": 2, "epochs": 2, "global_batch": 2, "micro_batch": 1, "seeds": [0]}
        settings["train"]["checkpoint_minutes"] = 0
        settings["compare"]["resamples"] = 200
        settings["curate"] |= {"ngram": 20, "max_repeats": 40, "max_repetition": 0.3}
        for teacher in settings["teacher"].values():
            teacher["max_perplexity"] = 1e9  # of models that are hardly trained
        for benchmark in settings["evaluate"]["benchmarks"].values():
            benchmark["samples"] = 2

    edit(folder / "mini/params.yaml", small_world)
    edit(folder / "params.yaml", small_run)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "small")
    return folder
