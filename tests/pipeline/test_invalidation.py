"""Which stages a change invalidates, according to DVC, in a pipeline whose outputs are all present.

The copy's outputs are placeholders that DVC records as up to date (`dvc commit`), so these tests take seconds and
still use the real dvc.yaml and DVC.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
JOINT = {"parallel", "analyse", "forecast", "compare", "outcomes", "headline", "report"}
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
    for name in ("distillery", "stages", "mini", "conf"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("world", "world.json", "dvc.lock", "__pycache__")
        )
    for name in ("dvc.yaml", "params.yaml", "README.md", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc(folder, "init", "-q")
    subprocess.run([sys.executable, "-m", "distillery.core.codehash"], cwd=folder, check=True, capture_output=True)
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        for stage in repo.index.stages:
            for out in stage.outs:
                place_holder(Path(out.fs_path), folder)
        for dep in {Path(dep.fs_path) for stage in repo.index.stages for dep in stage.deps}:
            if not dep.exists():
                dep.parent.mkdir(parents=True, exist_ok=True)
                dep.write_text("{}")
    dvc(folder, "commit", "-q", "-f")
    return folder


def place_holder(path: Path, folder: Path) -> None:
    if path.name == "code.yaml":
        return
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"placeholder of {path.name}")
    else:
        path.mkdir(parents=True, exist_ok=True)
        (path / "placeholder").write_text(str(path.relative_to(folder)))


def would_run(folder: Path, *targets: str, downstream: bool = False) -> set[str]:
    """The stages that DVC would run, by name, without running them."""
    from dvc.repo import Repo

    with contextlib.chdir(folder), Repo() as repo:
        return {stage.name for stage in repo.reproduce(list(targets) or None, dry=True, force_downstream=downstream)}


def fill(folder: Path) -> list[Path]:
    """Placeholders for missing outputs, such as new teachers', and inputs in them: a dry run needs the hash of every input."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        named = [Path(each.fs_path) for stage in repo.index.stages for each in (*stage.outs, *stage.deps)]
    missing = [path for path in dict.fromkeys(named) if not path.exists()]
    for path in missing:
        place_holder(path, folder)
    return missing


def after(change, folder: Path, downstream: bool = False) -> set[str]:
    """With params.yaml changed: the stages that must run, or with ``downstream`` all that may run as a consequence."""
    path = folder / "params.yaml"
    before = path.read_text()
    settings = yaml.safe_load(before)
    change(settings)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    new = fill(folder)
    try:
        return would_run(folder, downstream=downstream)
    finally:
        path.write_text(before)
        for each_new in new:
            shutil.rmtree(each_new) if each_new.is_dir() else each_new.unlink()


def after_edits(folder: Path, edits: list[tuple[str, str, str]]) -> set[str]:
    """With files edited and code.yaml updated: the stages that DVC would run, except `code`."""
    texts = {folder / name: (folder / name).read_text() for name in ("code.yaml", *(name for name, *_ in edits))}
    for name, old, new in edits:
        assert old in texts[folder / name], f"{name} has no {old}"
        (folder / name).write_text(texts[folder / name].replace(old, new, 1))
    try:
        subprocess.run([sys.executable, "-m", "distillery.core.codehash"], cwd=folder, check=True, capture_output=True)
        return would_run(folder) - {"code"}
    finally:
        for each_path, text in texts.items():
            each_path.write_text(text)


def each(stages: set[str], teachers=TEACHERS) -> set[str]:
    return {f"{stage}@{teacher}" for stage in stages for teacher in teachers}


AFTER_PARALLEL = JOINT | each(OF_EACH_STUDENT)


def test_without_changes_nothing_runs(pipeline):
    assert would_run(pipeline) == set()


SETTINGS = {
    "one teacher's temperature": (lambda p: p["teacher"]["verbose"]["sampling"].update(temperature=0.7), {"distill@verbose"}),
    "the learning rate": (lambda p: p["train"].update(learning_rate=1e-5), each({"train"}) | {"report"}),
    "a perplexity threshold": (lambda p: p["teacher"]["plain"].update(max_perplexity=2.5), {"curate@plain"}),
    "the price": (lambda p: p["price"].update(device_hour=2.0), each({"curate"})),
    "the headline": (lambda p: p["headline"].update(arm="plain"), {"headline"}),
    "an arm": (
        lambda p: p["arm"].update(unused={"teachers": ["plain"]}),
        {"parallel", "analyse", "forecast", "headline", "report"},
    ),
    "another seed": (lambda p: p["train"]["seeds"].append(9), each({"train", "evaluate"}) | {"headline", "report"}),
    "the report's text": (lambda p: p["report"].update(note="hello"), {"report"}),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_setting_reruns_the_stages_that_read_it(pipeline, what):
    change, expected = SETTINGS[what]
    assert after(change, pipeline) == expected


def test_one_teachers_temperature_affects_its_chain_and_the_joint_stages(pipeline):
    change, _ = SETTINGS["one teacher's temperature"]
    chain = each({"distill", "tokenise", "perplexity", "curate"}, ["verbose"])
    assert after(change, pipeline, downstream=True) == chain | AFTER_PARALLEL


def test_the_learning_rate_affects_train_and_later_stages(pipeline):
    change, _ = SETTINGS["the learning rate"]
    after_train = each({"train", "evaluate", "score"}) | {"compare", "outcomes", "headline", "report"}
    assert after(change, pipeline, downstream=True) == after_train


def test_the_lock_names_no_path_outside_the_project(pipeline):
    lock = yaml.safe_load((pipeline / "dvc.lock").read_text())
    assert str(pipeline) not in json.dumps(lock)


def test_a_code_edit_first_reruns_only_the_code_stage(pipeline):
    path = pipeline / "stages/clean.py"
    text = path.read_text()
    path.write_text(text.replace("LONGEST_END = 64", "LONGEST_END = 65"))
    try:
        assert would_run(pipeline, "code") == {"code"}
    finally:
        path.write_text(text)


def test_comments_docstrings_and_the_readme_run_nothing(pipeline):
    edits = [
        ("distillery/core/files.py", "import json\n", "import json  # for metrics\n"),
        ("distillery/training/packing.py", "Packing kernels", "The packing kernels"),
        ("stages/distill.py", "\nfrom", "\n# a comment\nfrom"),
        ("README.md", "# ", "# The "),
    ]
    assert after_edits(pipeline, edits) == set()


CODE = {
    "packing kernel": ("distillery/training/packing.py", "leaves *= 2", "leaves *= 4", each({"pack"})),
    "sandbox": (
        "distillery/verification/sandbox/inside/children.py",
        "NOFILE",
        "NPROC",
        each({"distill", "evaluate"}) | {"evaluate_base"},
    ),
    "small world": ("mini/chat_problems.py", "def chat(", "X = 1\n\n\ndef chat(", {"corpus", "models"}),
    "training loop": ("distillery/training/trainer.py", "logging_steps=1", "logging_steps=2", each({"train"})),
}


@pytest.mark.parametrize("what", CODE)
def test_a_code_change_reruns_the_stages_that_use_it(pipeline, what):
    name, old, new, expected = CODE[what]
    assert after_edits(pipeline, [(name, old, new)]) == expected


def rename(settings: dict, old: str, new: str) -> None:
    settings["teachers"] = [new if name == old else name for name in settings["teachers"]]
    settings["arms"] = settings["teachers"]
    settings["teacher"][new] = settings["teacher"].pop(old)
    if settings["headline"]["arm"] == old:
        settings["headline"]["arm"] = new


def chosen(settings: dict, names: list[str]) -> None:
    """Only these teachers; new ones are copies of `plain`."""
    settings["teachers"], settings["arms"] = names, list(names)
    settings["teacher"] = {name: settings["teacher"].get(name, settings["teacher"]["plain"]) for name in names}
    settings["headline"]["arm"] = names[0]


OF_TEACHER = {"assets_teacher", "distill", "tokenise", "perplexity", "curate", *OF_EACH_STUDENT}
TEACHER_SETS = {
    "one": (lambda p: chosen(p, ["plain"]), []),
    "two": (lambda p: chosen(p, ["verbose", "plain"]), []),
    "five": (lambda p: chosen(p, [*TEACHERS, "fourth", "fifth"]), ["fourth", "fifth"]),
    "one renamed": (lambda p: rename(p, "verbose", "wordy"), ["wordy"]),
}


@pytest.mark.parametrize("what", TEACHER_SETS)
def test_changing_teachers_in_params_does_not_rerun_the_others(pipeline, what):
    """Only the new teachers' chains, the joint stages, `assets`, which checks names, and `pack`, which may use any's tokens."""
    change, new = TEACHER_SETS[what]
    at_once = after(change, pipeline)
    assert at_once - {"headline"} <= each(OF_TEACHER, new) | each({"pack"}) | {"assets"} | (JOINT - {"headline"})
    assert {"assets", "parallel", "analyse", "compare", "report"} <= at_once
    assert each(OF_TEACHER, new) <= at_once


def test_a_new_arm_reruns_no_other_arm(pipeline):
    def change(settings):
        settings["arms"].append("short")
        settings["arm"]["short"] = {"teachers": ["adaptive"], "take": "shortest"}

    assert after(change, pipeline) == each(OF_EACH_STUDENT, ["short"]) | JOINT


def test_an_empty_teacher_list_is_a_clear_error(pipeline):
    path = pipeline / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("teachers:\n- adaptive\n- verbose\n- plain\n", "teachers: []\n"))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(["dvc", "repro", "assets"], cwd=pipeline, capture_output=True, text=True, env=environment)
    finally:
        path.write_text(before)
    assert done.returncode and "params.yaml: teachers: empty; name at least one" in done.stdout + done.stderr
    dvc(pipeline, "checkout", "-q")
