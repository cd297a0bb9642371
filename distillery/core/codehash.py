"""Hashes of code without comments: an edited comment re-runs nothing, a changed packing kernel re-runs what packs.

``python -m distillery.core.codehash`` writes code.yaml: for each stage, a hash over its module and every module of ours that
it reaches. dvc.yaml names that hash as the stage's parameter. ``--check`` writes nothing and fails where the file is stale.

Code is hashed as its syntax tree without docstrings: comments and layout do not count, annotations do (a settings class is
made of them). The tree is serialized by our own rules, because `ast.dump` differs from one Python version to the next.

A module reaches what it imports, anywhere in it, and what it names: a string that is the full dotted name of one of our
modules counts as an import (a process started with ``-m``), that of a package as an import of everything in the package (the
folder that is copied into the sandbox).
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from distillery.core.files import write_text
from distillery.core.stage import run_stage

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("distillery", "stages", "mini")
CODE = Path("code.yaml")
DIGITS = 16
IGNORED_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}
HEADER = "# Written by `dvc repro code`: for each stage, a hash of the code that it reaches (distillery/core/codehash.py).\n"


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name, packages included."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def canonical(node: Any) -> Any:
    """A syntax tree as nested lists for JSON: the same on every version of Python, without docstrings and empty fields."""
    if isinstance(node, list):
        return [canonical(each) for each in node if not _is_docstring(each)]
    if not isinstance(node, ast.AST):
        return [type(node).__name__, repr(node)]
    fields = {name: value for name, value in ast.iter_fields(node) if name not in IGNORED_FIELDS}
    if isinstance(node, ast.JoinedStr):  # some versions of Python end a format specification with an empty string
        fields["values"] = [part for part in node.values if not isinstance(part, ast.Constant) or part.value]
    return [type(node).__name__, *([name, canonical(value)] for name, value in fields.items() if value not in (None, []))]


def _is_docstring(node: Any) -> bool:
    """Whether a statement is a bare string: a docstring, or the description under a settings field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:DIGITS]


@cache
def hash_of(name: str) -> str:
    """The hash of one module alone, or of one function or class in it: ``distillery.core.chat:end_of_turn``."""
    module, _, wanted = name.partition(":")
    tree = tree_of(module)
    if not wanted:
        return digest(canonical(tree))
    (node,) = (each for each in tree.body if getattr(each, "name", None) == wanted)
    return digest(canonical(node))


def hash_code(names: Iterable[str]) -> str:
    """One hash over modules, or functions in them, listed by hand: what the identity of a result depends on."""
    return digest([[name, hash_of(name)] for name in sorted(names)])


@cache
def reached_directly(module: str) -> frozenset[str]:
    """What a module imports or names, and the packages that these and it are in."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and "." in str(node.value) and node.value in modules():
            found |= {node.value} | {name for name in modules() if name.startswith(f"{node.value}.")}
    found |= {name.rpartition(".")[0] for name in found | {module}}
    return frozenset(found & modules().keys())


def reached(module: str) -> list[str]:
    """The module and every module of ours that it reaches, sorted."""
    found, todo = {module}, [module]
    while todo:
        new = reached_directly(todo.pop()) - found
        found |= new
        todo += new
    return sorted(found)


def stage_hashes() -> dict[str, Any]:
    """The content of code.yaml: a hash per stage, those of the small world under ``mini``."""
    of_module = {name: hash_code(reached(name)) for name in modules() if is_command(name)}
    stages = {name.removeprefix("stages."): value for name, value in of_module.items() if name.startswith("stages.")}
    mini = {name.removeprefix("mini."): value for name, value in of_module.items() if name.startswith("mini.")}
    return stages | {"mini": mini}


def is_command(module: str) -> bool:
    """Whether a module of the stages or of the small world runs as a command."""
    last = tree_of(module).body[-1:]
    return module.split(".")[0] in ("stages", "mini") and bool(last) and isinstance(last[0], ast.If)


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The stages whose hash differs, those of the small world as ``mini.corpus``."""

    def flat(hashes: dict[str, Any]) -> dict[str, str]:
        return {key: value for key, value in hashes.items() if key != "mini"} | {
            f"mini.{key}": value for key, value in hashes.get("mini", {}).items()
        }

    before, after = flat(old), flat(new)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def main(*arguments: str) -> None:
    if arguments not in ((), ("--check",)):
        sys.exit("usage: python -m distillery.core.codehash [--check]")
    old = yaml.safe_load(CODE.read_text()) if CODE.exists() else {}
    stages = changed(old or {}, new := stage_hashes())
    if not arguments:
        write_text(HEADER + yaml.safe_dump(new), CODE)
        print(f"code: {'changed: ' + ', '.join(stages) if stages else 'no stage changed'}")
    elif stages:
        sys.exit(f"{CODE}: out of date for {', '.join(stages)}; run `dvc repro code`, and commit code.yaml and dvc.lock")


if __name__ == "__main__":
    run_stage(main)
