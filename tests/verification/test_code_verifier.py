import ast
import json
from contextlib import closing
from types import SimpleNamespace

import pytest

from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.corpus.livecodebench import cases_of
from distillery.verification.code_blocks import defined, program_of
from distillery.verification.code_tests import Call, Script, Stdin, Suite, as_call, prelude, same, suite_of
from distillery.verification.code_tests import TestsError as BadTests
from distillery.verification.code_verifier import CodeVerifier, Grader, _not_compiled, hashed
from distillery.verification.output_comparison import same_as_livecodebench, same_output
from distillery.verification.program_check import suspicion
from distillery.verification.sandbox.limits import Answer
from distillery.verification.verdict import Item
from tests.support.builders import LIMITS, verdicts_of


def verify(route, *rows):
    """The verdicts of (answer, test cases) pairs."""
    return verdicts_of(
        route, [Item(str(i), "code", answer, test_cases=json.dumps(tests)) for i, (answer, tests) in enumerate(rows)]
    )


SOLUTION = "n = int(input())\nprint(2 * n)\n"
FUNCTION = "def f(x):\n    return 2 * x\n"
STRING = 'TEXT = """\n```\n"""\nprint(TEXT, input())\n'


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("print(1)", "print(1)"),
        ("Here:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```python\nold\n```\nbetter:\n```py\nnew\n```", "new\n"),
        ("```\nbare\n```", "bare\n"),
        ("```python\nprint(1)\n```\nrun it:\n```bash\npython x.py\n```", "print(1)\n"),
        ("```python\nopen", "open"),
        (f"```python\n{SOLUTION}```\nOutput:\n```\n6\n```", SOLUTION),
        (f"```python\n{SOLUTION}```\nFor example:\n```python\nprint(2 * 3)\n```", SOLUTION),
        (f"```python\n{SOLUTION}```\nIn C++:\n```cpp\nint main() {{}}\n```", SOLUTION),
        (f"1. so:\n\n   ```python\n   {SOLUTION.strip().replace(chr(10), chr(10) + '   ')}\n   ```", SOLUTION),
        (f"````python\n{SOLUTION}````", SOLUTION),
        (f"~~~ py\n{SOLUTION}~~~", SOLUTION),
        (f"```pypy3\n{SOLUTION}```", SOLUTION),
        (f'```python title="a"\n{SOLUTION}```', SOLUTION),
        (f"```{{.python}}\n{SOLUTION}```", SOLUTION),
        (f"```python\n{SOLUTION.strip()}```\nThat is all.", SOLUTION.strip()),
        (f"```python\n{STRING}```\nDone.", STRING),
        ("\ufeff" + SOLUTION.replace("\n", "\r\n"), SOLUTION),
    ],
)
def test_the_program_is_the_last_block_that_can_be_it(answer, program):
    assert program_of(answer) == program


def test_the_program_defines_what_the_tests_use():
    answer = f"```python\n{FUNCTION}```\nUse it:\n```python\nprint(f(int(input())))\n```"
    assert program_of(answer, names=frozenset({"f"})) == FUNCTION
    parts = "```python\nimport math\n```\nand\n```python\ng = math.sqrt\n```"
    assert program_of(parts, names=frozenset({"g"})) == "g = math.sqrt\n"


@pytest.mark.parametrize("tag", ["c++", "cpp", "cxx", "c", "cc"])
def test_a_program_in_cpp(tag):
    """And not a part of one, wherever that stands."""
    whole, part = "int main(){int a; std::cin >> a;}\n", "int twice(int a){return 2 * a;}\n"
    for blocks in ((whole, part), (part, whole)):
        assert program_of("\n".join(f"```{tag}\n{block}```" for block in blocks), "cpp") == whole
    answer = f"```python\n{SOLUTION}```\n```{tag}\nint main(){{}}\n```\n```\n6\n```"
    assert program_of(answer, "cpp") == "int main(){}\n"


@pytest.mark.parametrize(
    ("said", "expected", "same", "livecodebench"),
    [
        ("6\n", "6", True, True),
        ("6  \n\n", "6\n", True, True),
        ("1  2", "1 2", True, True),
        ("6", "7", False, False),
        ("1\n2", "1 2", True, False),
        ("1\n2\n3", "1\n2\n3", True, True),
        ("1\n2\n3", "1\n7\n3", False, False),
        ("1\n2", "1\n2\n3", False, False),
        ("", "", True, True),
        ("", "0", False, False),
        ("0.30000000000000004", "0.3", True, False),
        ("0.31", "0.3", False, False),
        ("0.3000005", "0.3", True, False),
        ("1000000000.5", "1000000000.4", True, False),
        ("1000001.00", "1000000.50", False, False),
        ("3.0", "3", True, True),
        ("05", "5", True, True),
        ("1e-07", "0.0000001", True, True),
        ("-0.0", "0.0", True, True),
        ("1/2", "0.5", False, False),
        ("True", "1", False, False),
        ("yes", "YES", False, False),
        ("nan", "1.0", False, False),
        ("nan", "nan", True, True),
        ("0" * 49 + "5", "5", True, True),
        ("0" * 50 + "5", "5", False, True),
    ],
)
def test_when_two_outputs_are_equal(said, expected, same, livecodebench):
    assert same_output(said, expected) is same
    assert same_as_livecodebench(said, expected) is livecodebench


BAD = [
    *(None, "null", "[]", "{}", '{"inputs": []}', '{"inputs": ["1"], "outputs": []}', '{"asserts": ["assert ("]}', "{torn"),
    *('{"asserts": [""]}', '{"asserts": ["f(2)"]}', '{"asserts": {"assert f(1)": 1}}', '{"inputs": "12", "outputs": "34"}'),
    '{"fn_name": 5, "inputs": [[1]], "outputs": [1]}',
    *("[" * 100_000, json.dumps({"asserts": ["assert f(1) == " + "+".join("1" * 9000)]})),
    json.dumps({"asserts": ["assert f(1) == " + "-" * 200_000 + "1"]}),
]
DEEP = f'{{"fn_name": "f", "inputs": [[{"[" * 400}{"]" * 400}]], "outputs": [1]}}'


def test_arguments_nested_too_deeply_are_hopeless(route):
    (verdict,) = verdicts_of(route, [Item("x", "code", "def f(a): return 1", test_cases=DEEP)])
    assert verdict.verdict == UNKNOWN and verdict.hopeless and "nested too deeply" in verdict.reason


@pytest.mark.parametrize("cases", [*BAD, '{"language": "cobol", "inputs": ["1"], "outputs": ["1"]}'])
def test_test_cases_that_cannot_be_run_are_hopeless(route, cases):
    with pytest.raises(BadTests):
        suite_of(cases, 10)
    (verdict,) = verdicts_of(route, [Item("x", "code", "print(1)", test_cases=cases)])
    assert verdict.verdict == UNKNOWN and verdict.hopeless and verdict.reason


def test_only_the_first_ten_tests_count():
    assert len(suite_of(json.dumps({"inputs": ["1"] * 30, "outputs": ["1"] * 30}), 10).tests) == 10


def test_the_score_is_the_share_of_passed_tests(route):
    tests = {"inputs": [str(i) for i in range(10)], "outputs": [str(2 * i) for i in range(10)]}
    nine, half, none = verify(
        route,
        ("n = int(input())\nprint(2 * n if n != 9 else 0)", tests),
        ("n = int(input())\nprint(2 * n if n < 5 else 0)", tests),
        ("print('x')", tests),
    )
    assert (nine.score, nine.verdict) == (0.9, PASS) and nine.reason == "9 of 10 tests passed; wrong answer"
    assert (half.score, half.verdict) == (0.5, FAIL)
    assert (none.score, none.verdict) == (0.0, FAIL)


FORMS = {
    "by function": ("def f(a, b):\n    return a + b", {"fn_name": "f", "inputs": [[1, 2], ["a", "b"]], "outputs": [3, "ab"]}),
    "by function, one result a list of one": (
        "def f(a):\n    return [a * 2] * a",
        {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[2], [4, 4]]},
    ),
    "by function, JSON lines": ("def f(a, b):\n    return a + b", {"fn_name": "f", "inputs": ["1\n2"], "outputs": ["3"]}),
    "by a method": (
        "class Solution:\n    def f(self, a):\n        return a * 2",
        {"fn_name": "f", "inputs": [[2]], "outputs": [4]},
    ),
    "with pre-imported names": (
        "from __future__ import annotations\nclass Solution:\n    def f(self, xs: List[int]) -> float:\n"
        "        return max(Counter(xs).values(), default=-inf) * 2 if deque(xs) else pow(2, 3, 5)",
        {"fn_name": "f", "inputs": [[[1, 1, 2]], [[]]], "outputs": [4, 3]},
    ),
    "a redefined import": (
        "def gcd(a, b):\n    return (a - b) * 2",
        {"fn_name": "gcd", "inputs": [[9, 3]], "outputs": [12]},
    ),
    "a tuple in a list of one": (
        "def f(a):\n    return (a, a)",
        {"fn_name": "f", "inputs": [[2]], "outputs": [[[2, 2]]]},
    ),
    "a tuple for a list": ("def f(a):\n    return (a, a)", {"fn_name": "f", "inputs": [[2]], "outputs": [[2, 2]]}),
    "by lines of a list": ("print(int(input()) + int(input()))", {"inputs": [["1", "2"]], "outputs": [["3"]]}),
    "asserts": (
        "def f(a):\n    return a * 2",
        {"asserts": ["assert f(2) == 4", "assert not f(0)", "assert f(a=1) is 2", "assert f(1)"]},
    ),
    "asserts with set-up": (
        "def f(a):\n    return a * 2",
        {"setup": "import math", "asserts": ["assert math.isclose(f(0.1), 0.2)"]},
    ),
    "a redefined builtin": (
        "def sum(a, b):\n    return a + b",
        {"asserts": ["assert sum(1, 2) == 3"]},
    ),
    "objects of its classes": (
        "class P:\n    def __init__(self, x): self.x = x\ndef f(ps):\n    return sum(p.x for p in ps)",
        {"setup": "a = P(1)\na.x = 5", "asserts": ["assert f([a, P(2)]) == 7", "assert a.x == 5"]},
    ),
    "asserts under other keys": (
        "def f(a):\n    return a * 2",
        {"call_type": "assert", "fn_name": "f", "assert_case": ["assert f(2) == 4"]},
    ),
    "tests one by one": (
        "print(int(input()) + int(input()))",
        [{"type": "stdin_stdout", "input": "1\n2\n", "output": "3\n"}, {"input": "2\n2", "output": "4"}],
    ),
    "calls one by one": (
        "def f(a, b):\n    return a + b",
        [{"type": "function_call", "fn_name": "f", "input": [1, 2], "output": [3]}, {"input": "3\n4", "output": "7"}],
    ),
    "check(candidate)": (
        "def f(a):\n    a.sort()",
        {"fn_name": "f", "check": "def check(c):\n    a = [3, 1]\n    assert c(a) is None and a == [1, 3]"},
    ),
    "test functions": (
        "class S(list):\n    push = list.append\ndef f(x):\n    if x < 0:\n        raise ValueError('no')\n    return x",
        {
            "check": "from solution import f, S\ndef test_a():\n    assert f(1) == 1\ndef test_b():\n    try:\n        f(-1)\n"
            "    except ValueError as e:\n        assert 'no' in str(e)\n    else:\n        assert False\n"
        },
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_test_format_passes_right_and_fails_wrong_programs(route, form):
    source, tests = FORMS[form]
    wrong = (
        source.replace("* 2", "* 3")
        .replace("a + b", "[a, b]")
        .replace("(a, a)", "(a,)")
        .replace("a.sort()", "a.reverse(); a.append(1)")
    )
    wrong = wrong.replace("int(input()) + int(input())", "1").replace("p.x for", "1 for").replace("return x", "return x + 1")
    assert wrong != source
    right, not_right = verify(route, (source, tests), (wrong, tests))
    assert (right.verdict, right.score) == (PASS, 1.0), right.reason
    assert not_right.verdict == FAIL


def test_test_functions_may_be_plain_source(route):
    tests = "from solution import f\n\ndef test_one():\n    assert f(1) == 2\n\ndef test_two():\n    assert f(2) == 4\n"
    sources = ("def f(a):\n    return a * 2", "def f(a):\n    return a + 1")
    right, half = verdicts_of(route, [Item(str(i), "code", each, test_cases=tests) for i, each in enumerate(sources)])
    assert (right.verdict, half.verdict, half.score) == (PASS, FAIL, 0.5)


PYTEST = {
    "raises": "import pytest\ndef test_a():\n    with pytest.raises(ValueError):\n        f(-1)",
    "parametrize": "import pytest\n@pytest.mark.parametrize('x', [1, 2])\ndef test_a(x):\n    assert f(x) == 2 * x",
    "approx": "from pytest import approx\ndef test_a():\n    assert f(0.1) == approx(0.2)",
    "a fixture": "import pytest\n@pytest.fixture\ndef three():\n    return 3\ndef test_a(three):\n    assert f(three) == 6",
    "a folder": "def test_a(tmp_path):\n    p = tmp_path / 'a'\n    p.write_text(str(f(1)))\n    assert p.read_text() == '2'",
    "output": "def test_a(capsys):\n    print(f(1))\n    assert capsys.readouterr().out == '2\\n'",
    "a class": "class TestF:\n    def test_a(self):\n        assert f(1) == 2",
    "unittest": "import unittest\nclass TestF(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(f(1), 2)",
    "its own exception": "def test_a():\n    try:\n        g()\n        assert 0\n    except Own:\n        assert f(1) == 2",
    "input": "def test_a(monkeypatch):\n    monkeypatch.setattr('builtins.input', lambda: '4')\n    assert f(int(h())) == 8",
}


@pytest.mark.parametrize("name", PYTEST)
def test_what_pytest_offers(route, name):
    source = "class Own(Exception):\n    pass\ndef g():\n    raise Own\ndef h():\n    return input()\ndef f(x):\n"
    source += "    if x < 0:\n        raise ValueError\n    return 2 * x"
    wrong = source.replace("2 * x", "3 * x").replace("raise ValueError", "return x")
    tests = f"from solution import *\n{PYTEST[name]}\n"
    right, not_right = verdicts_of(
        route, [Item(str(i), "code", each, test_cases=tests) for i, each in enumerate((source, wrong))]
    )
    assert (right.verdict, not_right.verdict) == (PASS, FAIL), (right.reason, not_right.reason)


def test_a_package_that_the_sandbox_lacks_is_named(route):
    tests = "import no_such_package\nfrom solution import f\ndef test_one():\n    assert f(1) == 1\n"
    (verdict,) = verdicts_of(route, [Item("x", "code", "def f(a): return a", test_cases=tests)])
    assert verdict.verdict == UNKNOWN and "no package no_such_package" in verdict.reason
    (verdict,) = verify(route, ("import no_such_package\nprint(6)", {"inputs": ["3"], "outputs": ["6"]}))
    assert verdict.verdict == UNKNOWN and "no package no_such_package" in verdict.reason


def test_a_program_that_is_no_python_fails_asserts(route):
    (verdict,) = verify(route, ("def f(x:", {"asserts": ["assert f(3) == 6", "assert sorted([f(3)]) == [6]"]}))
    assert verdict.verdict == FAIL and "SyntaxError" in verdict.reason


def test_tests_that_are_no_python_fail_every_program_once(route):
    (verdict,) = verdicts_of(route, [Item("x", "code", "def f(a): return a", test_cases="``\ndef test_a():\n    assert True")])
    assert verdict.verdict == FAIL and verdict.hopeless and "no Python" in verdict.reason


@pytest.mark.parametrize(
    ("check", "wanted"),
    [
        ("from fractions import Fraction\ndef check(c):\n    assert c(1) == Fraction(1, 2)", PASS),
        ("def check(c):\n    assert c(lambda x: x) == 1", FAIL),
        ("from solution import A\ndef check(c):\n    assert isinstance(A(), A)", PASS),
    ],
)
def test_what_cannot_leave_the_sandbox_is_compared_inside_where_nothing_can_tamper_with_it(route, check, wanted):
    source = "from fractions import Fraction\nclass A:\n    pass\ndef f(x):\n    return Fraction(1, 2)"
    plain, suspicious = verify(
        route, (source, {"fn_name": "f", "check": check}), ("import os\n" + source, {"fn_name": "f", "check": check})
    )
    assert plain.verdict == wanted
    assert suspicious.verdict == (UNKNOWN if wanted == PASS else FAIL), suspicious.reason


DATA_SETS = {
    "named arguments": ("def f(a, b): return a - b", {"fn_name": "f", "inputs": [{"a": 5, "b": 3}], "outputs": [2]}, PASS),
    "rllm's functional": ("class Solution:\n    def f(self, xs: List[int]): return sum(xs)",
                          {"functional": "def check(c):\n    assert c(xs=[1, 2]) == 3\ncheck(Solution().f)"}, PASS),
    "another class": ("class Sol:\n    def f(self, x): return 2 * x", {"fn_name": "f", "inputs": [[3]], "outputs": [6]}, PASS),
    "operations of a class": ("class A:\n    def __init__(s, c): s.c = c\n    def get(s, k): return s.c - k",
                              {"fn_name": "A", "inputs": [[["A", "get"], [[2], [1]]]], "outputs": [[None, 1]]}, PASS),
    "a set for a list": ("def f(x): return {2, 1}", {"fn_name": "f", "inputs": [[3]], "outputs": [[1, 2]]}, PASS),
    "another set for a list": ("def f(x): return {2, 3}", {"fn_name": "f", "inputs": [[3]], "outputs": [[1, 2]]}, FAIL),
    "a view for a list": ("def f(x): return {1: 1, 2: 2}.keys()", {"fn_name": "f", "inputs": [[3]], "outputs": [[1, 2]]}, PASS),
    "a generator for a list": ("def f(x):\n    yield 1", {"fn_name": "f", "inputs": [[3]], "outputs": [[1]]}, FAIL),
    "not a number": ("def f(x): return float('nan')", {"fn_name": "f", "inputs": [[3]], "outputs": [float("nan")]}, PASS),
    "5,000 digits": ("def f(x): return 10**5000 + x", {"fn_name": "f", "inputs": [[3]], "outputs": [0]}, FAIL),
    "True is not 1": ("def f(x): return 1", {"asserts": ["assert f(3) is True"]}, FAIL),
    "a limit of its own": ("while True: pass", {"inputs": [""], "outputs": ["6"], "time_limit": 0.5}, FAIL),
}  # fmt: skip


@pytest.mark.parametrize(
    ("cases", "seconds", "memory"),
    [
        ({}, None, None),
        ({"time_limit": 2, "memory_limit": 256}, 2.0, 256),
        ({"time_limit": {"seconds": 1, "nanos": 500_000_000}, "memory_limit": 268_435_456}, 1.5, 256),
        ({"time_limit": "2", "memory_limit": -1}, None, None),
        ({"time_limit": True, "memory_limit": 0}, None, None),
    ],
)
def test_limits_of_rows(cases, seconds, memory):
    suite = suite_of(json.dumps(cases | {"inputs": [""], "outputs": [""]}), 10)
    assert (suite.seconds, suite.memory) == (seconds, memory)


@pytest.mark.parametrize("name", DATA_SETS)
def test_forms_and_values_of_public_data_sets(route, name):
    source, tests, wanted = DATA_SETS[name]
    (verdict,) = verify(route, (source, tests))
    assert verdict.verdict == wanted, verdict.reason
    assert name != "a limit of its own" or "CPU time limit (0.5 s)" in verdict.reason


TAMPERING = {
    "equal to all": "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "equal to all, by type": "A = type('A', (), {'__eq__': lambda *_: True})\ndef f(x): return A()",
    "by the type of a type": "t = type(int)\nN = '_' * 2\ndef f(x): return t('A', (), {N + 'eq' + N: lambda *_: 1})()",
    "by an enumeration": "import enum\nA = enum.Enum('A', {'__eq__': lambda *_: 1, 'a': 1})\ndef f(x): return A.a",
    "a subclass of int": "class A(int):\n    __eq__ = lambda *_: True\ndef f(x): return A(1)",
    "a number near all": "class A:\n    def __rsub__(self, o): return 0\n    __sub__ = __rsub__\ndef f(x): return A()",
    "a patched module": "import math\nmath.isclose = lambda *_: True\ndef f(x): return 1",
    "a patched class": "from collections import Counter\nCounter.most_common = lambda *_: [('a', 9)]\ndef f(x): return 1",
    "the end of the process": "import os\ndef f(x): os._exit(0)",
    "builtins": "__builtins__['all'] = lambda _: True\ndef f(x): return 1",
    "an all that the tests import": "def all(x): return True\ndef f(x): return 1",
    "an all by another name": "from operator import truth as all\ndef f(x): return 1",
    "frames": "def f(x):\n    try:\n        1 / 0\n    except Exception as e:\n        return e.__traceback__.tb_frame.f_back",
    "a formatter": "import string\nF = string.Formatter().get_field('0.__globals__', (f,), {})\ndef f(x): return 1",
    "names put together": "def f(x): return getattr(f, '__glo' + 'bals__')",
    "a lookup of nothing": "def f(x): return getattr(f)",
    "a lookup as a value": "g = getattr\ndef f(x): return g(f, '__globals__')",
    "evaluated text": "def f(x): return eval('1')",
    "a process": "import subprocess\ndef f(x): return 1",
    "a relative import": "from . import x\ndef f(x): return 1",
    "a relative import of a known name": "from .math import sqrt\ndef f(x): return 1",
    "a module behind a module": "import typing\ndef f(x): return typing.sys.modules",
    "a module from a module": "from typing import sys\ndef f(x): return 1",
    "a private name of a module": "import random\ndef f(x): return random._inst",
    "more of sys": "import sys\ndef f(x): return sys.modules",
    "everything of sys": "from sys import *\ndef f(x): return 1",
    "a module as a value": "import math\nm = math\ndef f(x): return 1",
    "an item of a module": "import string\nstring.x['a'] = 1\ndef f(x): return 1",
    "a computed attribute": "def f(x): setattr(x, 'a' + 'b', 1)",
    "a shared attribute": "def f(x): setattr(x, 'most_common', 1)",
    "a special keyword": "A = dict(__eq__=lambda *_: 1)\ndef f(x): return 1",
    "the class of a value": "def f(x): return x.__class__('A', (), {})",
    "the decimal context": "from decimal import getcontext\ndef f(x): getcontext().prec = 1",
    "holds all": "class A:\n    def __contains__(self, x): return True\ndef f(x): return A()",
    "a generator's frame": "def f(x): return (i for i in ()).gi_frame",
    "an empty array": "import numpy as np\ndef f(x): return np.empty(0)",
}


@pytest.mark.parametrize("name", TAMPERING)
def test_a_program_that_could_tamper_with_tests_in_its_process_is_suspicious(name):
    tests = "import numpy as np\nfrom solution import *\ndef test_a():\n    assert np.allclose(f(1), 2) and all([f(1) == 2])"
    assert suspicion(TAMPERING[name], tests)


@pytest.mark.parametrize(
    "program",
    [
        FUNCTION,
        SOLUTION,
        "import sys\nsys.setrecursionlimit(10**6)\ninput = sys.stdin.readline\nprint(input())",
        "from collections import deque, Counter\nimport heapq, math\nclass Node:\n    def __init__(self, v):\n"
        "        self.value, self.next = v, None\n    def __repr__(self):\n        return self.__class__.__name__",
        "from dataclasses import dataclass\nfrom enum import Enum\nclass C(Enum):\n    A = 1\n"
        "@dataclass(order=True)\nclass P:\n    x: int",
        "import re\nP = re.compile('a')\ndef f(x):\n    return type(x).__name__ if isinstance(x, str) else getattr(x, 'n', 0)",
        "import numpy as np\ndef f(x):\n    return float(np.linalg.norm(np.array(x)))",
    ],
)
def test_ordinary_programs_are_not_suspicious(program):
    assert suspicion(program, "from solution import f\ndef test_a():\n    assert f(1) == 2") is None


MAIN = "using namespace std;\nint main() { long long a, b; cin >> a >> b; %s }"
CPP = f"#include <fstream>\n#include <iostream>\n#include <string.h>\n#include <vector>\n{MAIN}"
RIGHT = {
    "plain": CPP % "cout << a + b << endl;",
    "small header": '#include <cstdio>\nint main() { long long a, b; scanf("%lld %lld", &a, &b); printf("%lld", a + b); }',
    "every header": f"#include <bits/stdc++.h>\n{MAIN}"
    % "vector<long long> v{a, b}; cout << accumulate(v.begin(), v.end(), 0LL);",
    "recursion": "int f(int n) { return n ? 1 + f(n - 1) : 0; }\n" + CPP % "cout << f(a) + b;",
    "deep recursion": "int f(int n) { volatile int x = n; return n ? f(n - 1) + (x != n) : 0; }\n"
    + CPP % "cout << a + b + f(200000);",
    "in a block": "```cpp\n" + CPP % "cout << a + b;" + "\n```",
    "much memory": CPP % "vector<char> v(100 << 20, 1); cout << a + b + v[5] - 1;",
}
WRONG = {
    "another sum": CPP % "cout << a - b;",
    "nothing": CPP % "",
    "no newline between": CPP % "cout << a << b;",
    "does not compile": "int main() { return x; }",
    "no main": "int f() { return 1; }",
    "template recursion": "template<int N> struct A { A<N + 1> a; };\nint main() { A<0> a; }",
    "an endless include": '#include "/tmp/solution.cpp"\nint main() {}',
    "includes a device": '#include "/dev/zero"\nint main() {}',
    "includes the system's passwords": '#include "/etc/passwd"\nint main() {}',
    "a null pointer": CPP % "int* p = nullptr; *p = 1; cout << a + b;",
    "division by zero": CPP % "cout << a / (b - b);",
    "abort": CPP % "cout << a + b << flush; abort();",
    "exit code 3": CPP % "cout << a + b; return 3;",
    "endless": CPP % "for (;;) {}",
    "a flood": CPP % "for (;;) cout << a + b;",
    "memory": CPP % "for (;;) { char* p = new char[1 << 20]; memset(p, 1, 1 << 20); }",
    "a fork bomb": "#include <unistd.h>\nint main() { for (;;) fork(); }",
    "kills all": '#include <signal.h>\n#include <stdio.h>\nint main() { kill(-1, 9); puts("7"); }',
    "reads the root": CPP % 'ifstream f("/etc/passwd"); if (f) cout << a + b;',
}


@pytest.mark.slow
def test_cpp_programs_right_and_wrong(route):
    tests = {"language": "cpp", "inputs": ["3 4\n", "1 1\n"], "outputs": ["7\n", "2\n"]}
    found = verify(route, *[(source, tests) for source in (*RIGHT.values(), *WRONG.values())])
    by_name = dict(zip((*RIGHT, *WRONG), found, strict=True))
    assert {name: by_name[name].reason for name in RIGHT if by_name[name].verdict != PASS} == {}
    assert {name: by_name[name].verdict for name in WRONG if by_name[name].verdict != FAIL} == {}
    assert by_name["does not compile"].reason.startswith("0 of 2 tests passed; does not compile: ")
    assert "CPU time limit (2 s) exceeded" in by_name["endless"].reason


def test_only_names_that_a_program_uses_are_imported_for_it():
    assert prelude("def f(xs: List[int]): return Counter(xs), pow(2, 3), lists") == (
        "from collections import Counter\nfrom typing import List\nimport sys\nsys.setrecursionlimit(50000)"
    )


def test_a_full_program_gets_imports_if_its_benchmark_says_so(route):
    deep = "def down(n): return n and down(n - 1)\nprint(down(5000) + gcd(4, 6))"
    (verdict,) = verify(route, (deep, {"inputs": [""], "outputs": ["2"], "usual": True}))
    assert verdict.verdict == PASS, verdict.reason


def test_a_string_of_digits_is_not_a_number(route):
    tests = json.loads(cases_of([[{"input": "7", "output": '"1488"', "testtype": "functional"}]], {"func_name": "f"}))
    text, number = verify(route, ("def f(n): return '1488'", tests), ("def f(n): return 1488", tests))
    assert (text.verdict, number.verdict) == (PASS, FAIL)


@pytest.mark.parametrize(("got", "expected"), [(2, 2.0), (2.0, 2), (True, 1), (1, True), (1, 1 + 1e-12)])
def test_numbers_are_compared_as_in_python_except_rounding(got, expected):
    assert same(got, expected) and not same(got + 1, expected) and not same(str(got), expected)


@pytest.mark.parametrize(
    ("source", "kwargs", "right", "wrong"),
    [
        ("assert f(2, b=1) == 4", {"b": 1}, 4, 5),
        ("assert not f(2)", {}, 0, 1),
        ("assert f(2)", {}, 1, 0),
        ("assert f(2) is True", {}, True, 1),
    ],
)
def test_an_assertion_about_one_call_is_decided_outside(source, kwargs, right, wrong):
    call = as_call(source)
    assert call is not None and (call.fn, call.args, call.kwargs) == ("f", [2], kwargs)
    assert call.decide(right) and not call.decide(wrong)


@pytest.mark.parametrize(
    "source", ["assert f(**{'b': 1}) == 4", "assert f(2) < 4", "assert 4 == 4", "assert f(x) == 4", "f(2)"]
)
def test_other_assertions_are_not(source):
    assert as_call(source) is None


def test_rounding_is_relative_to_large_numbers_and_absolute_to_small_ones():
    assert same(1e6 + 5e-4, 1e6) and not same(1e6 + 5e-3, 1e6)
    assert same(1e-12, 0.0) and not same(1e-8, 0.0) and not same(-1e6, 1e6)


def test_if_all_tests_must_pass_the_first_failure_is_the_last_run():
    """The third would pass."""
    tests = json.dumps({"inputs": ["1", "2", "3"], "outputs": ["1", "0", "3"]})
    with closing(CodeVerifier(LIMITS, 1, all_count=True)) as verifier:
        verdict = verifier.verify(Item("x", "code", "print(input())", test_cases=tests)).result()
    assert verdict.verdict == FAIL and verdict.reason.startswith("1 of 3")


def test_a_full_program_must_import_what_it_uses(route):
    (verdict,) = verify(route, ("print(gcd(4, 6))", {"inputs": [""], "outputs": ["2"]}))
    assert verdict.verdict == FAIL


def test_huge_numbers_are_counted_where_hashed():
    huge = {"i": "0x1"}
    assert hashed({"s": [huge, huge, {"c": ["0x0p+0", "0x0p+0"]}]}) == 3 and hashed([huge, {"t": [huge]}]) == 0
    assert hashed({"s": [{"t": [huge, 5]}]}) == 1 and hashed({"d": [[huge, huge], [1, {"s": [huge]}]]}) == 2


CHECKER = """
import sys
given, expected, said = (open(path).read().split() for path in sys.argv[1:])
try:
    a, b = map(int, said)
    print(int(a + b == int(given[0]) and len(expected) == 2))
except ValueError:
    print(0)
"""


@pytest.mark.parametrize(
    ("program", "checker", "verdict", "reason"),
    [
        ("n = int(input()); print(1, n - 1)", CHECKER, PASS, ""),
        ("n = int(input()); print(n - 2, 2)", CHECKER, PASS, ""),
        ("n = int(input()); print(1, n)", CHECKER, FAIL, "the row's checker rejects the output"),
        ("print('1 1 1')", CHECKER, FAIL, "the row's checker rejects the output"),
        ("raise SystemExit(3)", CHECKER, FAIL, "exit code 3"),
        ("print(1)", "print(0.5)", FAIL, "the row's checker rejects the output"),
        ("print(1)", "raise ValueError('no')", UNKNOWN, "the row's checker failed: ValueError: no"),
        ("print(1)", "pass", UNKNOWN, "the row's checker failed: it printed no number"),
        ("print(1)", "while True: pass", UNKNOWN, "the row's checker failed: timeout"),
        # It cannot reach the checker: what it prints is all that arrives there.
        ("open('/tmp/output.txt', 'w').write('5 5'); print('1 1')", CHECKER, FAIL, "the row's checker rejects the output"),
    ],
)
def test_a_rows_checker_decides_about_outputs(route, program, checker, verdict, reason):
    tests = {"inputs": ["10"], "outputs": ["4 6"], "checker": checker}
    (found,) = verify(route, (f"```python\n{program}\n```", tests))
    assert found.verdict == verdict and reason in found.reason


def test_a_checker_that_is_no_text_is_named(route):
    (verdict,) = verify(route, ("x", {"inputs": ["1"], "outputs": ["1"], "checker": [1]}))
    assert verdict.verdict == UNKNOWN and "the checker must be a program's text" in verdict.reason


def test_programs_with_pytests_tests_leave_each_other_nothing(route):
    """They share one sandbox, one after the other: no module, file or patch of one is there for the next."""
    program = "import sys\nsys.setrecursionlimit(sys.getrecursionlimit() + 100)\ndef f(x):\n    return 2 * x\n"
    tests = (
        "import os, sys\nimport pytest\nfrom solution import f\ndef test_f(tmp_path):\n    (tmp_path / 'x').write_text('')\n"
    )
    tests += "    assert f(2) == 4 and 'pytest-0' in str(tmp_path) and sys.getrecursionlimit() < 1200"
    items = [Item(str(i), "code", program + "#" * i, test_cases=tests) for i in range(4)]
    found = verdicts_of(route, items)
    assert {each.verdict for each in found} == {PASS}, [each.reason for each in found]


PARTLY = "given = open('input.txt').read()\nif given != 'open':\n    print(int(given == 'right'))\n"


@pytest.mark.parametrize(
    ("inputs", "all_count", "verdict", "reason"),
    [
        (["wrong", "open"], False, UNKNOWN, "the row's checker failed"),
        (["wrong", "open"], True, FAIL, "0 of 2 tests passed; the row's checker rejects the output"),
        (["right", "open"], True, UNKNOWN, "the row's checker failed"),
        (["right", "right"], True, PASS, "2 of 2 tests passed"),
        (["right", "wrong"], False, FAIL, "1 of 2 tests passed; the row's checker rejects the output"),
    ],
)
def test_one_inconclusive_test_leaves_a_program_open_unless_it_has_failed_anyway(inputs, all_count, verdict, reason):
    tests = json.dumps({"inputs": inputs, "outputs": inputs, "checker": PARTLY})
    verifier = CodeVerifier(LIMITS, 1, all_count)
    found = verifier.verify(Item("x", "code", "print(input())", test_cases=tests)).result(60)
    verifier.close()
    assert found.verdict == verdict and reason in found.reason and found.seconds > 0


class Answers:
    """A session that answers as told; keeps the seconds that each test was given."""

    def __init__(self, *answers):
        self.answers, self.seconds = list(answers), []

    def run(self, stdin, seconds, files=None):
        self.seconds.append(seconds)
        return self.answers.pop(0)


def grader(tests=10) -> Grader:
    suite = Suite("python", [Stdin("", "6")] * tests)
    return Grader(SimpleNamespace(limits=LIMITS), suite, False)  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "given"), [(None, 2.0), (1.5, 1.5), (19.0, 19.0), (21.0, 20.0)])
def test_a_rows_own_seconds_count_up_to_ten_times_the_usual_ones(asked, given):
    suite = Suite("python", [Stdin("", "6")], seconds=asked)
    assert Grader(SimpleNamespace(limits=LIMITS), suite, False).limits.seconds == given  # type: ignore[arg-type]


def test_ten_tests_share_three_times_the_seconds_of_one():
    found, answers = grader(), Answers(*[Answer("ok", b"6", cpu=1.5)] * 4)
    outcomes = [found._test(answers, "", test) for test in found.suite.tests]  # type: ignore[arg-type]
    assert answers.seconds == [2.0, 2.0, 2.0, 1.5]
    assert [outcome.passed for outcome in outcomes] == [True] * 4 + [False] * 6
    assert outcomes[-1].why == "all tests together took over 6 CPU s"
    assert grader(11).left == 12.0 and grader(1).left == 6.0


@pytest.mark.parametrize(
    ("answer", "passed", "why"),
    [
        (Answer("timeout"), False, "CPU time limit (2 s) exceeded"),
        (Answer("flood"), False, "output limit (1 MiB) exceeded"),
        (Answer("memory"), False, "memory limit (256 MiB) exceeded"),
        (Answer("error", why="signal 9"), False, "memory limit (256 MiB) exceeded"),
        (Answer("stalled"), None, "it waited, or was given no CPU, for longer than its time limit"),
        (Answer("dead", why="the program brought its sandbox down"), False, "the program brought its sandbox down"),
        (Answer("error", why="ModuleNotFoundError: No module named 'requests'"), None, "the sandbox has no package requests"),
        (Answer("error", why="ModuleNotFoundError: No module named 'solution'"), False, "No module named 'solution'"),
        (Answer("error", why="ModuleNotFoundError: No module named 'tkinter'"), False, "No module named 'tkinter'"),
    ],
)
def test_how_a_program_ended(answer, passed, why):
    found = grader(1)._test(Answers(answer), "", Stdin("", "6"))  # type: ignore[arg-type]
    assert found.passed is passed and why in found.why


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (Answer("error", why="solution.cpp:1:10: fatal error: ext/new.hpp: No such file or directory"), None),
        (Answer("error", why="solution.cpp:1:10: fatal error: own.hpp: No such file or directory"), False),
        (Answer("error", why="solution.cpp:1:10: error: expected ';'"), False),
        (Answer("timeout"), False),
        (Answer("stalled"), None),
    ],
)
def test_a_program_that_does_not_compile_fails_unless_the_compiler_lacks_a_header(answer, passed):
    assert _not_compiled(answer, '#include <ext/new.hpp>\n#include "own.hpp"\n').passed is passed


@pytest.mark.parametrize(
    ("blocks", "names", "program"),
    [
        (["x = 1\n", "def (\n"], [], "x = 1\n"),
        (["print(input())\n", "x = 1\n"], [], "print(input())\n"),
        (["def f(x):\n", "    return x\n"], ["f"], "def f(x):\n\n    return x\n"),
        (
            ["import sys\ndef main():\n", "    print(sys.stdin.read())\n"],
            [],
            "import sys\ndef main():\n\n    print(sys.stdin.read())\n",
        ),
        (["import math\n", "x = 1\n"], ["f"], "x = 1\n"),
        (["from solutions import f\n", "y = 2\n"], ["f"], "from solutions import f\n"),
    ],
)
def test_which_of_several_blocks_is_the_program(blocks, names, program):
    answer = "\nand\n".join(f"```python\n{block}```" for block in blocks)
    assert program_of(answer, names=frozenset(names)) == program


def test_a_block_that_does_not_parse_is_not_prolonged_to_another_that_does_not():
    assert program_of("```python\ndef (\n```\nmore (\n```\nand\n```\n") == "def (\n"


def test_names_that_a_program_defines():
    source = (
        "import numpy as np\nfrom math import sqrt\nclass A:\n    def m(self):\n        pass\nx = 1\nasync def g():\n    pass\n"
    )
    assert defined(ast.parse(source)) == {"np", "sqrt", "A", "m", "x", "g"}


def test_only_what_needs_pytest_is_run_by_pytest():
    plain = "from solution import f\ndef test_a():\n    assert f(1) == 1\ndef test_b():\n    assert f(2) == 2\n"
    scripts = [test for test in suite_of(plain, 10).tests if isinstance(test, Script)]
    assert [(test.entry, test.pytest) for test in scripts] == [(("test_a",), False), (("test_b",), False)]
    for more in ("import pytest\n", "class TestX:\n    pass\n", "def test_c(tmp_path):\n    pass\n", "class A(B):\n    pass\n"):
        (script,) = suite_of(plain + more, 10).tests
        assert isinstance(script, Script) and script.pytest and script.source == plain + more


@pytest.mark.parametrize(
    ("outputs", "accepted", "refused"),
    [
        ([[3], [4]], [3, [3]], [4, [3, 4]]),
        ([[3, 4], [5, 6]], [[3, 4]], [3]),
        ([[3]], [[3]], [3]),
        ([[[3]]], [[3], [[3]]], [3]),
    ],
)
def test_expected_values_in_a_list_of_one(outputs, accepted, refused):
    call = suite_of(json.dumps({"fn_name": "f", "inputs": [[1]] * len(outputs), "outputs": outputs}), 10).tests[0]
    assert isinstance(call, Call)
    assert [call.decide(value) for value in accepted] == [True] * len(accepted)
    assert [call.decide(value) for value in refused] == [False] * len(refused)
