"""One child process per test: confined, read until it answers or its time is up, and killed with all that it started."""

import contextlib
import ctypes
import os
import resource
import select
import signal
import struct
import sys
import time

PR_SET_PDEATHSIG = 1
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
WRITABLE = ("/tmp", "/dev/shm")
SOON = 0.005
"""Seconds until the first look at what a test uses: most have ended by then."""
UNLIMITED = resource.RLIM_INFINITY


def become(uid):
    """Changes to another user for good; does nothing where the sandbox runs as a plain user."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def confine(limits):
    """Limits of one child; the sandbox and its cgroup enforce what these cannot."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    seconds = int(limits["seconds"]) + 1
    for name, soft, hard in (
        ("AS", limits["address_space"], limits["address_space"]),
        ("CPU", seconds, seconds),
        ("FSIZE", limits["file"], limits["file"]),
        ("NPROC", limits["processes"], limits["processes"]),
        ("STACK", limits["memory"], UNLIMITED),  # programs for contests raise it themselves
        ("NOFILE", 64, 64),
        ("CORE", 0, 0),
    ):
        limit = getattr(resource, "RLIMIT_" + name)
        allowed = resource.getrlimit(limit)[1]
        if allowed != UNLIMITED:
            soft, hard = (allowed if value == UNLIMITED else min(value, allowed) for value in (soft, hard))
        resource.setrlimit(limit, (int(soft), int(hard)))


def others():
    """The folders of all processes in the sandbox but this one."""
    own = str(os.getpid())
    return [f"/proc/{name}" for name in os.listdir("/proc") if name.isdigit() and name != own]


def statistics(process):
    """CPU seconds of a process with the children that it waited for, its resident bytes, whether it wants to run."""
    try:
        file = os.open(f"{process}/stat", os.O_RDONLY)
        fields = os.read(file, 4096).rpartition(b")")[2].split()
        os.close(file)
    except OSError:
        return 0.0, 0, False
    return sum(map(int, fields[11:15])) / TICK, int(fields[21]) * PAGE, fields[0] in (b"R", b"D")


def reaped():
    """CPU seconds of all children that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Clock:
    """What a test has used: CPU seconds decide, the wall clock only ends what waits by itself or gets no CPU for long."""

    def __init__(self, limits):
        self.limits, self.before = limits, reaped()
        self.began = self.active = time.monotonic()
        self.next, self.cpu, self.over = self.began + SOON, 0.0, ""

    def look(self):
        """Seconds to wait until the next look; ``over`` says which limit is reached."""
        now = time.monotonic()
        if now >= self.next:
            found = [statistics(process) for process in others()]
            cpu, self.cpu = self.cpu, sum(each for each, _, _ in found) + reaped() - self.before
            if self.cpu > cpu or any(wants for _, _, wants in found):
                self.active = now
            if self.cpu > self.limits["seconds"]:
                self.over = "timeout"
            elif sum(size for _, size, _ in found) > self.limits["resident"]:
                self.over = "memory"
            elif now > self.began + self.limits["backstop"] or now > self.active + self.limits["idle"]:
                self.over = "stalled"
            self.next = now + min(max((self.limits["seconds"] - self.cpu) / 2, 0.01), 0.1)
        return max(self.next - now, 0.001)

    def ended(self):
        """The same for a child that has ended and was waited for."""
        self.next = 0.0
        self.look()
        return self.over if self.over == "timeout" else ""


class Child:
    """One test's process, its pipes and its clock."""

    def __init__(self, body, limits, uid, stdin=None, inherited=()):
        """Forks; ``body(reader, writer, *inherited)`` runs in the child, whose outputs come back through pipes."""
        self.clock, self.uid, self.said = Clock(limits), uid, bytearray()
        to_child, self.writer = os.pipe()
        self.reader, from_child = os.pipe()
        self.output, output = os.pipe()
        self.errors, errors = os.pipe()
        ours = (self.writer, self.reader, self.output, self.errors)
        self.pid = os.fork()
        if self.pid == 0:
            self._become(body, limits, stdin, (to_child, from_child, *inherited), (output, errors))
        for fd in (to_child, from_child, output, errors, *(() if stdin is None else (stdin,))):
            os.close(fd)
        for fd in ours:
            os.set_blocking(fd, False)
        self.fds = list(ours)

    def _become(self, body, limits, stdin, kept, outputs):
        code = 1
        try:
            keep = [os.dup(fd) for fd in kept]
            inlet = os.open("/dev/null", os.O_RDONLY) if stdin is None else stdin
            for place, fd in enumerate((inlet, *outputs)):
                os.dup2(fd, place)
            keep.sort()
            for low, high in zip([2, *keep], [*keep, 256], strict=True):
                os.closerange(low + 1, high)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            become(self.uid)
            confine(limits)
            body(*keep)
            flush()
            code = 0
        except SystemExit as error:
            flush()
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException as error:
            lines = (type(error).__name__, ": ", str(error)[:500])
            os.write(2, "".join(lines).encode("utf-8", "replace"))
        finally:
            os._exit(code & 255)

    def exchange(self, data, largest):
        """Hands a message to the child and waits for its next one: how it ended, and the message's bytes."""
        data, got = struct.pack(">I", len(data)) + data, b""
        while True:
            wait = self.clock.look()
            if self.clock.over:
                return self.done(self.clock.over)
            said = [fd for fd in (self.reader, self.output, self.errors) if fd in self.fds]
            ready = select.select(said, [self.writer] if data else [], [], wait)
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
                else:
                    self.heard(fd, piece)
            size = struct.unpack(">I", got[:4])[0] if len(got) >= 4 else 0
            if size > largest:
                return self.done("flood")
            if len(got) >= 4 + size and len(got) >= 4:
                return self.done("ok", payload=got[4 : 4 + size])

    def collect(self, largest):
        """Reads the child's output to its end: how the child ended, and its output."""
        text = bytearray()
        while {self.output, self.errors} & set(self.fds):
            wait = self.clock.look()
            if self.clock.over:
                return self.done(self.clock.over)
            open_ = [fd for fd in (self.output, self.errors) if fd in self.fds]
            for fd in select.select(open_, [], [], wait)[0]:
                piece = os.read(fd, 1 << 16)
                self.heard(fd, piece)
                if fd == self.output:
                    text += piece
            if len(text) > largest:
                return self.done("flood")
        header, _ = self.death()
        return header, bytes(text)

    def heard(self, fd, piece):
        """Keeps the end of the error output; a pipe whose end is reached is closed."""
        if fd == self.errors:
            self.said += piece
            del self.said[:-2000]
        if not piece:
            self.fds.remove(fd)
            os.close(fd)

    def death(self):
        """How the child ended, once its pipes are closed; it may still linger."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            self.clock.look()
            if self.clock.over:
                return self.done(self.clock.over)
            time.sleep(0.001)
        code = os.waitstatus_to_exitcode(status)
        if over := self.clock.ended():
            return self.done(over)
        if code == 0:
            return self.done("ok")
        if self.errors in self.fds:
            with contextlib.suppress(OSError):
                self.said += os.read(self.errors, 2000)
        why = self.said.decode("utf-8", "replace").strip() or (f"signal {-code}" if code < 0 else f"exit code {code}")
        return self.done("error", why[-300:])

    def gone(self):
        """How the child ended where an answer was expected: an error, whatever its exit status."""
        header, payload = self.death()
        return self.done("error", "the program ended without an answer") if header["status"] == "ok" else (header, payload)

    def done(self, status, why="", payload=b""):
        return {"status": status, "why": why, "cpu": round(self.clock.cpu, 3)}, payload

    def end(self):
        """Kills the child and all its descendants, detached ones included, and deletes the files that they left."""
        for fd in self.fds:
            os.close(fd)
        kill_all()
        clean(self.uid)


def flush():
    with contextlib.suppress(AttributeError, ValueError):  # a program may have closed or replaced it
        sys.stdout.flush()


def kill_all():
    for _ in range(2000):
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.0005)
    sys.exit("processes cannot be killed")


def clean(uid):
    """Empties what a program can write to, as the program's own user; the sandbox ends where that fails."""
    if empty():
        return
    pid = os.fork()
    if pid == 0:
        become(uid)
        for folder in WRITABLE:
            for entry in list(os.scandir(folder)):
                remove(entry)
        os._exit(0)
    deadline = time.monotonic() + 5
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            sys.exit("files cannot be deleted")
        time.sleep(0.0005)
    if not empty():
        sys.exit("files cannot be deleted")


def empty():
    return not any(next(os.scandir(folder), None) for folder in WRITABLE)


def remove(entry):
    if entry.is_dir(follow_symlinks=False):
        import shutil

        open_up(entry.path)
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)


def open_up(folder):
    """Lets their owner into directories that a program has closed."""
    os.chmod(folder, 0o700)
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            open_up(entry.path)
