"""One program's sandbox as the pipeline sees it: requests go in, and what comes back is read within bounds."""

import json
import os
import re
import select
import struct
import subprocess
import time
from typing import Any

from distillery.core.errors import SandboxError
from distillery.verification.sandbox.limits import Answer, Limits
from distillery.verification.verdict import one_line

MEBIBYTE = 2**20
GRACE = 5.0
LARGEST_MESSAGE, LARGEST_FILE = 8 * MEBIBYTE, 64 * MEBIBYTE
MOST_VALUES = 2_000_000
BACKSTOP = 10.0
"""A test that gets too little CPU ends after so many times its CPU seconds on the clock; one that waits, much earlier."""
ADDRESS_SPACE = 64 * 1024 * MEBIBYTE
"""Far above what may be used: stacks of threads, and numpy, reserve much that they never touch."""
PRELOADED = frozenset(
    "bisect collections dataclasses datetime decimal fractions functools heapq itertools math random re typing".split()
)
"""Modules that a program's tests find imported, if it imports them."""
IMPORTS = re.compile(r"^[ \t]*(?:import|from)[ \t]+(\w+)", re.MULTILINE)
GONE = Answer("dead", why="the program brought its sandbox down")


class Session:
    """Every method answers in time: what does not answer is killed, and the answer says so.

    ``uid`` is the user that programs become, None where they stay the caller's. ``limited`` says whether a cgroup holds the
    memory of all processes together, ``trial`` whether to try if programs can start, ``pytest`` whether to import it before
    any program comes. ``sound``: every request so far was answered as usual. Raises SandboxError where the sandbox does not
    start.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        limits: Limits,
        uid: int | None,
        path: list[str],
        limited: bool,
        trial: bool = False,
        pytest: bool = False,
    ):
        self.process, self.limits, self.limited, self.sound = process, limits, limited, True
        ready = self._receive(GRACE + 10, MEBIBYTE)
        if ready.status == "ready":
            environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            start = {"op": "start", "uid": uid, "path": path, "environment": environment, "trial": trial, "pytest": pytest}
            ready = self._ask(start | {"limits": self._limits(GRACE)}, GRACE)
        if ready.status != "ok":
            process.kill()
            said = (process.stderr.read() if process.stderr else b"").decode("utf-8", "replace").strip()
            self.end()
            raise SandboxError(f"no sandbox could be started: {said or ready.why}; is `unshare --user` allowed here?")

    def load(self, source: str, prelude: str = "", executable: str | None = None) -> Answer:
        """Takes a program: its source and imports to run before it, or an executable in base 64."""
        used = set(IMPORTS.findall(f"{prelude}\n{source}")) & PRELOADED
        request = {"op": "load", "source": source, "prelude": prelude, "executable": executable, "modules": sorted(used)}
        return self._ask(request, GRACE)

    def compile(self, source: str, command: list[str], seconds: float) -> Answer:
        """Runs a compiler; the answer's output is the executable."""
        request = {"op": "compile", "source": source, "command": command, "limits": self._limits(seconds)}
        return self._ask(request, seconds, LARGEST_FILE)

    def run(self, stdin: str, seconds: float, files: dict[str, str] | None = None) -> Answer:
        """Runs the whole program on one input, with the names of ``files`` (name to text) as its arguments."""
        largest = self.limits.output * MEBIBYTE
        request = {"op": "run", "input": stdin, "files": files or {}, "limits": self._limits(seconds), "largest": largest}
        return self._ask(request, seconds, largest)

    def open(self, names: list[str], seconds: float) -> Answer:
        """Loads the program's functions in a child that `tell` talks to until `close`; the message says what ``names`` are."""
        return self._open({"names": names}, seconds)

    def open_tests(self, tests: str, names: dict[str, Any], entry: tuple[str, ...], seconds: float) -> Answer:
        """Readies tests whose functions ``names`` are answered from outside; ``entry`` is a function of theirs to call."""
        return self._open({"tests": tests, "names": names, "entry": entry, "together": False}, seconds)

    def open_together(self, tests: Any, most: int, seconds: float) -> Answer:
        """Readies tests that run in one process with the program; the next `tell` starts them."""
        return self._open({"tests": tests, "most": most, "together": True}, seconds)

    def tell(self, message: str, seconds: float) -> Answer:
        """Hands a message to the open child; its next one is the answer's output."""
        return self._ask({"op": "tell", "message": message, "largest": LARGEST_MESSAGE}, seconds)

    def close(self) -> None:
        self._ask({"op": "close"}, GRACE)

    def end(self) -> None:
        """Kills the sandbox; the kernel then kills all that is in its process namespace."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()

    def _open(self, request: dict[str, Any], seconds: float) -> Answer:
        return self._ask({"op": "open", "limits": self._limits(seconds), "largest": LARGEST_MESSAGE} | request, seconds)

    def _limits(self, seconds: float) -> dict[str, Any]:
        memory = self.limits.memory * MEBIBYTE
        return {
            "seconds": seconds,
            "backstop": BACKSTOP * seconds + GRACE,
            "idle": seconds + GRACE,
            "memory": memory,
            "resident": ADDRESS_SPACE if self.limited else memory,
            "address_space": ADDRESS_SPACE if self.limited else memory + 4096 * MEBIBYTE,
            "file": LARGEST_FILE,
            "processes": self.limits.processes,
        }

    def _ask(self, request: dict[str, Any], seconds: float, largest: int = LARGEST_MESSAGE) -> Answer:
        wait = (BACKSTOP + 1) * seconds + 4 * GRACE
        try:
            self._send(json.dumps(request).encode(), wait)
            answer = self._receive(wait, largest + MEBIBYTE)
        except (BrokenPipeError, TimeoutError):
            answer = GONE
        self.sound = self.sound and answer.status == "ok"
        return answer

    def _send(self, data: bytes, seconds: float) -> None:
        assert self.process.stdin
        pipe, data, deadline = self.process.stdin.fileno(), struct.pack(">I", len(data)) + data, time.monotonic() + seconds
        left = memoryview(data)
        os.set_blocking(pipe, False)
        while left:
            if not select.select([], [pipe], [], max(deadline - time.monotonic(), 0))[1]:
                raise TimeoutError
            left = left[os.write(pipe, left[: 1 << 16]) :]

    def _receive(self, seconds: float, largest: int) -> Answer:
        """The next answer. Nothing is kept of one that announces more than ``largest`` bytes."""
        assert self.process.stdout
        pipe, got, deadline, size = self.process.stdout.fileno(), bytearray(), time.monotonic() + seconds, 8
        while len(got) < size:
            if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
                return GONE
            piece = os.read(pipe, 1 << 20)
            if not piece:
                return GONE
            got += piece
            if len(got) >= 8:
                size = 4 + struct.unpack(">I", got[:4])[0]
                if not 8 <= size <= largest:
                    return GONE
        return answer_of(bytes(got))


def answer_of(data: bytes) -> Answer:
    """An answer's bytes as the server wrote them."""
    (length,) = struct.unpack(">I", data[4:8])
    try:
        header = json.loads(data[8 : 8 + length])
        why = one_line(str(header.get("why", "")))
        return Answer(str(header["status"]), data[8 + length :], why, float(header.get("cpu", 0)))
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return GONE


def message_of(answer: Answer) -> Any:
    """A program's message as JSON. Raises ValueError where it is none, or has more values than it costs little to read."""
    data = answer.output
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ValueError("too many values")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("a value nested too deeply") from None
