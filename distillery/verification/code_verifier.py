"""Code by its tests, in the sandbox: the score is the share of the first tests (ten, as in the study) that pass.

`verification.code_tests` lists the kinds of tests. Expected outputs never enter the sandbox that runs the program. An
assert that compares one call with a literal becomes that call, and its value is compared here. All other tests run in a
second sandbox, where the program's functions are stand-ins whose calls are answered by the first.
"""

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any

from distillery.core.errors import SandboxError
from distillery.verification.code_tests import LANGUAGES, Call, Script, Stdin, Suite, Test, modules_in, prelude, suite_of
from distillery.verification.sandbox.inside.values import decode, encode
from distillery.verification.sandbox.sandbox import Answer, Limits, Sandbox, Session
from distillery.verification.verdict import Item, Verdict, scored, unknown

NAME = "code"
TOTAL, TEN = 3, 10
MOST_HASHED = 1000
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#-]*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """One test: whether it passed, or why it did not; None where that is inconclusive."""

    passed: bool | None
    why: str = ""


def program_of(answer: str) -> str:
    """The program in a response: its last fenced block, or else all of it."""
    blocks = [body for tag, body in _FENCE.findall(answer) if tag.lower() in LANGUAGES or not tag]
    return blocks[-1] if blocks else answer


def same_output(said: str, expected: str) -> bool:
    """Whether two outputs agree line by line, apart from white space at the ends; decimals may differ by rounding."""
    ours, theirs = (text.strip().splitlines() for text in (said, expected))
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(said: str, expected: str) -> bool:
    if said.strip() == expected.strip():
        return True
    ours, theirs = said.split(), expected.split()
    return len(ours) == len(theirs) and all(map(_same_token, ours, theirs))


def _same_token(said: str, expected: str) -> bool:
    if said == expected:
        return True
    if "." not in expected or len(said) > 50 or len(expected) > 50:
        return False
    try:
        a, b = float(said), float(expected)
    except ValueError:
        return False
    return abs(a - b) <= max(1e-6, 1e-9 * abs(b))


class Grader:
    """Runs one program against a suite; every test gets ``seconds``, every ten together three times that.

    Where ``all_count``, no test is run after the first that fails.
    """

    def __init__(self, sandbox: Sandbox, suite: Suite, all_count: bool):
        self.sandbox, self.suite, self.all_count = sandbox, suite, all_count
        self.seconds = sandbox.limits.seconds
        self.total = TOTAL * self.seconds * ceil(len(suite.tests) / TEN)
        self.deadline = 0.0

    def grade(self, program: str) -> list[Outcome]:
        """One outcome per test. Raises SandboxError where the sandbox is unavailable."""
        with self.sandbox.session(self.suite.language) as session:
            loaded = session.load(program, prelude(program) if self.suite.usual else "")
            if loaded.status != "ok":
                return [Outcome(False, f"does not compile: {loaded.why}")] * len(self.suite.tests)
            self.deadline = time.monotonic() + self.total
            outcomes: list[Outcome] = []
            for test in self.suite.tests:
                skip = self.all_count and bool(outcomes) and not outcomes[-1].passed
                outcomes.append(outcomes[-1] if skip else self._test(session, test))
            return outcomes

    def _test(self, session: Session, test: Test) -> Outcome:
        seconds = min(self.seconds, self.deadline - time.monotonic())
        if seconds <= 0:
            return Outcome(False, f"all tests together took over {self.total:g} s")
        if isinstance(test, Stdin):
            answer = session.run(test.input, seconds)
            return self._ended(answer) or decided(same_output(answer.output, test.output))
        opened = session.open(test.names if isinstance(test, Script) else [], seconds)
        try:
            if failed := self._ended(opened):
                return failed
            if isinstance(test, Call):
                return self._call(session, test, seconds)
            said = opened.frame if isinstance(opened.frame, dict) else {}
            names = {name: said.get(name, {}) for name in test.names}
            return self._script(session, test, names | {name: {"module": name} for name in modules_in(test.source)}, seconds)
        finally:
            session.close()

    def _call(self, session: Session, test: Call, seconds: float) -> Outcome:
        message = {"fn": test.fn, "args": encode(test.args, []), "kwargs": {k: encode(v, []) for k, v in test.kwargs.items()}}
        answer = session.tell(message, seconds)
        if failed := self._ended(answer):
            return failed
        frame = answer.frame if isinstance(answer.frame, dict) else {}
        if "value" not in frame:
            return Outcome(False, f"{frame.get('error')}: {frame.get('message')}")
        try:
            if hashed(frame["value"]) > MOST_HASHED:
                return Outcome(False, "an answer with too many huge numbers in sets")
            return decided(test.decide(decode(frame["value"], lambda _: object())))
        except Exception as error:
            return Outcome(False, f"an answer that is no value: {type(error).__name__}")

    def _script(self, session: Session, test: Script, names: dict[str, Any], seconds: float) -> Outcome:
        """Connects two sandboxes: forwards the tests' calls to the program, and its answers back."""
        with self.sandbox.session() as tests:
            tests.load("")
            tests.open_tests(test.source, names, test.entry, seconds)
            message: Any = "go"
            while True:
                asked = tests.tell(message, seconds)
                if failed := self._ended(asked):
                    return failed
                if "unsupported" in asked.frame:
                    return Outcome(None, asked.frame["unsupported"])
                if "passed" in asked.frame:
                    return Outcome(asked.frame["passed"], asked.frame.get("error", ""))
                answer = session.tell(asked.frame, seconds)
                if failed := self._ended(answer):
                    return failed
                message = answer.frame

    def _ended(self, answer: Answer) -> Outcome | None:
        """Why a test failed where the program gave no answer, or None. A child that ends has not answered."""
        whys = {"timeout": f"took over {self.seconds:g} s", "flood": "output limit exceeded"}
        return None if answer.status == "ok" else Outcome(False, answer.why or whys.get(answer.status, answer.status))


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
        return self.threads.submit(self._verify, item)

    def close(self) -> None:
        self.threads.shutdown(cancel_futures=True)
        if self.sandbox:
            self.sandbox.close()

    def _verify(self, item: Item) -> Verdict:
        if self.sandbox is None:
            return unknown(NAME, self.notice, hopeless=True)
        try:
            suite = suite_of(item.test_cases, self.most)
            outcomes = Grader(self.sandbox, suite, self.all_count).grade(program_of(item.answer or ""))
        except (ValueError, SandboxError) as error:  # tests that cannot be parsed, or not be run
            return unknown(NAME, str(error), hopeless=True)
        if cannot := next((outcome.why for outcome in outcomes if outcome.passed is None), None):
            return unknown(NAME, f"the tests need what cannot leave the sandbox: {cannot}")
        passed = sum(bool(outcome.passed) for outcome in outcomes)
        why = next((f"; {outcome.why}" for outcome in outcomes if not outcome.passed), "")
        return scored(NAME, passed / len(outcomes), f"{passed} of {len(outcomes)} tests passed{why}")
