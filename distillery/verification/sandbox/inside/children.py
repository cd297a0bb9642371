"""One child process per test: confined, read until it answers or its time is up, and killed with all that it started."""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time

PR_SET_PDEATHSIG = 1


def confine(limits):
    """Limits of one child; the sandbox and its cgroup enforce what these cannot."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for name, value in (
        ("AS", limits["memory"]),
        ("CPU", limits["seconds"] + 1),
        ("FSIZE", limits["file"]),
        ("NPROC", limits["processes"]),
        ("STACK", limits["memory"] // 4),
        ("NOFILE", 64),
        ("CORE", 0),
    ):
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (int(value), int(value)))


class Child:
    """One test's process, its pipes and its deadline."""

    def __init__(self, body, limits, stdin=None):
        """Forks; ``body(reader, writer)`` runs in the child, whose standard output and error come back through pipes."""
        self.deadline = time.monotonic() + limits["seconds"]
        to_child, self.writer = os.pipe()
        self.reader, from_child = os.pipe()
        self.output, output = os.pipe()
        self.errors, errors = os.pipe()
        ours = (self.writer, self.reader, self.output, self.errors)
        self.pid = os.fork()
        if self.pid == 0:
            self._become(body, limits, stdin, (to_child, from_child), (output, errors))
        for fd in (to_child, from_child, output, errors, *(() if stdin is None else (stdin,))):
            os.close(fd)
        for fd in ours:
            os.set_blocking(fd, False)
        self.fds = list(ours)

    def _become(self, body, limits, stdin, control, outputs):
        code = 1
        try:
            keep = [os.dup(fd) for fd in control]
            inlet = os.open("/dev/null", os.O_RDONLY) if stdin is None else stdin
            for place, fd in enumerate((inlet, *outputs)):
                os.dup2(fd, place)
            low, high = sorted(keep)
            for first, last in ((3, low), (low + 1, high), (high + 1, 256)):
                os.closerange(first, last)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            confine(limits)
            body(*keep)
            sys.stdout.flush()
            code = 0
        except SystemExit as error:
            sys.stdout.flush()
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException as error:
            lines = (type(error).__name__, ": ", str(error)[:500])
            os.write(2, "".join(lines).encode("utf-8", "replace"))
        finally:
            os._exit(code & 255)

    def left(self):
        return self.deadline - time.monotonic()

    def exchange(self, message, largest):
        """Hands a message to the child and waits for its next one; a status where none comes."""
        data = json.dumps(message).encode()
        data, got = struct.pack(">I", len(data)) + data, b""
        while True:
            if self.left() <= 0:
                return {"status": "timeout"}
            said = [fd for fd in (self.reader, self.output, self.errors) if fd in self.fds]
            ready = select.select(said, [self.writer] if data else [], [], self.left())
            try:
                if self.writer in ready[1]:
                    data = data[os.write(self.writer, data[: 1 << 16]) :]
            except BrokenPipeError:
                data = b""
            for fd in ready[0]:
                piece = os.read(fd, 1 << 16)
                if fd == self.reader:
                    got += piece
                    if not piece:
                        return self.gone()
                elif not piece:
                    self.fds.remove(fd)
                    os.close(fd)
            size = struct.unpack(">I", got[:4])[0] if len(got) >= 4 else 0
            if size > largest:
                return {"status": "flood"}
            if len(got) >= 4 + size and len(got) >= 4:
                try:
                    return {"status": "ok", "frame": json.loads(got[4 : 4 + size])}
                except (ValueError, RecursionError):
                    return {"status": "error", "why": "an answer that is no answer"}

    def collect(self, largest):
        """Reads the child's output to its end: its text and how the child ended."""
        texts = {self.output: bytearray(), self.errors: bytearray()}
        while texts.keys() & set(self.fds):
            if self.left() <= 0:
                return {"status": "timeout"}
            open_ = [fd for fd in texts if fd in self.fds]
            for fd in select.select(open_, [], [], self.left())[0]:
                piece = os.read(fd, 1 << 16)
                texts[fd] += piece
                if fd == self.errors:
                    del texts[fd][:-2000]
                if not piece:
                    self.fds.remove(fd)
                    os.close(fd)
            if len(texts[self.output]) > largest:
                return {"status": "flood"}
        ended = self.death(texts[self.errors])
        return ended | {"output": texts[self.output].decode("utf-8", "replace")}

    def death(self, said=b""):
        """How the child ended, once its pipes are closed; it may still linger."""
        while self.left() > 0:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.001)
        else:
            return {"status": "timeout"}
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return {"status": "ok"}
        if self.errors in self.fds and not said:
            with contextlib.suppress(OSError):
                said = os.read(self.errors, 2000)
        why = said.decode("utf-8", "replace").strip() or (f"signal {-code}" if code < 0 else f"exit code {code}")
        return {"status": "error", "why": why[-300:]}

    def gone(self):
        """How the child ended where an answer was expected: an error, whatever its exit status."""
        ended = self.death()
        return {"status": "error", "why": "the program ended without an answer"} if ended["status"] == "ok" else ended

    def end(self):
        """Kills the child and all its descendants, detached ones included; none is left when this returns."""
        for fd in self.fds:
            os.close(fd)
        for _ in range(200):
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                break
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.0005)
