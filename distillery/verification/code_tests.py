"""Parses the test cases of data sets into tests: what is called or run, and how results are checked.

JSON in four forms, the first three with an optional ``language`` (``python``, ``cpp``):

- ``{"inputs": [...], "outputs": [...], "fn_name": null}``: a program, by standard input and output; with ``fn_name``,
  a function (of the module, or of a class ``Solution``) called with each input's arguments. Such functions are written
  for graders that import the usual names (``List``, ``deque``, ``inf``), so what they mention is imported for them;
  for whole programs too where ``usual`` is true, as LiveCodeBench has it;
- ``{"asserts": ["assert f(2) == 4", ...], "setup": ""}``, or ``assert_case`` for ``asserts``;
- ``{"check": "def check(candidate): ...", "fn_name": "f"}``, one test, or without ``fn_name`` a text whose functions
  ``test_...`` are the tests; such a text may also be given alone, as in KodCode;
- ``[{"input": ..., "output": ..., "fn_name": ...}, ...]``, as DeepCoder has it, each test alone, read as the first form.

``time_limit`` (seconds) and ``memory_limit`` (MiB or bytes) are the row's own limits. ``checker`` (or ``generated_checker``,
as open-r1/codeforces has it) is a Python program that decides instead of a comparison of outputs: its arguments are the
files of the input, of the expected output and of the solution's; it accepts by printing 1.
"""

import ast
import builtins
import importlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Any

from distillery.verification.code_blocks import LANGUAGES
from distillery.verification.output_comparison import Same, same_as_livecodebench, same_output

DEEPEST = 50_000
LONG = 4300
A_MILLION = 10**6
"""A row's memory limit from here on is in bytes, not in MiB."""
USUAL = (
    *("collections", "heapq", "bisect", "itertools", "functools", "math", "operator", "string", "re"),
    *("datetime", "random", "statistics", "copy", "io", "json", "sys", "typing"),
)


class TestsError(ValueError):
    """Test cases that cannot be run; the message says why."""


class BrokenTestsError(TestsError):
    """Tests in pytest's form that are no Python: under pytest every program fails them."""


@dataclass(frozen=True)
class Call:
    """A test of one call: ``decide`` checks what it returned, outside the sandbox.

    ``script`` is the same test as a program, for values that cannot leave the sandbox.
    """

    fn: str
    args: list[Any]
    kwargs: dict[str, Any]
    decide: Callable[[Any], bool]
    script: "Script | None" = None


@dataclass(frozen=True)
class Script:
    """A test that is a program and uses the solution's ``names``.

    ``entry``: its function to call, and the arguments. ``pytest``: all tests that pytest finds in the text.
    """

    source: str
    names: list[str]
    entry: tuple[str, ...] = ()
    pytest: bool = False


@dataclass(frozen=True)
class Stdin:
    """A test by standard input and output."""

    input: str
    output: str


Test = Call | Script | Stdin


@dataclass(frozen=True)
class Suite:
    """Tests of one query.

    ``usual``: whether the program finds the usual names imported. ``same`` compares outputs. ``names``: what a program must
    define. ``seconds`` and ``memory`` (MiB) are the row's own limits. ``checker`` is a program that decides about outputs.
    """

    language: str
    tests: list[Test]
    usual: bool = False
    same: Same = same_output
    names: frozenset[str] = frozenset()
    seconds: float | None = None
    memory: int | None = None
    checker: str = ""


@cache
def usual_names() -> dict[str, str]:
    """Each name that graders import, and the line that imports it; the first module that has a name is used."""
    lines: dict[str, str] = {}
    for module in map(importlib.import_module, USUAL):
        lines.setdefault(module.__name__, f"import {module.__name__}")
        for name in getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"]):
            if not hasattr(builtins, name):
                lines.setdefault(name, f"from {module.__name__} import {name}")
    return lines


def prelude(program: str) -> str:
    """Imports of the usual names that a program mentions, and recursion as deep as LiveCodeBench allows it."""
    known = usual_names()
    deeper = ["import sys", f"sys.setrecursionlimit({DEEPEST})"]
    return "\n".join([*sorted({known[word] for word in re.findall(r"\w+", program) if word in known}), *deeper])


def suite_of(test_cases: str | None, most: int) -> Suite:
    """Reads test cases, the first ``most`` of them. Raises TestsError where they are missing or of an unknown form."""
    cases = cases_in(test_cases or "null")
    language = LANGUAGES.get(str(cases.get("language") or "python").lower())
    if language is None:
        raise TestsError(f"no sandbox for the language {cases['language']!r}")
    try:
        tests = _tests_of(cases)
    except BrokenTestsError:
        raise
    except (TypeError, ValueError, SyntaxError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        raise TestsError(f"test cases cannot be read: {type(error).__name__}: {error}") from None
    if not tests:
        raise TestsError("the query has no test cases")
    if language == "cpp" and not all(isinstance(test, Stdin) for test in tests):
        raise TestsError("C++ is tested by standard input and output only")
    usual = language == "python" and any(cases.get(name) for name in ("fn_name", "usual", "functional"))
    same = same_as_livecodebench if cases.get("usual") else same_output
    names = {
        name for test in tests if not isinstance(test, Stdin) for name in ([test.fn] if isinstance(test, Call) else test.names)
    }
    memory = _number(cases.get("memory_limit"))
    megabytes = None if memory is None else int(memory if memory < A_MILLION else memory / 2**20) or 1
    checker = cases.get("checker") or cases.get("generated_checker") or ""
    if not isinstance(checker, str):
        raise TestsError("the checker must be a program's text")
    seconds = _number(cases.get("time_limit"))
    return Suite(language, tests[:most], usual, same, frozenset(names), seconds, megabytes, checker)


def _number(value: Any) -> float | None:
    """A positive number, as it is or as ``{"seconds": ..., "nanos": ...}``; None for anything else."""
    if isinstance(value, dict):
        value = sum((_number(value.get(name)) or 0.0) * unit for name, unit in (("seconds", 1), ("nanos", 1e-9)))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e18 else None


def cases_in(text: str) -> dict[str, Any]:
    """Test cases as an object in one of the first three forms. Raises TestsError where they are in none."""
    try:
        found = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        if not re.search(r"^[ \t]*def test", text, re.MULTILINE):
            raise TestsError(f"test cases are not JSON: {error}") from None
        return {"check": text}
    if isinstance(found, list) and found and all(isinstance(test, dict) for test in found):
        name = next((test["fn_name"] for test in found if test.get("fn_name")), None)
        found = {"inputs": [t.get("input") for t in found], "outputs": [t.get("output") for t in found], "fn_name": name}
        found["wrapped"] = True
    if not isinstance(found, dict):
        raise TestsError("the query has no test cases")
    return found


def _tests_of(cases: dict[str, Any]) -> list[Test]:
    name = cases.get("fn_name") or ""
    if not isinstance(name, str):
        raise TypeError(f"fn_name must be a text, not {name!r}")
    if source := cases.get("check"):
        return as_scripts(source, name)
    if source := cases.get("functional"):
        return [as_assertion(f"{prelude(source)}\n{source}")]
    if asserts := _list(cases, "asserts") or _list(cases, "assert_case"):
        setup = cases.get("setup") or ""
        return [as_call(each, f"{setup}\n{each}") or as_assertion(f"{setup}\n{each}") for each in asserts]
    pairs = list(zip(_list(cases, "inputs"), _list(cases, "outputs"), strict=True))
    if not name:
        return [Stdin(as_stdin(given), as_stdin(expected)) for given, expected in pairs]
    values = [_json(expected) for _, expected in pairs]
    ones = [isinstance(value, list) and len(value) == 1 for value in values]
    wrapped = bool(cases.get("wrapped")) or (all(ones) and (len(ones) > 1 or isinstance(values[0][0], list)))
    return [as_function_test(name, given, expected, wrapped) for given, expected in pairs]


def _list(cases: dict[str, Any], name: str) -> list[Any]:
    found = cases.get(name) or []
    if not isinstance(found, list):
        raise TypeError(f"{name} must be a list")
    return found


def as_scripts(source: str, name: str) -> list[Test]:
    """A text's tests: its function ``check`` for the function ``name``; without a name those that pytest would find.

    Functions without arguments are called as they are, which is much faster than pytest.
    """
    if name:
        return [Script(f"{prelude(source)}\n{source}", sorted(unresolved(source) | {name}), ("check", name))]
    try:
        names, body = sorted(unresolved(source)), ast.parse(source).body
    except SyntaxError as error:
        raise BrokenTestsError(f"the tests are no Python, so that nothing passes them: {error}") from None
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    classes = any((isinstance(node, ast.ClassDef) and node.name.startswith("Test")) or _bases(node) for node in body)
    if classes or "pytest" in source or not functions or any(_arguments(node.args) for node in functions):
        return [Script(source, names, pytest=True)]
    return [Script(source, names, (node.name,)) for node in functions]


def _bases(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and bool(node.bases)


def as_assertion(source: str) -> Script:
    """A test of a few lines. Raises ValueError where nothing in them is asserted."""
    if not any(isinstance(node, ast.Assert | ast.Raise) for node in ast.walk(ast.parse(source))):
        raise ValueError(f"nothing is asserted in {source.strip()[:50]!r}")
    return Script(source, sorted(unresolved(source)))


def as_stdin(value: Any) -> str:
    """An input or output as text; some sources keep its lines as a list."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def as_function_test(name: str, given: Any, expected: Any, wrapped: bool) -> Call:
    """A call from a data set: a list of arguments, a dictionary of named ones, or one line of JSON per argument.

    ``wrapped``: the expected value may be in a list of one, as APPS and DeepCoder have it.
    """
    arguments = [json.loads(line) for line in given.split("\n") if line.strip()] if isinstance(given, str) else given
    named: dict[str, Any] = {}
    if isinstance(arguments, dict):
        named, arguments = arguments, []
    if not isinstance(arguments, list):
        raise TypeError(f"arguments must be a list, not {type(arguments).__name__}")
    value = _json(expected)
    return Call(name, arguments, named, lambda got: same(got, value) or (wrapped and same([got], value)))


def _integer(digits: str) -> int:
    """An integer of JSON, which may be longer than Python reads by itself."""
    return int(digits) if len(digits) < LONG else int(Decimal(digits))


def _json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def same(got: Any, expected: Any) -> bool:
    """Equality as data sets mean it: JSON has no tuples, and its decimals are rounded."""
    if isinstance(got, float) and isinstance(expected, float) and got != got:
        return expected != expected
    if isinstance(got, set | frozenset) and isinstance(expected, list):
        return len(got) == len(expected) and all(any(same(each, value) for value in expected) for each in got)
    if isinstance(got, int | float) and isinstance(expected, int | float):
        decimal = isinstance(got, float) or isinstance(expected, float)
        return got == expected or (decimal and abs(got - expected) <= 1e-9 * max(1.0, abs(expected)))
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(got, dict) and isinstance(expected, dict):
        plain = {str(key): value for key, value in got.items()}
        return plain.keys() == expected.keys() and all(same(plain[key], expected[key]) for key in expected)
    return type(got) is type(expected) and got == expected


def as_call(source: str, script: str = "") -> Call | None:
    """The one call that an assert compares with a literal, or None where it is anything else.

    ``script``: the whole test, for values that cannot leave the sandbox.
    """
    call = _as_call(source)
    return replace(call, script=as_assertion(script)) if call and script else call


def _as_call(source: str) -> Call | None:
    body = ast.parse(source.strip()).body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    test = body[0].test
    try:
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
            for side, other in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
                if isinstance(side, ast.Call):
                    value = ast.literal_eval(other)
                    return _call(side, _identical_to(value) if isinstance(test.ops[0], ast.Is) else _equal_to(value))
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return _call(test.operand, lambda got: not got)
        return _call(test, bool)
    except (ValueError, TypeError):
        return None


def _equal_to(value: Any) -> Callable[[Any], bool]:
    return lambda got: bool(got == value)


def _identical_to(value: Any) -> Callable[[Any], bool]:
    return lambda got: type(got) is type(value) and bool(got == value)


def _call(node: ast.expr, decide: Callable[[Any], bool]) -> Call:
    """Raises ValueError where the node is not a plain call of a function of the program with literals."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return Call(node.func.id, [ast.literal_eval(argument) for argument in node.args], named, decide)


def unresolved(source: str) -> set[str]:
    """The names that a test uses and does not define: the program's.

    Builtins are the tests' own unless they are imported from the program: it must not redefine ``len``.
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
