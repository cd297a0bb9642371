"""Measures the cost of a command and formats the results table."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of a command with its children, and the peak memory of its process in MB."""

    wall: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Line:
    """One table row: our figure, the baseline's for the same work in the same run, and their ratio."""

    what: str
    ours: str
    peer: str = "-"
    ratio: str = "-"


def run(*arguments: str, folder: Path) -> Cost:
    """Runs ``python -m ...`` in a folder. Raises CalledProcessError on failure."""
    command = [sys.executable, "-m", *arguments]
    quiet = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment = os.environ | quiet | {"PYTHONPATH": str(ROOT)}
    begun, most = time.monotonic(), 0.0
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    while True:
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        most = max(most, peak_memory(process.pid))
        time.sleep(0.02)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return Cost(time.monotonic() - begun, used.ru_utime + used.ru_stime, most)


def peak_memory(pid: int | str) -> float:
    """Peak memory of a process since its start or `forget_peak`, in MB (a child's rusage includes its parent's)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def forget_peak() -> float:
    """Resets this process's peak; returns current use in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory("self")


def table(lines: list[Line]) -> str:
    """Formats the lines as aligned columns."""
    head = Line("what", "ours", "peer", "ratio")
    cells = [list(vars(line).values()) for line in (head, *lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
