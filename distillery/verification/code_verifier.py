"""Code by its tests, in the sandbox: the score is the share of the first tests (ten, as in the study) that pass.

`verification.code_tests` lists the kinds of tests. Expected outputs never enter the sandbox that runs the program where a
test is an input or a call: what comes back is compared here. Tests that are programs themselves run in one process with
the program where `verification.program_check` finds nothing in it that could tamper with them. Otherwise they run in a
second sandbox, where the program's functions are stand-ins whose calls are answered by the first; what fails there and
passes in one process is inconclusive. A row's own checker gets inputs and outputs only, in another sandbox.
"""

import json
import re
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from distillery.core.errors import SandboxError
from distillery.core.schemas import FAIL
from distillery.verification.code_blocks import parses, program_of
from distillery.verification.code_tests import BrokenTestsError, Call, Script, Stdin, Suite, modules_in, prelude, suite_of
from distillery.verification.output_comparison import number
from distillery.verification.process_pool import timed
from distillery.verification.program_check import suspicion
from distillery.verification.sandbox.inside.values import decode, encode
from distillery.verification.sandbox.limits import Answer, Limits
from distillery.verification.sandbox.sandbox import Sandbox
from distillery.verification.sandbox.session import Session, message_of
from distillery.verification.verdict import Item, Verdict, one_line, scored, unknown

NAME = "code"
TOTAL, TEN = 3, 10
MOST = 10
"""A row's own limits may be so many times those of params.yaml."""
MOST_HASHED = 1000
_MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


@dataclass(frozen=True)
class Outcome:
    """One test: whether it passed, or why it did not; None where that is inconclusive."""

    passed: bool | None
    why: str = ""


class Grader:
    """Runs one program against a suite; every test gets its CPU seconds, every ten together three times that.

    Where ``all_count``, no test is run after the first that fails.
    """

    def __init__(self, sandbox: Sandbox, suite: Suite, all_count: bool):
        self.sandbox, self.suite, self.all_count = sandbox, suite, all_count
        usual = sandbox.limits
        seconds, memory = suite.seconds or usual.seconds, suite.memory or usual.memory
        self.limits = replace(usual, seconds=min(seconds, MOST * usual.seconds), memory=min(memory, MOST * usual.memory))
        self.left = self.total = TOTAL * self.limits.seconds * ceil(len(suite.tests) / TEN)

    def grade(self, program: str) -> list[Outcome]:
        """One outcome per test. Raises SandboxError where the sandbox is unavailable."""
        first = prelude(program) if self.suite.usual else ""
        with self._session(program) as session:
            loaded = self.sandbox.load(session, program, first, self.suite.language)
            if loaded.status != "ok":
                return [_not_compiled(loaded, program)] * len(self.suite.tests)
            if scripts := [test for test in self.suite.tests if isinstance(test, Script)]:
                found = self._together(session, program, scripts)
                if scripts[0].pytest:
                    return found
                together = iter(found)
            outcomes: list[Outcome] = []
            for test in self.suite.tests:
                skip = self.all_count and bool(outcomes) and not outcomes[-1].passed
                if isinstance(test, Script):
                    outcomes.append(next(together))
                else:
                    outcomes.append(outcomes[-1] if skip else self._test(session, program, test))
            return outcomes

    def _session(self, program: str) -> AbstractContextManager[Session]:
        """A sandbox of the program's own, or, where pytest is needed and the program harmless, one that has imported it."""
        pytest = [test for test in self.suite.tests if isinstance(test, Script) and test.pytest]
        if pytest and self.limits == self.sandbox.limits and _suspicion(program, pytest) is None:
            return self.sandbox.shared_session()
        return self.sandbox.session(self.limits, self.suite.language == "python")

    def _test(self, session: Session, program: str, test: Stdin | Call) -> Outcome:
        if self.left <= 0:
            return Outcome(False, f"all tests together took over {self.total:g} CPU s")
        seconds = min(self.limits.seconds, self.left)
        if isinstance(test, Stdin):
            answer = session.run(test.input, seconds)
            return self._ended(answer) or self._compared(test, answer.text)
        opened = session.open([], seconds)
        try:
            outcome = self._ended(opened) or self._call(session, test, seconds)
        finally:
            session.close()
        if not outcome.passed and test.script and (outcome.passed is None or not _suspicion(program, [test.script])):
            return self._together(session, program, [test.script])[0]
        return outcome

    def _compared(self, test: Stdin, said: str) -> Outcome:
        """The outcome by the row's checker, in a sandbox of its own that holds no program of a model; else by comparison."""
        if not self.suite.checker:
            return decided(self.suite.same(said, test.output))
        with self.sandbox.session() as session:
            session.load(self.suite.checker)
            files = {"input.txt": test.input, "expected.txt": test.output, "output.txt": said}
            answer = session.run("", self.sandbox.limits.seconds, files)
        score = number((answer.text.split() or [""])[-1])
        if answer.status != "ok":
            return Outcome(None, f"the row's checker failed: {answer.why or answer.status}")
        if score is None:
            return Outcome(None, "the row's checker failed: it printed no number")
        return Outcome(score >= 1, "" if score >= 1 else "the row's checker rejects the output")

    def _call(self, session: Session, test: Call, seconds: float) -> Outcome:
        message = {"fn": test.fn, "args": encode(test.args, []), "kwargs": {k: encode(v, []) for k, v in test.kwargs.items()}}
        answer = session.tell(json.dumps(message), seconds)
        if failed := self._ended(answer):
            return failed
        handles: list[Any] = []
        try:
            frame = message_of(answer)
            if "value" not in frame:
                return Outcome(False, f"{frame.get('error')}: {frame.get('message')}")
            if hashed(frame["value"]) > MOST_HASHED:
                return Outcome(False, "an answer with too many huge numbers in sets")
            value = decode(frame["value"], lambda number: handles.append(number) or object())  # type: ignore[func-returns-value]
            if handles and test.script:
                return Outcome(None, "an object of the program's own class")
            return decided(test.decide(value))
        except Exception as error:
            return Outcome(False, f"an answer that is no value: {type(error).__name__}")

    def _together(self, session: Session, program: str, scripts: list[Script]) -> list[Outcome]:
        """Tests that are programs, in one process with the program; passes that it could have forged need a second look."""
        texts = scripts[0].source if scripts[0].pytest else [_together(each) for each in scripts]
        seconds = self.total if len(scripts) > 1 else self.limits.seconds
        session.open_together(texts, self.sandbox.limits.tests, seconds)
        try:
            answer = session.tell('"go"', seconds)
        finally:
            session.close()
        if failed := self._ended(answer):
            return [failed] * len(scripts)
        try:
            outcomes = [_outcome(passed is True, str(why)) for passed, why in message_of(answer)["outcomes"]]
        except (ValueError, TypeError, KeyError):
            return [Outcome(False, "an answer that is no value")] * len(scripts)
        found = _suspicion(program, scripts)
        if found is None:
            return outcomes
        if scripts[0].pytest or len(outcomes) != len(scripts):
            return [each if not each.passed else Outcome(None, f"the program uses {found}") for each in outcomes]
        return [
            self._apart(session, each, found) if outcome.passed else outcome
            for each, outcome in zip(scripts, outcomes, strict=True)
        ]

    def _apart(self, session: Session, test: Script, found: str) -> Outcome:
        """A pass in one process is confirmed with the tests in a sandbox of their own, or inconclusive."""
        opened = session.open(test.names, self.limits.seconds)
        try:
            said = message_of(opened) if opened.status == "ok" else {}
            modules = {name: {"module": name} for name in modules_in(test.source)}
            names = {name: said.get(name, {}) for name in test.names} | modules
            passed = self._script(session, test, names, self.limits.seconds)
        except (ValueError, AttributeError):  # what it says is no message
            passed = False
        finally:
            session.close()
        return Outcome(True) if passed else Outcome(None, f"the program uses {found}")

    def _script(self, session: Session, test: Script, names: dict[str, Any], seconds: float) -> bool:
        """Connects two sandboxes: forwards the tests' calls to the program, and its answers back; whether the tests pass."""
        with self.sandbox.session() as tests:
            tests.load("")
            tests.open_tests(test.source, names, test.entry, seconds)
            message = '"go"'
            while True:
                asked = tests.tell(message, seconds)
                if asked.status != "ok" or "passed" in (frame := message_of(asked)):
                    return asked.status == "ok" and frame["passed"] is True
                answer = session.tell(json.dumps(frame), seconds)
                if answer.status != "ok":
                    return False
                message = answer.text

    def _ended(self, answer: Answer) -> Outcome | None:
        """Why a test failed where the program gave no answer, or None. A child that ends has not answered."""
        self.left -= answer.cpu
        if answer.status == "ok":
            return None
        limits = self.limits
        memory = f"memory limit ({limits.memory} MiB) exceeded"
        whys = {
            "timeout": f"CPU time limit ({limits.seconds:g} s) exceeded",
            "flood": f"output limit ({limits.output} MiB) exceeded",
            "memory": memory,
            "stalled": "it waited, or was given no CPU, for longer than its time limit",
        }
        why = memory if answer.why == "signal 9" else answer.why or whys.get(answer.status, answer.status)
        return Outcome(None, why) if answer.status == "stalled" else _outcome(False, why)


def _suspicion(program: str, scripts: list[Script]) -> str | None:
    """Why a pass of tests in the program's own process is not to be trusted, or None."""
    return suspicion(program, "\n".join(each.source for each in scripts)) if parses(program) else "what is no Python"


def _together(script: Script) -> list[Any]:
    """A script as `sandbox.inside.together` takes it: modules of its own, and only other names, are the solution's."""
    modules = modules_in(script.source)
    return [script.source, script.entry, sorted(set(script.names) - modules), sorted(modules)]


def _not_compiled(answer: Answer, program: str) -> Outcome:
    """Why a program does not compile; inconclusive where the system's compiler lacks what it includes."""
    missing = re.search(r"fatal error: ([\w/.+-]+): No such file", answer.why)
    if missing and re.search(rf"#include\s*<{re.escape(missing[1])}>", program):
        return Outcome(None, f"the compiler here has no <{missing[1]}>")
    return Outcome(None if answer.status == "stalled" else False, f"does not compile: {answer.why or answer.status}")


def _outcome(passed: bool, why: str) -> Outcome:
    """A test's outcome; inconclusive where a package is missing."""
    missing = None if passed else _MISSING.search(why)
    if missing and missing[1].split(".")[0] not in {*sys.stdlib_module_names, "solution"}:
        return Outcome(None, f"the sandbox has no package {missing[1]}; add it to verify.sandbox.packages")
    return Outcome(passed, why)


def hashed(value: Any, inside: bool = False) -> int:
    """How many huge and complex numbers are in sets and among keys: these can be crafted to collide, and are hashed here."""
    if isinstance(value, list):
        return sum(hashed(each, inside) for each in value)
    if not isinstance(value, dict):
        return 0
    if "d" in value:
        return sum(hashed(key, True) + hashed(each, inside) for key, each in value["d"])
    inner = value.get("s") or value.get("t") or []
    return inside * ("i" in value or "c" in value) + sum(hashed(each, inside or "s" in value) for each in inner)


def decided(passed: bool) -> Outcome:
    return Outcome(passed, "" if passed else "wrong answer")


class CodeVerifier:
    """Verifies programs in parallel, ``workers`` at a time. Without a sandbox every verdict is inconclusive and says why.

    ``all_count``: a program that fails one test fails, and its other tests are not run.
    """

    def __init__(self, limits: Limits, workers: int, all_count: bool = False):
        self.all_count = all_count
        self.threads = ThreadPoolExecutor(workers, "sandbox")
        self.sandbox: Sandbox | None = None
        self.most = limits.tests
        try:
            self.sandbox = Sandbox(limits)
            self.notice = self.sandbox.description
        except SandboxError as error:
            self.notice = f"no sandbox, so no code is run: {error}"

    def verify(self, item: Item) -> "Future[Verdict]":
        return self.threads.submit(timed, self._verify, item)

    def close(self) -> None:
        self.threads.shutdown(cancel_futures=True)
        if self.sandbox:
            self.sandbox.close()

    def _verify(self, item: Item) -> Verdict:
        if self.sandbox is None:
            return unknown(NAME, self.notice, hopeless=True)
        try:
            suite = suite_of(item.test_cases, self.most)
            program = program_of(item.answer or "", suite.language, suite.names)
            outcomes = Grader(self.sandbox, suite, self.all_count).grade(program)
        except BrokenTestsError as error:
            return Verdict(0.0, FAIL, one_line(str(error)), NAME, hopeless=True)
        except (ValueError, SandboxError) as error:  # tests that cannot be parsed, or not be run
            return unknown(NAME, str(error), hopeless=True)
        decided_anyway = self.all_count and any(outcome.passed is False for outcome in outcomes)
        cannot = next((outcome.why for outcome in outcomes if outcome.passed is None), None)
        if cannot and not decided_anyway:
            return unknown(NAME, f"inconclusive: {cannot}")
        passed = sum(bool(outcome.passed) for outcome in outcomes)
        why = next((f"; {outcome.why}" for outcome in outcomes if not outcome.passed), "")
        return scored(NAME, passed / len(outcomes), f"{passed} of {len(outcomes)} tests passed{why}")
