"""What a change invalidates, asked of DVC itself, over a pipeline whose outputs are all in place.

The copy's outputs are empty files that DVC is told to take as they are (`dvc commit`), so these tests take seconds and
still ask the real dvc.yaml and the real DVC.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
JOINT = {"parallel", "analyse", "compare", "headline", "report"}
OF_EACH_STUDENT = {"pack", "train", "evaluate", "score"}
TEACHERS = ("adaptive", "verbose", "plain")

pytestmark = pytest.mark.slow


def dvc(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A copy of the project, every output a small placeholder, committed to DVC as up to date."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name in ("stages", "mini", "conf"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("world", "world.json", "dvc.lock", "__pycache__")
        )
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc(folder, "init", "-q")
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        for stage in repo.index.stages:
            for out in stage.outs:
                path = Path(out.fs_path)
                if path.suffix:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(f"placeholder of {path.name}")
                else:
                    path.mkdir(parents=True, exist_ok=True)
                    (path / "placeholder").write_text(str(path.relative_to(folder)))
        for dep in {Path(dep.fs_path) for stage in repo.index.stages for dep in stage.deps}:
            if not dep.exists():
                dep.parent.mkdir(parents=True, exist_ok=True)
                dep.write_text("{}")
    dvc(folder, "commit", "-q", "-f")
    return folder


def would_run(folder: Path, *options: str) -> set[str]:
    """The stages that DVC would run, by name, without running them."""
    lines = dvc(folder, "repro", "--dry", *options).splitlines()
    return {line.split("'")[1].split(":")[-1] for line in lines if line.startswith("Running stage")}


def after(change, folder: Path) -> tuple[set[str], set[str]]:
    """With params.yaml changed: the stages that must run, and all that could come to run after them."""
    path = folder / "params.yaml"
    before = path.read_text()
    settings = yaml.safe_load(before)
    change(settings)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    try:
        return would_run(folder), would_run(folder, "--force-downstream")
    finally:
        path.write_text(before)


def each(stages: set[str], teachers=TEACHERS) -> set[str]:
    return {f"{stage}@{teacher}" for stage in stages for teacher in teachers}


AFTER_PARALLEL = JOINT | each(OF_EACH_STUDENT)


def test_nothing_changed_nothing_runs(pipeline):
    assert would_run(pipeline) == would_run(pipeline, "--force-downstream") == set()


def test_one_teachers_temperature_touches_its_chain_and_what_joins_it(pipeline):
    at_once, at_most = after(lambda p: p["teacher"]["verbose"]["sampling"].update(temperature=0.7), pipeline)
    assert at_once == {"distill@verbose", "parallel"}, "the data sets' cards state the temperature"
    assert at_most == each({"distill", "tokenise", "perplexity", "curate"}, ["verbose"]) | AFTER_PARALLEL


def test_another_learning_rate_touches_nothing_before_train(pipeline):
    at_once, at_most = after(lambda p: p["train"].update(learning_rate=1e-5), pipeline)
    assert at_once == each({"train"})
    assert at_most == each({"train", "evaluate", "score"}) | {"compare", "headline", "report"}


def test_another_perplexity_threshold_touches_no_gpu_before_training(pipeline):
    at_once, at_most = after(lambda p: p["teacher"]["plain"].update(max_perplexity=3.0), pipeline)
    assert at_once == {"curate@plain", "parallel"}
    assert at_most == {"curate@plain"} | AFTER_PARALLEL


def test_another_headline_runs_the_headline_alone(pipeline):
    assert after(lambda p: p["headline"].update(teacher="plain"), pipeline) == ({"headline"}, {"headline"})


def test_another_report_text_runs_the_report_alone(pipeline):
    assert after(lambda p: p["report"].update(note="hello"), pipeline) == ({"report"}, {"report"})


def test_the_lock_names_no_path_outside_the_project(pipeline):
    lock = yaml.safe_load((pipeline / "dvc.lock").read_text())
    assert str(pipeline) not in json.dumps(lock)
