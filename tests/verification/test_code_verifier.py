import json
from contextlib import closing

import pytest

from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.corpus.livecodebench import cases_of
from distillery.verification.code_tests import TestsError as BadTests
from distillery.verification.code_tests import prelude, same, suite_of
from distillery.verification.code_verifier import CodeVerifier, hashed, program_of, same_output
from distillery.verification.verdict import Item
from tests.support.builders import LIMITS, verdicts_of


def verify(route, *rows):
    """The verdicts of (answer, test cases) pairs."""
    return verdicts_of(
        route, [Item(str(i), "code", answer, test_cases=json.dumps(tests)) for i, (answer, tests) in enumerate(rows)]
    )


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("print(1)", "print(1)"),
        ("Here:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```python\nold\n```\nbetter:\n```py\nnew\n```", "new\n"),
        ("```\nbare\n```", "bare\n"),
        ("```python\nprint(1)\n```\nrun it:\n```bash\npython x.py\n```", "print(1)\n"),
        ("```c++\nint main(){}\n```", "int main(){}\n"),
        ("```python\nopen", "open"),
    ],
)
def test_the_program_is_the_last_block_of_a_language(answer, program):
    assert program_of(answer) == program


@pytest.mark.parametrize(
    ("said", "expected", "same"),
    [
        ("6\n", "6", True),
        ("6  \n\n", "6\n", True),
        ("1  2", "1 2", True),
        ("6", "7", False),
        ("1\n2", "1 2", False),
        ("", "", True),
        ("", "0", False),
        ("0.30000000000000004", "0.3", True),
        ("0.31", "0.3", False),
        ("1000001.00", "1000000.50", False),
        ("3.0", "3", False),
        ("yes", "YES", False),
        ("nan", "1.0", False),
    ],
)
def test_when_two_outputs_are_the_same(said, expected, same):
    assert same_output(said, expected) is same


BAD = [
    *(None, "null", "[]", "{}", '{"inputs": []}', '{"inputs": ["1"], "outputs": []}', '{"asserts": ["assert ("]}', "{torn"),
    *('{"asserts": [""]}', '{"asserts": ["f(2)"]}', '{"asserts": {"assert f(1)": 1}}', '{"inputs": "12", "outputs": "34"}'),
    *('{"fn_name": 5, "inputs": [[1]], "outputs": [1]}', '{"fn_name": "f", "inputs": [{"a": 1}], "outputs": [1]}'),
    '{"setup": "import numpy as np", "asserts": ["assert np.allclose(f(1), 2)"]}',
    *("import solution\ndef test_a():\n    assert solution.f(1)", "def test_a(tmp_path):\n    assert tmp_path"),
    "from solution import f\ndef test_a():\n    assert True\nclass TestF:\n    def test_b(self):\n        assert f(1) == 9",
    *("[" * 100_000, json.dumps({"asserts": ["assert f(1) == " + "+".join("1" * 9000)]})),
    json.dumps({"asserts": ["assert f(1) == " + "-" * 200_000 + "1"]}),
]
DEEP = f'{{"fn_name": "f", "inputs": [[{"[" * 400}{"]" * 400}]], "outputs": [1]}}'


def test_arguments_nested_too_deeply_are_unknown_for_ever(route):
    (verdict,) = verdicts_of(route, [Item("x", "code", "def f(a): return 1", test_cases=DEEP)])
    assert verdict.verdict == UNKNOWN and verdict.hopeless and "nested too deeply" in verdict.reason


@pytest.mark.parametrize("cases", [*BAD, '{"language": "cobol", "inputs": ["1"], "outputs": ["1"]}'])
def test_test_cases_that_cannot_be_run_are_unknown_for_ever(route, cases):
    with pytest.raises(BadTests):
        suite_of(cases, 10)
    (verdict,) = verdicts_of(route, [Item("x", "code", "print(1)", test_cases=cases)])
    assert verdict.verdict == UNKNOWN and verdict.hopeless and verdict.reason


def test_the_first_ten_tests_count_and_the_score_is_the_share():
    assert len(suite_of(json.dumps({"inputs": ["1"] * 30, "outputs": ["1"] * 30}), 10).tests) == 10


def test_scores(route):
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
    "by function, JSON lines": ("def f(a, b):\n    return a + b", {"fn_name": "f", "inputs": ["1\n2"], "outputs": ["3"]}),
    "by a method": (
        "class Solution:\n    def f(self, a):\n        return a * 2",
        {"fn_name": "f", "inputs": [[2]], "outputs": [4]},
    ),
    "with the usual names at hand": (
        "from __future__ import annotations\nclass Solution:\n    def f(self, xs: List[int]) -> float:\n"
        "        return max(Counter(xs).values(), default=-inf) * 2 if deque(xs) else pow(2, 3, 5)",
        {"fn_name": "f", "inputs": [[[1, 1, 2]], [[]]], "outputs": [4, 3]},
    ),
    "a usual name of its own": (
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
    "a builtin of the program's own": (
        "def sum(a, b):\n    return a + b",
        {"asserts": ["assert sum(1, 2) == 3"]},
    ),
    "objects of the program's": (
        "class P:\n    def __init__(self, x): self.x = x\ndef f(ps):\n    return sum(p.x for p in ps)",
        {"setup": "a = P(1)\na.x = 5", "asserts": ["assert f([a, P(2)]) == 7", "assert a.x == 5"]},
    ),
    "asserts by another name": (
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
def test_every_form_of_tests_passes_what_is_right_and_fails_what_is_not(route, form):
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


def test_a_text_of_test_functions_may_stand_alone(route):
    tests = "from solution import f\n\ndef test_one():\n    assert f(1) == 2\n\ndef test_two():\n    assert f(2) == 4\n"
    sources = ("def f(a):\n    return a * 2", "def f(a):\n    return a + 1")
    right, half = verdicts_of(route, [Item(str(i), "code", each, test_cases=tests) for i, each in enumerate(sources)])
    assert (right.verdict, half.verdict, half.score) == (PASS, FAIL, 0.5)


def test_tests_that_import_what_the_sandbox_lacks_cannot_be_told(route):
    tests = "import pytest\nfrom solution import f\ndef test_one():\n    with pytest.raises(ValueError):\n        f(1)\n"
    (verdict,) = verdicts_of(route, [Item("x", "code", "def f(a): raise ValueError", test_cases=tests)])
    assert verdict.verdict == UNKNOWN and verdict.hopeless and "import pytest" in verdict.reason


@pytest.mark.parametrize(
    "check",
    [
        "from fractions import Fraction\ndef check(c):\n    assert c(1) == Fraction(1, 2)",
        "def check(c):\n    assert c(lambda x: x) == 1",
        "from solution import A\ndef check(c):\n    assert A() == A()",
    ],
)
def test_tests_that_ask_for_what_cannot_leave_the_sandbox_cannot_be_told(route, check):
    source = "from fractions import Fraction\nclass A:\n    pass\ndef f(x):\n    return Fraction(1, 2)"
    (verdict,) = verify(route, (source, {"fn_name": "f", "check": check}))
    assert verdict.verdict == UNKNOWN and "cannot leave the sandbox" in verdict.reason


CPP = "#include <bits/stdc++.h>\nusing namespace std;\nint main() { long long a, b; cin >> a >> b; %s }"
RIGHT = {
    "plain": CPP % "cout << a + b << endl;",
    "no great header": '#include <cstdio>\nint main() { long long a, b; scanf("%lld %lld", &a, &b); printf("%lld", a + b); }',
    "vectors": CPP % "vector<long long> v{a, b}; cout << accumulate(v.begin(), v.end(), 0LL);",
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
    assert "took over 2 s" in by_name["endless"].reason


def test_only_what_a_program_mentions_is_imported_for_it():
    assert prelude("def f(xs: List[int]): return Counter(xs), pow(2, 3), lists") == (
        "from collections import Counter\nfrom typing import List\nimport sys\nsys.setrecursionlimit(50000)"
    )


def test_a_whole_program_has_the_usual_names_where_its_benchmark_says_so(route):
    deep = "def down(n): return n and down(n - 1)\nprint(down(5000) + gcd(4, 6))"
    (verdict,) = verify(route, (deep, {"inputs": [""], "outputs": ["2"], "usual": True}))
    assert verdict.verdict == PASS, verdict.reason


def test_a_text_of_digits_is_not_the_number(route):
    tests = json.loads(cases_of([[{"input": "7", "output": '"1488"', "testtype": "functional"}]], {"func_name": "f"}))
    text, number = verify(route, ("def f(n): return '1488'", tests), ("def f(n): return 1488", tests))
    assert (text.verdict, number.verdict) == (PASS, FAIL)


@pytest.mark.parametrize(("got", "expected"), [(2, 2.0), (2.0, 2), (True, 1), (1, True), (1, 1 + 1e-12)])
def test_numbers_are_compared_as_python_does_but_for_rounding(got, expected):
    assert same(got, expected) and not same(got + 1, expected) and not same(str(got), expected)


def test_where_all_tests_count_none_is_run_after_the_first_that_fails():
    """The third would pass."""
    tests = json.dumps({"inputs": ["1", "2", "3"], "outputs": ["1", "0", "3"]})
    with closing(CodeVerifier(LIMITS, 1, all_count=True)) as verifier:
        verdict = verifier.verify(Item("x", "code", "print(input())", test_cases=tests)).result()
    assert verdict.verdict == FAIL and verdict.reason.startswith("1 of 3")


def test_a_whole_program_must_import_what_it_uses(route):
    (verdict,) = verify(route, ("print(gcd(4, 6))", {"inputs": [""], "outputs": ["2"]}))
    assert verdict.verdict == FAIL


def test_huge_numbers_count_where_they_are_hashed():
    huge = {"i": "0x1"}
    assert hashed({"s": [huge, huge, {"c": ["0x0p+0", "0x0p+0"]}]}) == 3 and hashed([huge, {"t": [huge]}]) == 0
    assert hashed({"s": [{"t": [huge, 5]}]}) == 1 and hashed({"d": [[huge, huge], [1, {"s": [huge]}]]}) == 2
