"""Measures what a command costs, and formats the table of results."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cost:
    """Wall and processor seconds of a command with its children, and the most memory that one process held, in MB."""

    wall: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Line:
    """One line of the table: our figure and a baseline's for the same work in the same run, and how many times better."""

    what: str
    ours: str
    peer: str = "-"
    ratio: str = "-"


def run(*arguments: str, folder: Path) -> Cost:
    """Runs ``python -m ...`` in a folder to its end. Raises CalledProcessError where it fails."""
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
    """The most memory that a process has held since it began or `forget_peak`, in MB (a child's rusage counts its parent's)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def forget_peak() -> float:
    """Forgets this process's peak; what it holds now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory("self")


def table(lines: list[Line]) -> str:
    """The lines as text, columns aligned."""
    head = Line("what", "ours", "peer", "ratio")
    cells = [list(vars(line).values()) for line in (head, *lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
