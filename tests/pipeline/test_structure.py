"""Project structure: imports allowed between packages, stage conventions, and dvc.yaml against the code."""

import ast
import dataclasses
import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml

from distillery.core import codehash
from distillery.core.codehash import modules, reached, reached_directly, tree_of
from distillery.core.config import Section
from distillery.training.store import IDENTITY_CODE
from distillery.verification.registry import VERIFIERS

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "core": set(),
    "corpus": {"core"},
    "generation": {"core", "corpus"},
    "verification": {"core", "generation"},
    "training": {"core", "corpus"},
    "evaluation": {"core", "generation", "verification"},
    "reader": {"core", "evaluation"},
}
LIBRARY = [name for name in modules() if name.startswith("distillery.") and name.count(".") > 1]


def package(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_package_imports_only_packages_above_it(name):
    for module in LIBRARY:
        if package(module) == name:
            others = {package(each) for each in reached_directly(module) if each.count(".") > 1}
            assert others - {name} <= MAY_IMPORT[name], module


def test_the_packages_are_as_listed_and_none_is_empty():
    folders = {path.parent for path in (ROOT / "distillery").rglob("__init__.py")} - {ROOT / "distillery"}
    assert {folder.name for folder in folders if folder.parent.name == "distillery"} == MAY_IMPORT.keys()
    assert all(len(list(folder.glob("*.py"))) > 1 for folder in folders)


def test_no_module_imports_a_stage():
    """But the check of all settings, which no module imports."""
    check = "distillery.check_settings"
    assert not any(check in reached_directly(module) for module in modules())
    for module in modules().keys() - {check}:
        stages = {name for name in reached_directly(module) if name.startswith("stages.")}
        assert not stages, module


def test_no_module_shadows_the_standard_library():
    names = {name.rpartition(".")[2] for name in modules()} - {"__main__"}
    assert not names & sys.stdlib_module_names


def test_only_mini_refers_to_mini():
    for module, path in modules().items():
        if not module.startswith("mini"):
            assert not re.search(r"import mini|from mini|mini/world", path.read_text()), path


def test_only_stages_name_paths_of_data_models_and_metrics():
    named = re.compile(r'"(?:data|models|metrics)/')
    allowed = {
        "distillery.core.model_locks",
        "distillery.generation.ledger_sharing",
        "distillery.training.worker",
        "distillery.training.store",
        "distillery.evaluation.compare_arms",
        "distillery.evaluation.model_values",
        "distillery.evaluation.model_card",
        "distillery.evaluation.pilot",
        "distillery.evaluation.publish",
        "distillery.evaluation.settling",
        "distillery.evaluation.summary",
        "distillery.reader.server",
        "distillery.reader.sources",
    }
    found = {module for module in LIBRARY if named.search(ast.unparse(without_docstrings(module)).replace("'", '"'))}
    assert found <= allowed


def without_docstrings(module: str) -> ast.Module:
    tree = ast.parse(modules()[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [each for each in node.body if not codehash._is_docstring(each)] or [ast.Pass()]
    return tree


def settings_classes() -> list[type]:
    found = {}
    for name in [*LIBRARY, *(each for each in modules() if each.startswith(("stages.", "mini.")))]:
        if ".inside" in name:
            continue
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and issubclass(value, Section) and value is not Section:
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_settings_field_has_a_docstring(kind):
    (node,) = (n for n in ast.walk(tree_of(kind.__module__)) if isinstance(n, ast.ClassDef) and n.name == kind.__name__)
    own = [each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    documented = {
        field.target.id
        for field, after in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and codehash._is_docstring(after)
    }
    assert set(own) - {"_", "kind"} <= documented
    assert set(own) <= {field.name for field in dataclasses.fields(kind)} | {"_"}


def pipelines() -> dict[str, dict]:
    """Every stage of both pipelines."""
    return {
        f"{path}:{name}": stage
        for path in ("dvc.yaml", "mini/dvc.yaml")
        for name, stage in yaml.safe_load((ROOT / path).read_text())["stages"].items()
    }


STAGES = {name: stage for name, stage in pipelines().items() if name != "dvc.yaml:code"}


@pytest.mark.parametrize("name", STAGES)
def test_stages_depend_on_code_only_through_its_hash(name):
    stage = STAGES[name]
    module = stage["cmd"].split()[2]
    assert module in modules() and codehash.is_command(module)
    hashes = [each["code.yaml"] for each in stage["params"] if isinstance(each, dict) and "code.yaml" in each]
    assert hashes == [[module.removeprefix("stages.")]]
    assert not any(dep.endswith(".py") or dep.rstrip("/") in ("distillery", "stages", "mini") for dep in stage.get("deps", []))


def test_every_stage_command_is_in_a_dvc_yaml():
    commands = {stage["cmd"].split()[2] for stage in STAGES.values()}
    assert commands == {name for name in modules() if codehash.is_command(name)}


def test_the_stage_code_depends_on_all_code():
    deps = pipelines()["dvc.yaml:code"]["deps"]
    assert {"distillery", "stages"} <= set(deps)
    mini = {f"mini/{path.name}" for path in (ROOT / "mini").glob("*.py")}
    assert mini == {dep for dep in deps if dep.startswith("mini/")}


def test_gpu_results_are_cached_and_only_their_metrics_are_in_git():
    ignored = (ROOT / ".gitignore").read_text().split()
    for name, stage in STAGES.items():
        for metric in stage.get("metrics", []):
            cached = isinstance(metric, str)
            path = metric if cached else next(iter(metric))
            listed = any(f"/{path}".startswith(line) for line in ignored if line.startswith("/metrics"))
            assert cached == listed, f"{name}: {path}"


PLUMBING = {f"distillery.verification.{name}" for name in ("process_pool", "verdict", "futures")}
"""These pass verdicts on, but do not decide them."""


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verifiers_code_lists_every_module_that_it_uses(name):
    entry = VERIFIERS[name]
    read = {each for each in reached(entry.code[0]) if each.startswith("distillery.verification.") and each in modules()}
    modules_only = {each for each in read if modules()[each].name != "__init__.py"}
    assert modules_only - PLUMBING <= set(entry.code)
    assert all(each in modules() for each in entry.code)


def test_the_training_identity_covers_the_code_that_computes_weights():
    weights = {"distillery.training.trainer", "distillery.training.packed_dataset"}
    assert weights <= set(IDENTITY_CODE)
    reached_by_trainer = {each for each in reached("distillery.training.trainer") if ".training." in each}
    no_weights = {
        f"distillery.training.{name}"
        for name in ("config", "launch", "packed_files", "worker", "callbacks", "leakage", "store", "memory", "resume")
    }
    assert reached_by_trainer - no_weights - {"distillery.training.throughput"} <= set(IDENTITY_CODE)
