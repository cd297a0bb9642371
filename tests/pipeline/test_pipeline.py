"""dvc.yaml against the code: every stage depends on exactly the modules of ours that it imports."""

import ast
from pathlib import Path

import pytest
import yaml

from stages.verifiers.route import SOURCES

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("stages", "mini")


def imported(path: Path, seen: set[Path]) -> set[Path]:
    """The files of ours that a file imports, at any depth, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            base = ROOT.joinpath(*name.split("."))
            for file in (base.with_suffix(".py"), base / "__init__.py"):
                if name.split(".")[0] in ROOMS and file.exists() and file.stat().st_size and file not in seen:
                    seen.add(file)
                    imported(file, seen)
    return seen


def stages() -> dict[str, tuple[Path, dict]]:
    """Every stage of both pipelines: its own file and its definition."""
    found = {}
    for pipeline in ("dvc.yaml", "mini/dvc.yaml"):
        for name, stage in yaml.safe_load((ROOT / pipeline).read_text())["stages"].items():
            module = stage["cmd"].split()[2]
            found[f"{pipeline}:{name}"] = (ROOT.joinpath(*module.split(".")).with_suffix(".py"), stage)
    return found


@pytest.mark.parametrize("name", stages())
def test_a_stage_depends_on_every_module_it_imports(name):
    own, stage = stages()[name]
    expected = {str(path.relative_to(ROOT)) for path in imported(own, {own})}
    folders = [dep for dep in stage["deps"] if dep.startswith(ROOMS) and (ROOT / dep).is_dir()]
    declared = {dep for dep in stage["deps"] if dep.endswith(".py")}
    assert declared == {path for path in expected if not path.startswith(tuple(folders))}


def test_every_stage_has_a_file_of_its_own_and_every_file_a_stage():
    used = {own.stem for key, (own, _) in stages().items() if key.startswith("dvc.yaml")}
    commands = {"profile", "summary"}
    assert used == {path.stem for path in (ROOT / "stages").glob("[!_]*.py")} - commands


def test_rooms_never_import_stages():
    files = [path for room in (ROOT / "stages").iterdir() if room.is_dir() for path in room.glob("*.py")]
    assert files
    for path in files:
        reached = imported(path, set())
        assert all(other.parent != ROOT / "stages" for other in reached), path


def test_nothing_outside_mini_and_its_profile_knows_it_is_small():
    for path in (ROOT / "stages").rglob("*.py"):
        text = path.read_text()
        assert not any(word in text for word in ("import mini", "from mini", "mini/")), path


def test_gpu_results_are_cached_and_only_their_metrics_are_in_git():
    ignored = (ROOT / ".gitignore").read_text().split()
    for name, (_, stage) in stages().items():
        for metric in stage.get("metrics", []):
            cached = isinstance(metric, str)
            path = metric if cached else next(iter(metric))
            listed = any(f"/{path}".startswith(line) for line in ignored if line.startswith("/metrics"))
            assert cached == listed, f"{name}: {path}"


RUNS_THEM = {f"stages/verifiers/{name}.py" for name in ("__init__", "pool", "futures")}


@pytest.mark.parametrize("verifier", SOURCES)
def test_verdicts_hang_on_every_file_that_their_verifier_reads_a_response_with(verifier):
    listed = {str(Path(str(path)).relative_to(ROOT)) for path in SOURCES[verifier]}
    own = Path(str(SOURCES[verifier][0]))
    read = {str(path.relative_to(ROOT)) for path in imported(own, {own})}
    assert {path for path in read if path.startswith("stages/verifiers/")} - RUNS_THEM <= listed
