"""scripts/pilot.sh in a small repository, with stand-ins for what it starts: what its work tree holds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"""#!/bin/bash
[ "$1" != -c ] || exec {sys.executable} "$@"
mkdir -p metrics && echo "{{}}" >metrics/pilot.json
"""


@pytest.fixture
def project(inside):
    """A repository at its first commit, and the environment in which `dvc` and the project's modules do nothing."""
    programs = inside / "bin"
    programs.mkdir()
    for name, text in {"python": PYTHON, "dvc": "#!/bin/bash\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    root = inside / "project"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/pilot.sh", root / "scripts")
    (root / "params.yaml").write_text("world: mine/data\n")
    (root / ".gitignore").write_text(".pilot\n.ledger\n.checkpoints\n/data\nmetrics\n")
    for command in ("init -q", "add -A", "-c user.name=t -c user.email=t@localhost commit -qm first"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    return root, os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}


def test_data_that_is_not_committed_is_there_as_it_is_now(project):
    root, environment = project
    for text in ("first", "second"):
        (root / "mine/data").mkdir(parents=True, exist_ok=True)
        (root / "mine/data/rows.jsonl").write_text(text)
        done = subprocess.run(["bash", "scripts/pilot.sh"], cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (root / ".pilot/mine/data/rows.jsonl").read_text() == text
    assert (root / "data/pilot/pilot.json").exists()
