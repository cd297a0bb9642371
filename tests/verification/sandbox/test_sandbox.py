"""Programs that try to escape, cheat or run forever: none passes or leaves a trace, and other programs are unaffected."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.errors import SandboxError
from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.verification.code_verifier import CodeVerifier
from distillery.verification.sandbox import cgroups
from distillery.verification.sandbox.inside.values import decode, encode
from distillery.verification.sandbox.limits import Answer, Limits
from distillery.verification.sandbox.sandbox import Sandbox
from distillery.verification.sandbox.session import IMPORTS, message_of
from distillery.verification.verdict import Item
from tests.support.builders import LIMITS, verdicts_of

ROOT = Path(__file__).resolve().parents[3]
SECRET = "the-secret-of-this-test"
ECHO = {"inputs": ["3\n"], "outputs": ["6\n"]}
DOUBLE = {"fn_name": "f", "inputs": [[3]], "outputs": [6]}
GOOD = {
    "program": ("print(2 * int(input()))", ECHO),
    "function": ("def f(x):\n    return 2 * x", DOUBLE),
    "asserts": ("def f(x):\n    return {x: [x]}", {"asserts": ["assert f(1) == {1: [1]}", "assert len(f(2)) == 1"]}),
}


@pytest.fixture(scope="module")
def sandbox():
    made = Sandbox(LIMITS)
    yield made
    made.close()


def run(sandbox, source, stdin=""):
    with sandbox.session() as session:
        session.load(source)
        return session.run(stdin, LIMITS.seconds)


# (source, tests): each prints or returns 6 if it can, and also misbehaves.
FORGED = """
import json, os, struct, sys
frame = json.dumps({"value": 6, "args": [], "status": "ok", "output": "6", "passed": True}).encode()
for fd in range(256):
    try:
        os.write(fd, struct.pack(">I", len(frame)) + frame)
    except OSError:
        pass
def f(x):
    return None
"""
NEVER_RIGHT: dict[str, tuple[str, dict]] = {
    "an endless loop": ("while True: pass", ECHO),
    "an endless loop in a call": ("def f(x):\n    while True: pass", DOUBLE),
    "sleeps": ("import time\ntime.sleep(1000)\nprint(6)", ECHO),
    "slow output": ("import time\nwhile True:\n    print(6, flush=True)\n    time.sleep(0.3)", ECHO),
    "a fork bomb": ("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", ECHO),
    "threads without end": (
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(99,)).start()",
        ECHO,
    ),
    "memory without end": ("a = []\nwhile True:\n    a.append(bytearray(10**7))", ECHO),
    "memory in many processes": (
        "import os\nfor _ in range(10): os.fork()\na = []\nwhile True:\n    a.append(bytearray(10**6))",
        ECHO,
    ),
    "2 GB of output": ("import sys\nfor _ in range(2000): sys.stdout.write('6' * 10**6)", ECHO),
    "a flood on standard error": ("import sys\nwhile True: sys.stderr.write('x' * 10**6)", ECHO),
    "a huge file": ("f = open('/tmp/x', 'wb')\nwhile True: f.write(b'0' * 10**6)", ECHO),
    "many files": ("i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').close()\n    i += 1", ECHO),
    "deep recursion": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x + 1)", DOUBLE),
    "a huge number": ("def f(x): return 9 ** 9 ** 9", DOUBLE),
    "a huge number printed": ("import sys\nsys.set_int_max_str_digits(0)\nprint(7 ** 10**7)", ECHO),
    "a huge answer": ("def f(x): return 'a' * 10**8", DOUBLE),
    "a nested answer": ("def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a", DOUBLE),
    "an answer that holds itself": ("def f(x):\n    a = []\n    a.append(a)\n    return a", DOUBLE),
    "a zip bomb": (
        "import bz2\nd = bz2.compress(b'0' * 10**8)\nout = []\nwhile True: out.append(bz2.decompress(d))",
        ECHO,
    ),
    "exit before the answer": ("import os\ndef f(x): os._exit(0)", DOUBLE),
    "exit with success at import": ("import sys\nsys.exit(0)", DOUBLE),
    "kills its parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint(7)", ECHO),
    "stops its parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nwhile True: pass", ECHO),
    "kills everything": ("import os, signal\nos.kill(-1, signal.SIGKILL)\nprint(6)", ECHO),
    "forged frames": (FORGED, DOUBLE),
    "forged frames on /proc": (
        "import os\ndef f(x):\n    for p in os.listdir('/proc'):\n        if p.isdigit():\n            for fd in range(9):\n"
        "                try:\n                    os.write(os.open(f'/proc/{p}/fd/{fd}', os.O_WRONLY), b'\\0\\0\\0\\1x')\n"
        "                except OSError:\n                    pass\n    return None",
        DOUBLE,
    ),
    "traces its parent": (
        "import ctypes, os\ndef f(x):\n    return 6 if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0 else None",
        DOUBLE,
    ),
    "reads its parent's memory": ("import os\ndef f(x): return 6 if open(f'/proc/{os.getppid()}/mem', 'rb') else 0", DOUBLE),
    "an object that equals all": (
        "class A(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 6\ndef f(x): return A(5)",
        DOUBLE,
    ),
    "an object that equals all, in asserts": (
        "class A:\n    __eq__ = lambda *_: True\n    __bool__ = lambda *_: True\ndef f(x): return A()",
        {"asserts": ["assert f(3) == 6", "assert f(3) in [6]", "assert f(3) + 1 == 7"]},
    ),
    "a patched json": (
        'import json\njson.dumps = lambda *_, **__: \'{"value": {"h": 0}, "passed": true, "args": []}\'\ndef f(x): return 5',
        DOUBLE,
    ),
    "patched builtins": (
        "import builtins\nbuiltins.len = lambda _: 6\nbuiltins.isinstance = lambda *_: True\ndef f(x): return 5",
        DOUBLE,
    ),
    "patched asserts": (
        "import builtins\nclass E(Exception): pass\nbuiltins.AssertionError = E\ndef f(x): return 5",
        {"asserts": ["assert f(3) == 6", "assert 6 == max(f(3), 0)"]},
    ),
    "takes over the server's modules": (
        "import sys\nm = sys.modules['programs']\nm.encode = lambda *_: 6\nm.send = lambda *_: None\ndef f(x): return 5",
        {"asserts": ["assert f(3) == 7", "assert f(3) - 7 == 0"]},
    ),
    "a range of its own": (
        "def range(*_): return []\ndef f(x): return 0",
        {"fn_name": "f", "check": "def check(c):\n    for i in range(9):\n        assert c(i) == i + 7"},
    ),
    "an abs of its own": ("def abs(x): return 0\ndef f(x): return 5", {"asserts": ["assert abs(f(2) - 4) < 1e-6"]}),
    "a module of its own": (
        "class M:\n    def isclose(*_): return True\nmath = M()\ndef f(x): return 5",
        {"asserts": ["assert math.isclose(f(2), 4.0)"]},
    ),
    "an object that holds all": (
        "class A:\n    def __contains__(self, x): return True\n    def __iter__(self): return iter([])\ndef f(x): return A()",
        {"asserts": ["assert 'hello' in f(2)"]},
    ),
    "a described builtin": (
        "import programs\nold = programs.describe\nprograms.describe = lambda v, h: {'value': {'n': 'bool'}}\n"
        "def all(x): return True\ndef f(x): return 5",
        {"asserts": ["assert all(f(i) == i + 7 for i in [1, 2])"]},
    ),
    "numbers that collide": (
        "import programs\nold = programs.encode\nP = 2**61 - 1\ndef f(x): return 0\n"
        "programs.encode = lambda v, h, *a: {'s': [{'i': hex(P * k)} for k in range(1, 45000)]} if v == 0 else old(v, h, *a)",
        {"asserts": ["assert f(1) == 4"]},
    ),
    "frames of another shape": (
        "import programs\nold = programs.send\nprograms.send = lambda fd, m: old(fd, [1])\ndef f(x): return 5",
        {"asserts": ["assert f(1) + 1 == 5"]},
    ),
    "a lone surrogate": ("def f(x): raise ValueError(chr(0xd800))", DOUBLE),
    "code that is not Python": ("def f(x:\n  return 6", DOUBLE),
    "null bytes": ("print(6)\0", ECHO),
    "5,000 brackets": ("(" * 5000 + ")" * 5000, ECHO),
    "nothing": ("", ECHO),
    "closes its standard output": ("import os\nos.close(1)\nos.close(2)", ECHO),
    "the right answer and then an error": ("print(6)\nraise ValueError", ECHO),
}
# Each prints 6 only if it reaches something that it must not.
OUTSIDE = {
    "reads the project": f"import os\nos.listdir({str(ROOT / 'stages')!r})\nprint(6)",
    "reads the ledger": f"import os\nos.listdir({str(ROOT / '.ledger')!r})\nprint(6)",
    "reads /etc": "open('/etc/hostname').read()\nprint(6)",
    "reads a home folder": "import os\nos.listdir(os.path.expanduser('~root') + '/.ssh')\nprint(6)",
    "reads this test's secret file": "open('SECRET_FILE').read()\nprint(6)",
    "the environment": f"import os\nassert any({SECRET!r} in v for v in os.environ.values())\nprint(6)",
    "the first process's environment": f"assert {SECRET!r} in open('/proc/1/environ').read()\nprint(6)",
    "processes outside": "import os\nassert sum(p.isdigit() for p in os.listdir('/proc')) > 6\nprint(6)",
    "writes outside /tmp": "open('/usr/share/x', 'w')\nprint(6)",
    "writes to the root": "open('/x', 'w')\nprint(6)",
    "writes to its own server": "open('/inside/server.py', 'a')\nprint(6)",
    "a link out of the sandbox": f"import os\nos.symlink({str(ROOT)!r}, '/tmp/l')\nos.listdir('/tmp/l')\nprint(6)",
    "the root of the first process": "import os\nassert os.path.exists('/proc/1/root/etc/passwd')\nprint(6)",
    "a connection": "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)\nprint(6)",
    "a connection to this machine": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)\nprint(6)",
    "a raw socket": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint(6)",
    "a mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0\nprint(6)",
    "a new user namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0\nprint(6)",
    "becomes root": "import os\nos.setuid(0)\nprint(6)",
    "a device": "open('/dev/mem', 'rb')\nprint(6)",
    "changes the host's name": "import ctypes\nassert ctypes.CDLL(None).sethostname(b'x', 1) == 0\nprint(6)",
    "settings of the kernel": (
        "import os\nhits = []\nfor where, _, files in os.walk('/proc/sys'):\n    for name in files:\n        try:\n"
        "            os.close(os.open(os.path.join(where, name), os.O_WRONLY))\n            hits.append(name)\n"
        "        except OSError:\n            pass\nassert hits\nprint(6)"
    ),
    "other files of /proc": (
        "import os\nhits = []\nfor name in os.listdir('/proc'):\n    if not name.isdigit() and os.path.isfile('/proc/' + name):"
        "\n"
        "        try:\n            os.close(os.open('/proc/' + name, os.O_WRONLY))\n            hits.append(name)\n"
        "        except OSError:\n            pass\nassert hits\nprint(6)"
    ),
    "anything under /sys": "import os\nassert os.listdir('/sys')\nprint(6)",
    "its cgroup": "import os\nassert os.listdir('/sys/fs/cgroup')\nprint(6)",
    "shared memory without end": "f = open('/dev/shm/x', 'wb')\nfor _ in range(64): f.write(b'0' * 10**6)\nf.flush()\nprint(6)",
}


# System calls by their numbers on x86-64, as programs without a C library would make them.
SYSTEM_CALLS = {
    "ptrace of itself": "101, 0, 0, 0, 0",
    "process_vm_readv": "310, os.getpid(), 0, 0, 0, 0, 0",
    "a descriptor of another process": "438, os.pidfd_open(os.getpid()), 0, 0",
    "io_uring": "425, 1, ctypes.create_string_buffer(120)",
    "userfaultfd": "323, 1",
    "a key": "248, b'user', b'k', b'v', 1, -3",
    "a keyring": "250, 0, -3, 1",
    "bpf": "321, 0, ctypes.create_string_buffer(64), 64",
    "perf": "298, ctypes.create_string_buffer(112), 0, -1, -1, 0",
    "a personality": "135, 0x0040000",
    "modify_ldt": "154, 0, ctypes.create_string_buffer(16), 16",
    "a new file system": "430, b'tmpfs', 0",
    "shared memory of System V": "29, 5, 4096, 0o1600",
    "another's limits": "302, 1, 0, 0, ctypes.create_string_buffer(16)",
    "clone3": "435, ctypes.create_string_buffer(88), 88",
}
SOCKETS = {"netlink": "16, 3, 0", "vsock": "40, 1, 0", "internet": "2, 1, 0", "internet, version 6": "10, 1, 0"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize("call", [*SYSTEM_CALLS.values(), *(f"41, {each}" for each in SOCKETS.values())])
def test_system_calls_that_no_program_needs_are_refused(sandbox, call):
    program = f"import ctypes, os\nassert ctypes.CDLL(None).syscall({call}) != -1\nprint(6)"
    assert run(sandbox, program).status == "error"


def test_what_programs_need_is_allowed(sandbox):
    needed = (
        "import multiprocessing, os, socket, subprocess, tempfile, threading\n"
        "a, b = socket.socketpair()\na.send(b'x')\nassert b.recv(1) == b'x'\n"
        "threading.Thread(target=print, args=(1,)).start()\n"
        "with tempfile.TemporaryFile() as f: f.write(b'x')\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: assert pool.map(abs, [-1, 2]) == [1, 2]\n"
        "print(subprocess.run(['/bin/echo', '2'], capture_output=True, text=True).stdout)"
    )
    answer = run(sandbox, needed)
    assert (answer.status, answer.text.split()) == ("ok", ["1", "2"]), answer


def can_become_another_user() -> bool:
    """Root, and not the root of a namespace that knows only itself."""
    known = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    return os.geteuid() == 0 and known > 60_000


@pytest.mark.skipif(not can_become_another_user(), reason="only root can become another user")
def test_programs_of_root_run_as_a_user_that_owns_nothing(sandbox):
    assert sandbox.first_user and "a user of its own" in sandbox.description
    answer = run(sandbox, "import os\nprint(os.getuid(), os.getgid(), os.getgroups())\nos.setuid(0)")
    assert answer.status == "error" and int(answer.text.split()[0]) >= sandbox.first_user


@pytest.mark.parametrize("first_user", [None, 0])
def test_a_test_finds_nothing_of_the_one_before(sandbox, first_user, monkeypatch):
    if first_user == 0:
        monkeypatch.setattr(sandbox, "first_user", 0)
    left = "import os\nprint(os.listdir('/tmp'), os.listdir('/dev/shm'))\nopen('/dev/shm/x', 'w').close()\n"
    left += "os.makedirs('/tmp/a/b/c')\nos.symlink('/usr', '/tmp/a/l')\nos.chmod('/tmp/a/b', 0)\nos.chmod('/tmp/a', 0)"
    with sandbox.session() as session:
        session.load(left)
        assert [session.run("", 2.0).text for _ in range(3)] == ["[] []\n"] * 3


@pytest.mark.slow
def test_cpu_time_decides_and_waiting_is_inconclusive(route):
    slow, waiting = verdicts_of(
        route,
        [item("slow", "while True: pass", ECHO), item("waiting", "import time\ntime.sleep(100)\nprint(6)", ECHO)],
    )
    assert (slow.verdict, slow.reason) == (FAIL, "0 of 1 tests passed; CPU time limit (2 s) exceeded")
    assert waiting.verdict == UNKNOWN and "it waited, or was given no CPU" in waiting.reason


@pytest.mark.slow
def test_cpu_time_of_children_counts(sandbox):
    children = "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        while True: pass\nos.wait()"
    assert run(sandbox, children).status == "timeout"


def test_a_frame_that_announces_too_much_is_not_read(sandbox):
    with sandbox.session() as session:
        reader, writer = os.pipe()
        os.write(writer, b"\xff\xff\xff\xff\0\0\0\x02{}")
        session.process.stdout.close()
        session.process.stdout = os.fdopen(reader, "rb")
        assert session.run("", 0.1).status == "dead"
        os.close(writer)


LONG_NUMBER = b'{"value": {"i": "0x' + b"f" * 200_000 + b'"}}'


@pytest.mark.parametrize("data", [b"[" * 5000, b"[" * 3_000_000, b"{torn", b'{"value": {"i": 5}}', LONG_NUMBER])
def test_messages_that_would_cost_memory_or_raise_are_refused(data):
    with pytest.raises((ValueError, TypeError)):
        decode(message_of(Answer("ok", data))["value"], lambda _: None)


def item(name: str, source: str, tests: Any) -> Item:
    return Item(name, "code", source, test_cases=json.dumps(tests))


def of_another_worker(process: psutil.Process) -> bool:
    """Whether tests that run beside these have started a process; they may keep their sandboxes to the end."""
    here = psutil.Process()
    above = here.parent()
    beside = {each.pid for each in above.children()} - {here.pid} if above else set()
    with suppress(psutil.NoSuchProcess):
        return bool(beside & {each.pid for each in process.parents()})
    return False


@pytest.mark.slow
def test_hostile_programs_never_pass_or_leave_traces_and_good_ones_pass_alongside(route, tmp_path, monkeypatch):
    import socket

    monkeypatch.setenv("SECRET", SECRET)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        outside = {n: s.replace("PORT", port).replace("SECRET_FILE", str(secret)) for n, s in OUTSIDE.items()}
        hostile = [item(n, *both) for n, both in NEVER_RIGHT.items()] + [item(n, s, ECHO) for n, s in outside.items()]
        assert len(hostile) >= 35
        good = [item(f"good {i}", *GOOD[name]) for i, name in enumerate(list(GOOD) * (len(hostile) // len(GOOD)))]
        mixed = [each for both in zip(hostile, good, strict=False) for each in both] + hostile[len(good) :]
        before = {process.pid for process in psutil.process_iter()}
        found = dict(zip([each.key for each in mixed], verdicts_of(route, mixed), strict=True))
    assert {name: v.reason for name, v in found.items() if name.startswith("good") and v.verdict != PASS} == {}
    assert [name for name, v in found.items() if not name.startswith("good") and v.verdict == PASS] == []
    assert all(v.reason.encode() is not None for v in found.values())
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if p.pid not in before and any("/inside" in part for part in p.info["cmdline"] or []) and not of_another_worker(p)
    ]
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == [], "what a test has started ends by itself"
    assert not list(cgroups.ROOT.glob(f"**/{cgroups.PREFIX}{os.getpid()}-*/**/{cgroups.PREFIX}*"))


ENDINGS = {
    "a thread as the last line": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print(6))).start()",
    "a thread that starts another": (
        "import threading, time\ndef late():\n    time.sleep(0.1)\n    threading.Thread(target=print, args=(6,)).start()\n"
        "threading.Thread(target=late).start()"
    ),
    "a thread before sys.exit": "import sys, threading, time\nt = lambda: (time.sleep(0.2), print(6))\n"
    "threading.Thread(target=t).start()\nsys.exit(0)",
    "an exit handler": "import atexit\natexit.register(print, 6)",
    "an exit handler before exit()": "import atexit\natexit.register(print, 6)\nexit()",
    "unflushed output": "import sys\nsys.stdout = open(1, 'w', buffering=1 << 16, closefd=False)\nprint(6)",
    "a pool of threads": "from concurrent.futures import ThreadPoolExecutor\nimport time\n"
    "ThreadPoolExecutor(2).submit(lambda: (time.sleep(0.2), print(6)))",
}


@pytest.mark.parametrize("source", ENDINGS.values(), ids=ENDINGS.keys())
def test_a_program_ends_as_it_would_under_the_interpreter(sandbox, source):
    answer = run(sandbox, source)
    assert (answer.status, answer.text.strip()) == ("ok", "6"), answer


def test_daemon_threads_are_not_awaited_and_exit_handlers_run_after_errors(sandbox):
    daemon = "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nprint(6)"
    assert run(sandbox, daemon).text == "6\n"
    failing = "import atexit\natexit.register(print, 7)\nraise ValueError"
    answer = run(sandbox, failing)
    assert (answer.status, answer.text) == ("error", "7\n")


def test_a_leftover_daemon_is_killed_before_the_next_test(sandbox):
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.close(1); os.close(2)\n"
    daemon += "        time.sleep(99)\n    os._exit(0)\nprint(6)"
    count = "import os\nprint(sum(p.isdigit() for p in os.listdir('/proc')))"
    with sandbox.session() as session:
        session.load(count)
        alone = session.run("", 2.0).text
        session.load(daemon)
        assert session.run("", 2.0).text == "6\n"
        session.load(count)
        assert session.run("", 2.0).text == alone


def test_no_state_is_shared_between_tests(sandbox):
    with sandbox.session() as session:
        session.load("import builtins\nbuiltins.seen = getattr(builtins, 'seen', 0) + 1\nprint(builtins.seen)")
        assert [session.run("", 2.0).text for _ in range(3)] == ["1\n"] * 3


def test_a_dead_server_fails_every_test_at_once(sandbox):
    with sandbox.session() as session:
        family = [psutil.Process(session.process.pid), *psutil.Process(session.process.pid).children(recursive=True)]
        for process in family:
            process.kill()
        session.process.wait()
        psutil.wait_procs(family)
        assert [session.run("", 600.0).status for _ in range(5)] == ["dead"] * 5, "without waiting for the limit"


@pytest.mark.slow
def test_many_sandboxes_in_parallel(sandbox):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: run(sandbox, "print(int(input()) ** 2)", f"{i}\n").text, range(60)))
    assert found == [f"{i * i}\n" for i in range(60)]


def test_any_text_round_trips(sandbox):
    text = "漢字 \U0001f600 \x01 \u2028 é"
    assert run(sandbox, "print(input())", text + "\n").text == text + "\n"
    assert run(sandbox, f"print({text!r})").text == text + "\n"
    assert run(sandbox, "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')").text == "\ufffd\ufffd"
    big = "1 " * 2_000_000
    assert run(sandbox, "print(len(input().split()))", big).text == "2000000\n"


def test_without_a_sandbox_nothing_runs_and_the_verdict_says_how_to_fix_it(monkeypatch, tmp_path):
    monkeypatch.setattr("distillery.verification.sandbox.sandbox.shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("distillery.verification.sandbox.sandbox.OWN_BUBBLEWRAP", tmp_path / "none")
    verifier = CodeVerifier(LIMITS, 1)
    verdict = verifier.verify(item("x", f"open({str(tmp_path / 'ran')!r}, 'w')\nprint(6)", ECHO)).result()
    assert verdict.verdict == UNKNOWN and verdict.hopeless
    assert "no sandbox, so no code is run" in verdict.reason and "install your system's package `bubblewrap`" in verdict.reason
    assert not (tmp_path / "ran").exists()
    verifier.close()


def test_a_bubblewrap_that_cannot_start_is_named(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("distillery.verification.sandbox.sandbox.find_bubblewrap", lambda: str(broken))
    with pytest.raises(SandboxError, match="No permissions to create new namespace"):
        Sandbox(LIMITS)


def test_without_cgroups_the_remaining_limits_are_named_and_hold(monkeypatch):
    def refuse(*_):
        raise cgroups.CgroupError("read-only file system")

    monkeypatch.setattr("distillery.verification.sandbox.sandbox.Cgroup", refuse)
    sandbox = Sandbox(LIMITS)
    assert "no cgroup (read-only file system" in sandbox.description
    assert run(sandbox, "a = bytearray(10**9)\nwhile True: pass").status == "memory"
    assert run(sandbox, "print(6)").text == "6\n"
    sandbox.close()


def test_cgroups_of_killed_runs_are_removed(sandbox):
    if not sandbox.cgroups:
        pytest.skip("cgroups cannot be created")
    dead = subprocess.run(["true"], check=True, stdout=subprocess.PIPE) and 2**22 - 3
    group = cgroups.Cgroup("left", 2**28, 8)
    moved = [folder.rename(folder.with_name(f"{cgroups.PREFIX}{dead}-left")) for folder in group.folders]
    cgroups.sweep()
    assert not any(folder.exists() for folder in moved)


@pytest.mark.slow
def test_limits_are_configurable():
    tight = Sandbox(Limits(seconds=0.5, memory=128, output=1, processes=8))
    assert run(tight, "while True: pass").status == "timeout"
    tight.close()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers() | st.tuples(st.text()), inner)
    ),
    max_leaves=20,
)


@given(VALUES | st.sets(st.integers()) | st.frozensets(st.text()))
def test_values_round_trip(value):
    travelled = decode(json.loads(json.dumps(encode(value, []))), lambda _: None)
    assert travelled == value and type(travelled) is type(value)


def test_modules_that_are_loaded_for_a_program_are_those_that_it_imports():
    assert IMPORTS.findall("import heapq\n  from math import inf\nx = 'import os'\nimportant = 1\n") == ["heapq", "math"]
    assert IMPORTS.findall("\n \t" * 500_000) == [], "in linear time"


def test_sessions_are_used_again_by_harmless_programs_only_while_nothing_unusual_happens(sandbox):
    with sandbox.shared_session() as first:
        first.load("print(1)")
        assert first.run("", 2.0).text == "1\n"
    with sandbox.shared_session() as second:
        assert second is first
        second.load("raise ValueError")
        assert second.run("", 2.0).status == "error" and not second.sound
    with sandbox.shared_session() as third:
        assert third is not first and first.process.returncode is not None
    with pytest.raises(RuntimeError), sandbox.shared_session() as fourth:
        raise RuntimeError
    assert fourth is third and third.process.returncode is not None and not sandbox.idle
