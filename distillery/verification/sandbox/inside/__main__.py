"""Starts one child process per test, relays its output, and kills it and all that it left behind.

It reads frames (four bytes of length, then JSON) from standard input and answers each with one on standard output.
Nobody else can write there: children have neither pipe, and this process cannot be traced or opened through /proc
(``PR_SET_DUMPABLE`` 0). Only inputs arrive here, never an expected output, so nothing that a program does in here can
make a wrong answer right.
"""

import ctypes
import os
import signal
from pathlib import Path

from children import Child
from programs import be_functions, be_program
from stand_ins import be_tests
from values import receive, send, write_all

PR_SET_DUMPABLE = 4


class Server:
    """Answers one request after the other: ``load``, then ``run``, or ``open``, ``tell`` ... and ``close``."""

    def __init__(self):
        self.source = self.prelude = ""
        self.command: list[str] = []
        self.child: Child

    def load(self, request):
        """Takes a program; C++ is compiled by the command that comes with it."""
        self.source, self.prelude = request["source"], request["prelude"]
        if command := request["compile"]:
            Path("/tmp/solution.cpp").write_text(self.source, encoding="utf-8", errors="replace")
            child = Child(lambda *_: os.execve(command[0], command, {"PATH": "/usr/bin"}), request["limits"])
            ended = child.collect(1 << 16)
            child.end()
            self.command = ["/tmp/solution"]
            return ended
        return {"status": "ok"}

    def run(self, request):
        """One test by standard input and output."""
        stdin = os.memfd_create("input")
        write_all(stdin, request["input"].encode("utf-8", "surrogatepass"))
        os.lseek(stdin, 0, os.SEEK_SET)
        child = Child(self.become_program, request["limits"], stdin)
        try:
            return child.collect(request["largest"])
        finally:
            child.end()

    def become_program(self, *_pipes):
        """The child's body: executes the compiled program, or interprets the source."""
        if self.command:
            os.execv(self.command[0], self.command)
        be_program(self.source, self.prelude)

    def open(self, request):
        """A child that handles several messages: the program's functions, or tests that call another sandbox's."""
        tests = request.get("tests")
        if tests is None:
            self.child = Child(lambda *pipes: be_functions(self.source, self.prelude, *pipes), request["limits"])
            return self.child.exchange({"names": request["names"]}, request["largest"])
        self.child = Child(lambda *pipes: be_tests(tests, request["names"], request["entry"], *pipes), request["limits"])
        return {"status": "ok"}

    def tell(self, request):
        return self.child.exchange(request["message"], request["largest"])

    def close(self, request):
        self.child.end()
        return {"status": "ok"}


def main():
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    server = Server()
    send(1, {"status": "ready"})
    while True:
        try:
            request = receive(0)
        except EOFError:
            return
        send(1, getattr(server, request["op"])(request))


if __name__ == "__main__":
    main()
