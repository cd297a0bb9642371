import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"_mix", "_counters", "_grown", "unbalanced"}
"""Parts of others, and what only large or damaged data need."""


@pytest.mark.slow
def test_every_compiled_function_is_compiled_at_installation(tmp_path):
    sources = [*ROOT.glob("distillery/**/*.py"), *ROOT.glob("stages/*.py")]
    names = {name for path in sources for name in re.findall(r"@njit\(.*\)\ndef (\w+)", path.read_text())}
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "scripts.compile_kernels"], cwd=ROOT, env=environment, check=True)
    compiled = {path.name.split("-")[0].rpartition(".")[2] for path in tmp_path.glob("**/*.nbi")}
    assert names - ELSEWHERE == compiled
