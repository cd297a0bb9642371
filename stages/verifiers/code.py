"""Code by its tests, in the sandbox: the score is the share of the first tests (ten, as in the study) that pass.

Test cases (JSON) come in three forms, all with an optional ``language`` (``python``, ``cpp``):

- ``{"inputs": [...], "outputs": [...], "fn_name": null}``: a program, by standard input and output; with ``fn_name``,
  a function (of the module, or of a class ``Solution``) called with each input's arguments;
- ``{"asserts": ["assert f(2) == 4", ...], "setup": ""}``;
- ``{"check": "def check(candidate): ...", "fn_name": "f"}``, one test, or without ``fn_name`` a text whose functions
  ``test_...`` are the tests.

Expected outputs never enter the sandbox that runs the program. An assert that compares one call with a literal becomes
that call, and its value is compared here. All other tests run in a second sandbox, where the program's functions are
stand-ins whose calls are answered by the first.
"""

import ast
import builtins
import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stages.sandbox import Answer, Limits, Sandbox, SandboxError, Session, decode, encode
from stages.verifiers import Item, Verdict, scored, unknown

NAME = "code"
TOTAL = 3
MOST_HASHED = 1000
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#-]*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_LANGUAGES = {"py": "python", "python": "python", "python3": "python", "cpp": "cpp", "c++": "cpp", "cc": "cpp"}


class TestsError(ValueError):
    """Test cases that cannot be run; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """One test: whether it passed, or why it did not; None where nobody can tell."""

    passed: bool | None
    why: str = ""


@dataclass(frozen=True)
class Call:
    """A test that one call decides: ``decide`` looks at what it returned, out here."""

    fn: str
    args: list[Any]
    kwargs: dict[str, Any]
    decide: Callable[[Any], bool]


@dataclass(frozen=True)
class Script:
    """A test that must run beside stand-ins for the program's ``names``; ``entry``: what to call in it, and with what."""

    source: str
    names: list[str]
    entry: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stdin:
    """A test by standard input and output."""

    input: str
    output: str


Test = Call | Script | Stdin


@dataclass(frozen=True)
class Suite:
    language: str
    tests: list[Test]


def program_of(answer: str) -> str:
    """The program in a response: its last fenced block, or else all of it."""
    blocks = [body for tag, body in _FENCE.findall(answer) if tag.lower() in _LANGUAGES or not tag]
    return blocks[-1] if blocks else answer


def suite_of(test_cases: str | None, most: int) -> Suite:
    """Reads test cases, the first ``most`` of them. Raises TestsError where they are missing or of no known form."""
    try:
        cases = json.loads(test_cases or "null")
    except ValueError as error:
        raise TestsError(f"test cases are not JSON: {error}") from None
    if not isinstance(cases, dict):
        raise TestsError("the query has no test cases")
    language = _LANGUAGES.get(str(cases.get("language") or "python").lower())
    if language is None:
        raise TestsError(f"no sandbox for the language {cases['language']!r}")
    try:
        tests = _tests_of(cases)
    except (TypeError, ValueError, SyntaxError, KeyError, AttributeError) as error:
        raise TestsError(f"test cases cannot be read: {type(error).__name__}: {error}") from None
    if not tests:
        raise TestsError("the query has no test cases")
    if language == "cpp" and not all(isinstance(test, Stdin) for test in tests):
        raise TestsError("C++ is tested by standard input and output only")
    return Suite(language, tests[:most])


def _tests_of(cases: dict[str, Any]) -> list[Test]:
    if source := cases.get("check"):
        if name := cases.get("fn_name"):
            return [Script(source, sorted(unresolved(source) | {name}), ("check", name))]
        functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        return [Script(source, sorted(unresolved(source)), (name,)) for name in functions if name.startswith("test")]
    if cases.get("asserts"):
        setup = cases.get("setup") or ""
        if isinstance(cases["asserts"], str):
            raise TypeError("asserts must be a list")
        return [
            as_call(each) or Script(f"{setup}\n{each}", sorted(unresolved(f"{setup}\n{each}"))) for each in cases["asserts"]
        ]
    pairs = list(zip(cases.get("inputs") or [], cases.get("outputs") or [], strict=True))
    if not cases.get("fn_name"):
        return [Stdin(as_stdin(given), as_stdin(expected)) for given, expected in pairs]
    return [as_function_test(cases["fn_name"], given, expected) for given, expected in pairs]


def as_stdin(value: Any) -> str:
    """An input or output as text; some sources keep its lines as a list."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def as_function_test(name: str, given: Any, expected: Any) -> Call:
    """A call from a data set: a list of arguments, or a line of JSON an argument."""
    arguments = [json.loads(line) for line in given.split("\n") if line.strip()] if isinstance(given, str) else list(given)
    value = _json(expected)
    return Call(name, arguments, {}, lambda got: same(got, value) or (isinstance(value, list) and [got] == value))


def _json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def same(got: Any, expected: Any) -> bool:
    """Equality as data sets mean it: JSON has no tuples, and its decimals are rounded."""
    if isinstance(got, float) and isinstance(expected, int | float) and not isinstance(expected, bool):
        return got == expected or abs(got - expected) <= 1e-9 * max(1.0, abs(expected))
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(got, dict) and isinstance(expected, dict):
        plain = {str(key): value for key, value in got.items()}
        return plain.keys() == expected.keys() and all(same(plain[key], expected[key]) for key in expected)
    return type(got) is type(expected) and got == expected


def as_call(source: str) -> Call | None:
    """The one call that an assert compares with a literal, or None where it is anything else."""
    body = ast.parse(source.strip()).body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    test = body[0].test
    try:
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
            for side, other in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
                if isinstance(side, ast.Call):
                    return _call(side, _equal_to(ast.literal_eval(other)))
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return _call(test.operand, lambda got: not got)
        return _call(test, bool)
    except (ValueError, TypeError):
        return None


def _equal_to(value: Any) -> Callable[[Any], bool]:
    return lambda got: bool(got == value)


def _call(node: ast.expr, decide: Callable[[Any], bool]) -> Call:
    """Raises ValueError where the node is no plain call of a function of the program with literals."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return Call(node.func.id, [ast.literal_eval(argument) for argument in node.args], named, decide)


def unresolved(source: str) -> set[str]:
    """The names that a test uses and does not define: the program's.

    Builtins are the tests' own unless they are imported from the program: it must not say what ``len`` is.
    """
    tree = ast.parse(source)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    taken = {argument.arg for node in ast.walk(tree) if isinstance(node, ast.arguments) for argument in _arguments(node)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    brought = {
        (bool(isinstance(node, ast.ImportFrom) and node.module == "solution"), a.name, (a.asname or a.name).split(".")[0])
        for node in imports
        for a in node.names
    }
    own = {name for ours, name, _ in brought if ours}
    return (used - stored - defined - taken - {alias for _, _, alias in brought} - set(dir(builtins))) | own


def modules_in(source: str) -> set[str]:
    """Modules of the standard library that a test uses without importing them: some data sets leave that to the program."""
    nodes = list(ast.walk(ast.parse(source)))
    bases = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return (bases - called) & set(sys.stdlib_module_names)


def _arguments(node: ast.arguments) -> list[ast.arg]:
    return [*node.posonlyargs, *node.args, *node.kwonlyargs, *filter(None, (node.vararg, node.kwarg))]


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
    """Runs one program against a suite; every test gets ``seconds``, all together three times that."""

    def __init__(self, sandbox: Sandbox, suite: Suite):
        self.sandbox, self.suite = sandbox, suite
        self.seconds = sandbox.limits.seconds
        self.deadline = 0.0

    def grade(self, program: str) -> list[Outcome]:
        """An outcome a test. Raises SandboxError where no sandbox can be had."""
        with self.sandbox.session(self.suite.language) as session:
            loaded = session.load(program)
            if loaded.status != "ok":
                return [Outcome(False, f"does not compile: {loaded.why}")] * len(self.suite.tests)
            self.deadline = time.monotonic() + TOTAL * self.seconds
            return [self._test(session, test) for test in self.suite.tests]

    def _test(self, session: Session, test: Test) -> Outcome:
        seconds = min(self.seconds, self.deadline - time.monotonic())
        if seconds <= 0:
            return Outcome(False, f"all tests together took over {TOTAL * self.seconds:g} s")
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
        """Two sandboxes talk: what the tests call is carried to the program, and its answer back."""
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
        whys = {"timeout": f"took over {self.seconds:g} s", "flood": "said too much"}
        return None if answer.status == "ok" else Outcome(False, answer.why or whys.get(answer.status, answer.status))


def hashed(value: Any, inside: bool = False) -> int:
    """How many huge and complex numbers stand in sets and among keys: such can be made to collide, and we hash them here."""
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
    """Verifies programs side by side, ``workers`` at a time. Without a sandbox every verdict is unknown and says why."""

    def __init__(self, limits: Limits, workers: int):
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
            outcomes = Grader(self.sandbox, suite).grade(program_of(item.answer or ""))
        except TestsError as error:
            return unknown(NAME, str(error), hopeless=True)
        except SandboxError as error:
            return unknown(NAME, str(error), hopeless=True)
        if cannot := next((outcome.why for outcome in outcomes if outcome.passed is None), None):
            return unknown(NAME, f"the tests ask for what cannot leave the sandbox: {cannot}")
        passed = sum(bool(outcome.passed) for outcome in outcomes)
        why = next((f"; {outcome.why}" for outcome in outcomes if not outcome.passed), "")
        return scored(NAME, passed / len(outcomes), f"{passed} of {len(outcomes)} tests passed{why}")
