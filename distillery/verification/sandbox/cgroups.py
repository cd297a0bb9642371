"""Control groups: limit the memory, the processes and the CPU of a whole sandbox, where the system lets us create them."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "sandbox-"
PERIOD = 100_000
"""Microseconds in which a sandbox may use as many microseconds of CPU: one CPU."""


class CgroupError(OSError):
    """No control group can be made here; the message says why."""


def own(controller: str) -> Path:
    """Where this process is in the hierarchy of a controller ("" is that of version 2)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(path.lstrip("/"))
    raise CgroupError(f"this process is in no cgroup of {controller or 'version 2'}")


class Cgroup:
    """The group of the sandbox ``number``, limited to ``memory`` bytes and so many ``processes``. Versions 1 and 2.

    Raises CgroupError where it cannot be made.
    """

    def __init__(self, number: str, memory: int, processes: int):
        self.folders: list[Path] = []
        self.one_cpu = False
        name = f"{PREFIX}{os.getpid()}-{number}"
        try:
            self.version = 2 if (ROOT / "cgroup.controllers").exists() else 1
            (self._two if self.version == 2 else self._one)(name, memory, processes)
        except OSError as error:
            self.remove()
            raise CgroupError(str(error)) from None

    def _make(self, folder: Path, limits: dict[str, int]) -> None:
        folder.mkdir()
        self.folders.append(folder)
        for file, value in limits.items():
            (folder / file).write_text(str(value))

    def _one(self, name: str, memory: int, processes: int) -> None:
        self._make(ROOT / "memory" / own("memory") / name, {"memory.limit_in_bytes": memory})
        with suppress(OSError):  # where swap is not accounted for
            (self.folders[0] / "memory.memsw.limit_in_bytes").write_text(str(memory))
        self._make(ROOT / "pids" / own("pids") / name, {"pids.max": processes})
        with suppress(OSError):  # where the CPU controller is not there, or not ours
            self._make(ROOT / "cpu" / own("cpu") / name, {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": PERIOD})
            self.one_cpu = True

    def _two(self, name: str, memory: int, processes: int) -> None:
        """Next to our own group, since a group that holds processes cannot have limited children."""
        parent = (ROOT / own("")).parent
        missing = {"memory", "pids"} - set((parent / "cgroup.controllers").read_text().split())
        if missing:
            raise CgroupError(f"{parent}: the controllers {', '.join(sorted(missing))} are not enabled for this group")
        (parent / "cgroup.subtree_control").write_text("+memory +pids")
        self._make(parent / name, {"memory.max": memory, "pids.max": processes})
        with suppress(OSError):
            (self.folders[0] / "memory.swap.max").write_text("0")
        with suppress(OSError):
            (parent / "cgroup.subtree_control").write_text("+cpu")
            (self.folders[0] / "cpu.max").write_text(f"{PERIOD} {PERIOD}")
            self.one_cpu = True

    def entrances(self) -> list[str]:
        """The files that a process writes its PID to, to join the group."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def remove(self) -> None:
        """Kills what is still inside and removes the group; it stays behind only where the kernel keeps a dead process."""
        for folder in self.folders:
            _remove(folder)
        self.folders = []


def _remove(folder: Path, seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            for process in (folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            time.sleep(0.001)


def sweep() -> None:
    """Removes the groups of runs that were killed. A group's name contains the PID of the process that created it."""
    with suppress(OSError):
        places = [ROOT / own("").parent] if (ROOT / "cgroup.controllers").exists() else []
        places += [ROOT / name / own(name) for name in ("memory", "pids", "cpu")] if not places else []
        for folder in (each for place in places for each in place.glob(f"{PREFIX}*")):
            maker = folder.name.removeprefix(PREFIX).split("-")[0]
            if maker.isdigit() and not Path("/proc", maker).exists():
                _remove(folder, 0.1)
