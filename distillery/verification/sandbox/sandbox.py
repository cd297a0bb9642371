"""The sandbox: programs that a model wrote run here and nowhere else.

One bubblewrap sandbox per program, one child process per test (inside/). What a program can see is the system's /usr and
the Python that runs this project, read only, an empty /tmp of its own, and no network. What it can give back is data.

Covered, and tested with hostile programs (tests/verification/sandbox/test_sandbox.py):

- reading the project, home folders, /etc, the environment, other processes; writing anywhere but the sandbox's own /tmp
- the network, raw devices, mounts, further user namespaces, gaining privileges (no_new_privs, no capabilities)
- endless loops, fork bombs, unbounded memory, output, files and recursion; daemons that stay behind
- signals to the server, tracing it, forging its answers, taking over its pipes; faked equality, patched ``json`` or
  builtins, early exits: only inputs go in, and results are compared outside, as data

Not covered: a bug in the kernel reached through a system call (there is no seccomp filter), side channels such as
timing and load, and, where no cgroup can be made, memory that several processes of one program use together.
"""

import compileall
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from distillery.core.config import Positive, PositiveFloat, Section
from distillery.core.errors import SandboxError
from distillery.verification.sandbox.cgroups import Cgroup, CgroupError, sweep
from distillery.verification.sandbox.inside.values import decode, encode

INSIDE = Path(str(files("distillery.verification.sandbox.inside")))
"""Copied into every sandbox; a change in it is a change of this module's code."""
OWN_BUBBLEWRAP = Path(sys.prefix) / "bubblewrap" / "usr" / "bin" / "bwrap"
MEBIBYTE = 2**20
GRACE = 5.0
# Settings of the whole machine that /proc offers. Where the pipeline runs as root, a program inside is root too as far as
# these files' owner goes: `--uid` only renames it. So they are mounted read-only, whoever the caller is. /sys is not mounted.
KERNEL_SETTINGS = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi")
STANDARD = ("-std=c++20", "-O2")
COMPILE_SECONDS, COMPILE_MEMORY = 30.0, 2048
LARGEST_FRAME = 8 * MEBIBYTE
__all__ = ["Answer", "Limits", "Sandbox", "SandboxError", "Session", "decode", "encode", "find_bubblewrap"]


@dataclass(frozen=True)
class Limits(Section):
    """What a program may use."""

    seconds: PositiveFloat
    """Per test; ten tests together may take three times as long."""
    memory: Positive
    """MiB, for the whole program with all its processes."""
    output: Positive
    """MiB of output per test."""
    processes: Positive
    """Processes and threads at any time."""
    tests: Positive = 10
    """How many of its tests are run, the first ones."""


@dataclass(frozen=True)
class Answer:
    """What a program did: ``status`` is ok, error, timeout, flood or dead; then its output, frame, or why not."""

    status: str
    output: str = ""
    frame: Any = None
    why: str = ""


def find_bubblewrap() -> str:
    """The bubblewrap to use: the system's, or the one that set-up unpacked. Raises SandboxError where there is none."""
    found = shutil.which("bwrap") or (str(OWN_BUBBLEWRAP) if OWN_BUBBLEWRAP.exists() else None)
    if not found:
        raise SandboxError("bubblewrap is not installed; install your system's package `bubblewrap`, or run `make setup`")
    return found


def find_compiler() -> str | None:
    """The C++ compiler of the system, which must be under /usr for the sandbox to see it."""
    found = shutil.which("g++", path="/usr/bin:/usr/local/bin")
    return os.path.realpath(found) if found else None


def _read_only(paths: tuple[str, ...]) -> Iterator[str]:
    """Bubblewrap's arguments that mount the paths that exist here, read-only."""
    for path in paths:
        if Path(path).exists():
            yield from ("--ro-bind", path, path)


class Sandbox:
    """Makes sessions. Raises SandboxError at once where none can be made."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.bubblewrap = find_bubblewrap()
        self.compiler = find_compiler()
        self.header: Path | None = None
        self.lock, self.number = threading.Lock(), 0
        self.cgroups: str | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
        self.inside = shutil.copytree(INSIDE, self.folder / "inside", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(self.inside, quiet=2)
        sweep()
        try:
            cgroup = self._cgroup(self.limits.memory)
            self.cgroups = f"cgroup version {cgroup.version}"
            cgroup.remove()
        except CgroupError as error:
            self.why_no_cgroup = str(error)
        try:
            with self.session():
                pass
        except SandboxError:
            self.close()
            raise

    @property
    def description(self) -> str:
        """One line: what runs programs, and what enforces their limits."""
        limits = f"{self.limits.memory} MiB, {self.limits.processes} processes, {self.limits.seconds:g} s per test"
        if self.cgroups:
            return f"bubblewrap with {self.cgroups}: {limits}"
        return f"bubblewrap without cgroups ({self.why_no_cgroup}), limits hold each process alone: {limits}"

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def session(self, language: str = "python") -> Iterator["Session"]:
        """A fresh sandbox for one program; it is gone, with all that ran in it, when the block ends.

        Raises SandboxError where the system has no compiler for the language.
        """
        if language == "cpp":
            self._prepare_compiler()
        memory = self.limits.memory if language == "python" else max(self.limits.memory, COMPILE_MEMORY)
        cgroup = self._cgroup(memory) if self.cgroups else None
        try:
            session = Session(self._start(cgroup), self.limits, self._compile(language))
            try:
                yield session
            finally:
                session.end()
        finally:
            if cgroup:
                cgroup.remove()

    def _prepare_compiler(self) -> None:
        """Precompiles the standard library's all-in-one header, once per run: saves a second per program."""
        with self.lock:
            if self.compiler is None:
                raise SandboxError("no C++ compiler under /usr; install your system's package `g++`")
            if self.header is None:
                folder = self.folder / "include"
                (folder / "bits").mkdir(parents=True)
                command = [self.compiler, *STANDARD, "-x", "c++-header", "-", "-o", str(folder / "bits" / "stdc++.h.gch")]
                subprocess.run(command, input=b"#include <bits/stdc++.h>", capture_output=True, check=False)
                self.header = folder

    def _compile(self, language: str) -> list[str] | None:
        """The command that makes /tmp/solution out of /tmp/solution.cpp, for languages that need one."""
        if language != "cpp":
            return None
        return [str(self.compiler), *STANDARD, "-w", "-I/include", "/tmp/solution.cpp", "-o", "/tmp/solution"]

    def _cgroup(self, memory: int) -> Cgroup:
        with self.lock:
            self.number += 1
        return Cgroup(f"{id(self):x}-{self.number}", memory * MEBIBYTE, self.limits.processes)

    def _command(self) -> list[str]:
        python = sys.base_prefix
        command = [self.bubblewrap, "--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session"]
        command += ["--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
        command += ["--ro-bind", "/usr", "/usr"]
        for name in ("lib", "lib64", "bin"):
            command += ["--symlink", f"usr/{name}", f"/{name}"]
        if not python.startswith("/usr/"):
            command += ["--ro-bind", python, python]
        if self.header:
            command += ["--ro-bind", str(self.header), "/include"]
        command += ["--proc", "/proc", *_read_only(KERNEL_SETTINGS)]
        command += ["--dev", "/dev", "--size", str(MEBIBYTE), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        command += ["--size", str(64 * MEBIBYTE), "--tmpfs", "/tmp", "--chdir", "/tmp"]
        command += ["--ro-bind", str(self.inside), "/inside", "--remount-ro", "/"]
        return [*command, os.path.realpath(sys._base_executable), "-I", "-S", "-B", "-X", "utf8", "/inside"]  # type: ignore[attr-defined]

    def _start(self, cgroup: Cgroup | None) -> "subprocess.Popen[bytes]":
        command = self._command()
        if cgroup:
            enter = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 97; shift; done; shift; exec "$@"'
            command = ["/bin/sh", "-c", enter, "sandbox", *cgroup.entrances(), "--", *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={}, start_new_session=True)


class Session:
    """One program's sandbox. Every method answers in time: what does not answer is killed, and the answer says so."""

    def __init__(self, process: "subprocess.Popen[bytes]", limits: Limits, compile: list[str] | None):
        self.process, self.limits, self.compile = process, limits, compile
        if self._receive(GRACE + 10) != {"status": "ready"}:
            self.end()
            said = (process.stderr.read() if process.stderr else b"").decode("utf-8", "replace").strip()
            raise SandboxError(f"no sandbox could be started: {said or 'no answer'}; is `unshare --user` allowed here?")

    def load(self, source: str, prelude: str = "") -> Answer:
        """Loads the program, and imports to run before it; C++ is compiled. The answer says whether it is ok."""
        limits = self._limits(self.limits.seconds)
        if self.compile:
            limits = self._limits(COMPILE_SECONDS) | {"memory": COMPILE_MEMORY * MEBIBYTE}
        request = {"op": "load", "source": source, "prelude": prelude, "compile": self.compile, "limits": limits}
        return self._ask(request, limits["seconds"])

    def run(self, stdin: str, seconds: float) -> Answer:
        """Runs the whole program on one input."""
        request = {"op": "run", "input": stdin, "limits": self._limits(seconds), "largest": self.limits.output * MEBIBYTE}
        return self._ask(request, seconds)

    def open(self, names: list[str], seconds: float) -> Answer:
        """Loads the program's functions in a child that `tell` talks to until `close`; the frame says what ``names`` are."""
        return self._open({"names": names}, seconds)

    def open_tests(self, tests: str, names: dict[str, Any], entry: tuple[str, ...], seconds: float) -> Answer:
        """Readies tests whose functions ``names`` are answered from outside; ``entry`` is a function of theirs to call."""
        return self._open({"tests": tests, "names": names, "entry": entry}, seconds)

    def tell(self, message: Any, seconds: float) -> Answer:
        """Hands a message to the open child; its next one is the answer's ``frame``."""
        return self._ask({"op": "tell", "message": message, "largest": LARGEST_FRAME}, seconds)

    def close(self) -> None:
        self._ask({"op": "close"}, 0.0)

    def end(self) -> None:
        """Kills the sandbox; the kernel then kills all that is in its process namespace."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def _open(self, request: dict[str, Any], seconds: float) -> Answer:
        return self._ask({"op": "open", "limits": self._limits(seconds), "largest": LARGEST_FRAME} | request, seconds)

    def _limits(self, seconds: float) -> dict[str, Any]:
        return {
            "seconds": seconds,
            "memory": self.limits.memory * MEBIBYTE,
            "file": 64 * MEBIBYTE,
            "processes": self.limits.processes,
        }

    def _ask(self, request: dict[str, Any], seconds: float) -> Answer:
        try:
            self._send(json.dumps(request).encode(), seconds + GRACE)
        except (BrokenPipeError, TimeoutError):
            return Answer("dead", why="the program brought its sandbox down")
        answer = self._receive(seconds + GRACE)
        if answer is None:
            return Answer("dead", why="the program brought its sandbox down")
        return Answer(answer["status"], answer.get("output", ""), answer.get("frame"), printable(answer.get("why", "")))

    def _send(self, data: bytes, seconds: float) -> None:
        assert self.process.stdin
        pipe, data, deadline = self.process.stdin.fileno(), struct.pack(">I", len(data)) + data, time.monotonic() + seconds
        os.set_blocking(pipe, False)
        while data:
            if not select.select([], [pipe], [], max(deadline - time.monotonic(), 0))[1]:
                raise TimeoutError
            data = data[os.write(pipe, data[: 1 << 16]) :]

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        assert self.process.stdout
        pipe, got, deadline = self.process.stdout.fileno(), bytearray(), time.monotonic() + seconds
        size = 4
        while len(got) < size:
            if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
                return None
            piece = os.read(pipe, 1 << 20)
            if not piece:
                return None
            got += piece
            if len(got) >= 4:
                size = 4 + struct.unpack(">I", got[:4])[0]
        return json.loads(bytes(got[4:]))


def printable(text: str, most: int = 200) -> str:
    """A program's output, shortened to one line for a table."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[-most:]
