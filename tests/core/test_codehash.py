"""Code hashes: which changes count, and which code a module depends on."""

import ast
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from distillery.core import codehash
from distillery.core.codehash import canonical, changed, digest, stage_hashes

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''
"""What it is."""

import math

LIMIT = 1.5e-7


class Settings:
    """Settings."""

    size: int | None = None
    """In words."""


async def area(*radii: float, scale: float = 2, **more) -> float:
    """An area."""
    if not (radius := max(radii, default=0)):
        raise ValueError(f"no {radii!r:>{10}} of {more['x']:.2f}") from None
    match more:
        case {"unit": "m", **rest} | [1, *rest]:
            return math.pi * radius**2 * scale
    return [x async for x in rest if x][0] + 1j + len(b"x")
'''


def hashed(source: str) -> str:
    return digest(canonical(ast.parse(source)))


def test_the_hash_is_the_same_on_every_python():
    assert hashed(SOURCE) == "a444e7bfc08a85b1"


@pytest.mark.parametrize("python", ["python3.12", "python3.13", "python3.14"])
def test_other_installed_pythons_give_the_same_hashes(python):
    """Runs if that version is installed; without our packages, so YAML is stubbed."""
    if not shutil.which(python) or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{python} is not installed")
    program = (
        "import sys, types, json\n"
        "sys.modules['yaml'] = types.ModuleType('yaml')\n"
        "from distillery.core.codehash import stage_hashes\n"
        "print(json.dumps(stage_hashes()))"
    )
    done = subprocess.run([python, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == stage_hashes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import math", "import math  # for pi"),
        ('"""An area."""', '"""The area."""'),
        ('"""In words."""', '"""In many words."""'),
        ("LIMIT = 1.5e-7", "LIMIT = (\n    1.5e-7\n)"),
        ("scale: float = 2, **more", "scale: float = 2, **more,"),
    ],
)
def test_comments_docstrings_and_layout_keep_the_hash(before, after):
    assert before in SOURCE and hashed(SOURCE.replace(before, after)) == hashed(SOURCE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("size: int | None", "size: int"),
        ("1.5e-7", "1.5e-8"),
        ("scale: float = 2", "scale: float = 2.0"),
        ("async def", "def"),
        ("more['x']", "more['y']"),
        (":.2f", ":.3f"),
        ("from None", ""),
        ("radius**2", "radius*2"),
        ('len(b"x")', 'len(b"")'),
        ("max(radii", 'max("", radii'),
    ],
)
def test_other_changes_change_the_hash(before, after):
    source = SOURCE.replace("async for", "for")
    assert before in source and hashed(source.replace(before, after, 1)) != hashed(source)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project with the same layout."""
    files = {
        "distillery/__init__.py": "",
        "distillery/core/__init__.py": "",
        "distillery/core/base.py": "def shared(): return 1\n",
        "distillery/core/lazy.py": "VALUE = 1\n",
        "distillery/core/started.py": "import distillery.core.base\n",
        "distillery/core/box/__init__.py": "",
        "distillery/core/box/copied.py": "X = 1\n",
        "distillery/core/alone.py": "Y = 1\n",
        "stages/__init__.py": "",
        "stages/one.py": "from distillery.core import base\nif __name__ == '__main__': base.shared()\n",
        "stages/two.py": (
            "def f():\n    from distillery.core.lazy import VALUE\nRUN = 'distillery.core.started'\nif True: f()\n"
        ),
        "stages/three.py": "FOLDER = 'distillery.core.box'\nPLAIN = 'distillery'\nif True: pass\n",
        "mini/__init__.py": "",
        "mini/corpus.py": "if True: pass\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(codehash, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for function in (codehash.modules, codehash.tree_of, codehash.hash_of, codehash.reached_directly):
        function.cache_clear()


def after_change(project: Path, name: str) -> list[str]:
    """The stages whose hash changes with a file."""
    before = stage_hashes()
    path = project / name
    path.write_text(path.read_text() + "Z = 2\n" if "stages" not in name else "Z = 2\n" + path.read_text())
    forget()
    return changed(before, stage_hashes())


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("distillery/core/base.py", ["one", "two"]),
        ("distillery/core/lazy.py", ["two"]),
        ("distillery/core/started.py", ["two"]),
        ("distillery/core/box/copied.py", ["three"]),
        ("distillery/core/alone.py", []),
        ("distillery/core/__init__.py", ["one", "three", "two"]),
        ("stages/one.py", ["one"]),
        ("mini/corpus.py", []),
    ],
)
def test_a_change_affects_stages_that_import_name_or_copy_it(project, name, stages):
    if name == "mini/corpus.py":
        (project / name).write_text("Z = 2\nif True: pass\n")
        forget()
        assert "corpus" in stage_hashes()["mini"]
    else:
        assert after_change(project, name) == stages


def test_a_stale_code_yaml_names_stages_and_command(project, capsys):
    codehash.main()
    assert "changed: mini.corpus, one, three, two" in capsys.readouterr().out
    codehash.main("--check")
    codehash.main()
    assert "no stage changed" in capsys.readouterr().out
    (project / "distillery/core/lazy.py").write_text("VALUE = 2\n")
    forget()
    with pytest.raises(SystemExit, match=r"code.yaml: out of date for two; run `dvc repro code`, and commit code.yaml"):
        codehash.main("--check")
    with pytest.raises(SystemExit, match="usage"):
        codehash.main("--chekc")


def test_the_committed_hashes_match_the_code(monkeypatch):
    monkeypatch.chdir(ROOT)
    codehash.main("--check")
