"""The sandbox: programs that a model wrote run here and nowhere else.

One bubblewrap sandbox per program, one child process per test (inside/); programs that a check of their syntax tree finds
harmless, and whose tests need pytest, share one (`Sandbox.shared_session`). What a program can see is the system's /usr, the
Python that runs this project and the packages of ``Limits.packages``, read only, an empty /tmp of its own, and no network.
What it can give back is data.

Where the pipeline runs as root, programs become a user that owns nothing (no user namespace is needed); otherwise, or where
that is refused, they stay the caller's user in a user namespace. The only other process in there is the server, process 1.

Covered, and tested with hostile programs (tests/verification/sandbox/test_sandbox.py):

- reading the project, home folders, /etc, the environment, other processes; writing anywhere but the sandbox's own /tmp
- the network, raw devices, mounts, further namespaces, gaining privileges (no_new_privs, no capabilities)
- system calls that programs do not need (`seccomp`): tracing, keyrings, io_uring, bpf and so on
- endless loops, fork bombs, unbounded memory, output, files and recursion; daemons that stay behind; what a test leaves for
  the next one; load: CPU seconds decide a time-out, and a cgroup gives a sandbox no more than one CPU
- signals to the server, tracing it, forging its answers, taking over its pipes; faked equality, patched ``json`` or
  builtins, early exits: only inputs go in, and results are compared outside, as data

Not covered: a bug in the kernel reached through an allowed system call, side channels such as timing, and, where no cgroup
can be made, memory that several processes use between two looks of the server, a tenth of a second apart.
"""

import base64
import compileall
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from distillery.core.errors import SandboxError
from distillery.verification.sandbox import seccomp
from distillery.verification.sandbox.cgroups import Cgroup, CgroupError, sweep
from distillery.verification.sandbox.limits import Answer, Limits
from distillery.verification.sandbox.packages import folders_of
from distillery.verification.sandbox.session import MEBIBYTE, Session

INSIDE = Path(str(files("distillery.verification.sandbox.inside")))
"""Copied into every sandbox; a change in it is a change of this module's code."""
OWN_BUBBLEWRAP = Path(sys.prefix) / "bubblewrap" / "usr" / "bin" / "bwrap"
# Settings of the whole machine that /proc offers, mounted read-only whoever the caller is. /sys is not mounted.
KERNEL_SETTINGS = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi")
FOREIGN_USERS = (1_900_000_000, 61_184)
"""First numbers of users that no system hands out, the second for containers that map fewer."""
USERS = 4_000
START = "import sys; sys.path.insert(0, '/inside'); import server; server.main()"
"""Much faster than running the folder, for which Python imports its machinery for archives."""
STACK = 512 * 1024
"""KiB of stack that a main thread may grow to: address space is set aside for it when the server starts."""
NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
STANDARD = ("-std=c++23", "-O2")
CONTEST_NAMES = re.compile(r"\b(y0|y1|yn|j0|j1|jn)\b")
"""Names of math.h that programs for contests use for their own variables."""
COMPILE_SECONDS, COMPILE_MEMORY = 30.0, 2048
COMPILED = 1_000
"""Executables that are kept, by the hash of their source."""
__all__ = ["Answer", "Limits", "Sandbox", "SandboxError", "Session", "find_bubblewrap"]


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
        self.lock, self.numbers = threading.Lock(), itertools.count()
        self.weaknesses: list[str] = []
        self.idle: list[tuple[ExitStack, Session]] = []
        self.packages = folders_of(limits.packages)
        self.folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
        (self.folder / "compiled").mkdir()
        self.inside = shutil.copytree(INSIDE, self.folder / "inside", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(self.inside, quiet=2)
        self.folder.chmod(0o755)  # readable for the user that programs become
        sweep()
        try:
            self.filter = self._filter()
            self.cgroups = self._try_cgroups()
            self.first_user = self._try_users()
        except SandboxError:
            self.close()
            raise

    @property
    def description(self) -> str:
        """One line: what runs programs, and what enforces their limits."""
        limits = self.limits
        user = "a user of its own" if self.first_user else "the caller's user, in a user namespace"
        numbers = f"{limits.memory} MiB, {limits.processes} processes, {limits.seconds:g} CPU s per test"
        weak = f" ({'; '.join(self.weaknesses)})" if self.weaknesses else ""
        return f"bubblewrap as {user}, {self.cgroups or 'no cgroup'}{weak}: {numbers}"

    def close(self) -> None:
        while self.idle:
            self.idle.pop()[0].close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def session(
        self, limits: Limits | None = None, python: bool = True, trial: bool = False, pytest: bool = False
    ) -> Iterator[Session]:
        """A fresh sandbox for one program; it is gone, with all that ran in it, when the block ends.

        ``limits`` replace those of the sandbox; ``python``: whether the program can import packages; `Session` explains the
        rest. Raises SandboxError where none can be started.
        """
        limits, number = limits or self.limits, next(self.numbers)
        user = self.first_user + (os.getpid() + number) % USERS if self.first_user else None
        cgroup = Cgroup(f"{id(self):x}-{number}", limits.memory * MEBIBYTE, limits.processes) if self.cgroups else None
        try:
            path = ["/packages"] if self.packages else []
            session = Session(self._start(cgroup, user, python), limits, user, path, bool(cgroup), trial, pytest)
            try:
                yield session
            finally:
                session.end()
        finally:
            if cgroup:
                cgroup.remove()

    @contextmanager
    def shared_session(self) -> Iterator[Session]:
        """A sandbox with pytest imported, one after the other, by programs that are known to be harmless.

        They get nothing of each other's: children and files of one are gone before the next. A sandbox in which anything
        unusual happened is not used again.
        """
        stack, session = self._shared()
        try:
            yield session
        except BaseException:
            stack.close()
            raise
        if session.sound:
            self.idle.append((stack, session))
        else:
            stack.close()

    def _shared(self) -> tuple[ExitStack, Session]:
        with suppress(IndexError):
            return self.idle.pop()
        stack = ExitStack()
        return stack, stack.enter_context(self.session(pytest=True))

    def load(self, session: Session, source: str, prelude: str, language: str) -> Answer:
        """Loads a program into a session; C++ is compiled first, in a sandbox of its own, once per source."""
        if language != "cpp":
            return session.load(source, prelude)
        kept = self.folder / "compiled" / hashlib.sha256(source.encode("utf-8", "replace")).hexdigest()
        if not kept.exists():
            compiled = self._compile(source)
            if compiled.status != "ok":
                return compiled
            if len(list(kept.parent.iterdir())) < COMPILED:
                kept.write_bytes(compiled.output)
            return session.load("", executable=base64.b64encode(compiled.output).decode())
        return session.load("", executable=base64.b64encode(kept.read_bytes()).decode())

    def _compile(self, source: str) -> Answer:
        self._prepare_compiler()
        command = [str(self.compiler), *STANDARD, "-w", "-I/include", "/tmp/solution.cpp", "-o", "/tmp/solution"]
        limits = replace(self.limits, memory=max(self.limits.memory, COMPILE_MEMORY), processes=64)
        with self.session(limits, python=False) as session:
            compiled = session.compile(source, command, COMPILE_SECONDS)
            if "previous declaration" in compiled.why:
                compiled = session.compile(CONTEST_NAMES.sub(r"solution_\1", source), command, COMPILE_SECONDS)
        empty = compiled.status == "ok" and not compiled.output
        return Answer("error", why="the compiler wrote no executable") if empty else compiled

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

    def _filter(self) -> Path | None:
        """The file with the filter of system calls, None where there is no libseccomp."""
        try:
            data = seccomp.compiled()
        except SandboxError as error:
            self.weaknesses.append(f"no filter of system calls: {error}")
            return None
        path = self.folder / "filter"
        path.write_bytes(data)
        return path

    def _try_cgroups(self) -> str:
        try:
            cgroup = Cgroup(f"{id(self):x}-trial", self.limits.memory * MEBIBYTE, self.limits.processes)
        except CgroupError as error:
            self.weaknesses.append(f"{error}; memory is checked ten times a second")
            return ""
        cgroup.remove()
        if not cgroup.one_cpu:
            self.weaknesses.append("no control of CPU time by cgroups")
        return f"cgroups of version {cgroup.version}"

    def _try_users(self) -> int:
        """The first of the users that programs become, 0 where they stay the caller's. Raises SandboxError where both fail."""
        for first in FOREIGN_USERS if os.geteuid() == 0 else ():
            self.first_user = first
            try:
                with self.session(trial=True):
                    return first
            except SandboxError:
                continue
        self.first_user = 0
        with self.session(trial=True):
            return 0

    def _command(self, user: int | None, packages: bool) -> list[str]:
        python = sys.base_prefix
        command = [self.bubblewrap, *NAMESPACES, "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
        if user:
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
                command += ["--cap-add", capability]
        else:
            command += ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
        command += ["--hostname", "sandbox", "--ro-bind", "/usr", "/usr"]
        for name in ("lib", "lib64", "bin"):
            command += ["--symlink", f"usr/{name}", f"/{name}"]
        if not python.startswith("/usr/"):
            for parent in [*reversed(Path(python).parents)][1:]:  # bubblewrap would make them for the caller alone
                command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", python, python]
        command += ["--perms", "0755", "--dir", "/packages"]
        for name, folder in self.packages.items() if packages else ():
            command += ["--ro-bind", str(folder), f"/packages/{name}"]
        if self.header:
            command += ["--ro-bind", str(self.header), "/include"]
        command += ["--proc", "/proc", *_read_only(KERNEL_SETTINGS)]
        command += ["--dev", "/dev", "--perms", "1777", "--size", str(MEBIBYTE), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        command += ["--perms", "1777", "--size", str(64 * MEBIBYTE), "--tmpfs", "/tmp", "--chdir", "/tmp"]
        command += ["--ro-bind", str(self.inside), "/inside", "--remount-ro", "/"]
        return [*command, os.path.realpath(sys._base_executable), "-I", "-S", "-B", "-X", "utf8", "-c", START]  # type: ignore[attr-defined]

    def _start(self, cgroup: Cgroup | None, user: int | None, packages: bool) -> "subprocess.Popen[bytes]":
        """Bubblewrap, started by a shell that joins the cgroup and raises the stack's limit, which a server cannot do later."""
        enter = f"ulimit -S -s {STACK} 2>/dev/null || ulimit -S -s $(ulimit -H -s); "
        enter += 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 97; shift; done; shift; exec "$@"'
        command, opened = self._command(user, packages), list[int]()
        if self.filter:
            file = os.open(self.filter, os.O_RDONLY)
            command, opened = [command[0], "--seccomp", str(file), *command[1:]], [file]
        try:
            return subprocess.Popen(
                ["/bin/sh", "-c", enter, "sandbox", *(cgroup.entrances() if cgroup else ()), "--", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={},
                start_new_session=True,
                pass_fds=opened,
            )
        finally:
            for file in opened:
                os.close(file)
