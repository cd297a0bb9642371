"""What make's targets run, and what their variables mean."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def commands(*arguments):
    """The Python commands that a target would run."""
    done = subprocess.run(["make", "--dry-run", *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
    return [line for line in done.stdout.splitlines() if "python -m" in line]


def test_a_run_begins_with_the_check():
    modules = [line.split()[2] for line in commands("repro")]
    assert modules[:2] == ["distillery.check_settings", "distillery.core.pipeline"]


@pytest.mark.parametrize(
    ("target", "variable", "flag"), [("publish", "PUSH", "--push"), ("publish", "PUBLIC", "--public"), ("gc", "FREE", "--free")]
)
def test_only_a_1_is_a_yes(target, variable, flag):
    (line,) = commands(target, f"{variable}=1")
    assert flag in line
    for other in ("0", "no", ""):
        (line,) = commands(target, f"{variable}={other}")
        assert flag not in line


def test_a_split_is_no_revision():
    (line,) = commands("inspect", "DATA=a b", "SPLIT=test")
    assert line.endswith('distillery.verification.inspect_traces "a b" "" "test"')
