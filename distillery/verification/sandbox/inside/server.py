"""Starts one child process per test, relays what it says, and kills it and all that it left behind.

Modules that take long to import are imported where they are needed: starting is a third of a program's verification.

It reads requests from standard input (four bytes of length, then JSON) and answers each on standard output: four bytes of
length, four bytes of the header's length, the header as JSON, then what the program said, as it said it. Nobody else can
write there: children have neither pipe. It is process 1 of the sandbox, so that no other one of the caller's user is in
there, and cannot be traced or opened through /proc (``PR_SET_DUMPABLE`` 0). Where the pipeline runs as root, children
become the user that it names. Only inputs arrive here, never an expected output, so nothing that a program does in here
can make a wrong answer right.
"""

import binascii
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import stat
import struct
import sys
from _thread import stack_size

from children import Child
from programs import be_functions, be_program
from values import receive, write_all

PR_SET_DUMPABLE = 4
THREAD_STACK = 16 * 2**20
"""Stack of a Python thread, unless a program sets another; the system's default is that of the main thread, which is huge."""
LARGEST_BINARY = 64 * 2**20


class Server:
    """Answers one request after the other: ``load``, then ``run``, or ``open``, ``tell`` ... and ``close``."""

    def __init__(self):
        self.uid, self.packages = 0, ""
        self.source = self.prelude = ""
        self.binary = None

    def start(self, request):
        """Sets the user that programs become; on request tries whether that works and the user can read Python's library."""
        self.uid = request["uid"]
        sys.path += request["path"]
        os.environ.update(request["environment"])
        if request["pytest"]:
            from together import load_pytest

            load_pytest()
        if not request["trial"]:
            return {"status": "ok"}, b""

        def trial(*_):
            import decimal  # noqa: F401

        child = Child(trial, request["limits"], self.uid)
        try:
            return child.collect(1 << 16)
        finally:
            child.end()

    def load(self, request):
        """Takes a program, its source or an executable. ``modules`` are imported here once, instead of in every test."""
        for name in request["modules"]:
            __import__(name)
        self.source, self.prelude = request["source"], request["prelude"]
        if executable := request["executable"]:
            self.binary = read_only(binascii.a2b_base64(executable))
        return {"status": "ok"}, b""

    def compile(self, request):
        """Compiles a source; the executable is what is said."""
        command, uid = request["command"], self.uid

        def body(*_):
            write("/tmp/solution.cpp", request["source"])
            os.dup2(2, 1)
            os.execve(command[0], command, {"PATH": "/usr/bin"})

        child = Child(body, request["limits"], uid)
        try:
            header, _ = child.collect(1 << 16)
            return header, read_file("/tmp/solution") if header["status"] == "ok" else b""
        finally:
            child.end()

    def run(self, request):
        """One test by standard input and output; ``files`` are written first, and their names are the arguments."""
        stdin = os.memfd_create("input")
        write_all(stdin, request["input"].encode("utf-8", "surrogatepass"))
        os.lseek(stdin, 0, os.SEEK_SET)
        inherited = () if self.binary is None else (self.binary,)

        def body(_reader, _writer, executable=None):
            for name, text in request["files"].items():
                write(f"/tmp/{name}", text)
            if executable is not None:
                os.execve(executable, ["solution"], {"PATH": "/usr/bin"})
            be_program(self.source, self.prelude, list(request["files"]))

        child = Child(body, request["limits"], self.uid, stdin, inherited)
        try:
            return child.collect(request["largest"])
        finally:
            child.end()

    def open(self, request):
        """A child that handles several messages: the program's functions, or tests that call another sandbox's."""
        tests = request.get("tests")
        if tests is None:
            self.child = Child(lambda *pipes: be_functions(self.source, self.prelude, *pipes), request["limits"], self.uid)
            return self.child.exchange(json.dumps({"names": request["names"]}).encode(), request["largest"])
        if request["together"]:
            from together import be_together

            source, prelude, most = self.source, self.prelude, request["most"]
            self.child = Child(lambda *pipes: be_together(source, prelude, tests, most, *pipes), request["limits"], self.uid)
            return {"status": "ok"}, b""
        from stand_ins import be_tests

        names, entry = request["names"], request["entry"]
        self.child = Child(lambda *pipes: be_tests(tests, names, entry, *pipes), request["limits"], self.uid)
        return {"status": "ok"}, b""

    def tell(self, request):
        return self.child.exchange(request["message"].encode(), request["largest"])

    def close(self, request):
        self.child.end()
        return {"status": "ok"}, b""


def write(path, text):
    with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)


def read_only(data):
    """A file in memory that nobody can change, opened for reading."""
    file = os.memfd_create("solution", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    write_all(file, data)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    again = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(file)
    return again


def read_file(path):
    """A file that a child wrote; nothing where it left no plain one."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(file, "rb") as opened:
            if stat.S_ISREG(os.fstat(file).st_mode):
                return opened.read(LARGEST_BINARY)
    return b""


def answer(header, payload):
    head = json.dumps(header).encode()
    write_all(1, struct.pack(">II", 4 + len(head) + len(payload), len(head)) + head + payload)


def main():
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    stack_size(THREAD_STACK)
    server = Server()
    answer({"status": "ready"}, b"")
    while True:
        try:
            request = receive(0)
        except EOFError:
            return
        answer(*getattr(server, request["op"])(request))
