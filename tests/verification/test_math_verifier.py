from contextlib import closing
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.verification import math_verifier
from distillery.verification.config import Rule
from distillery.verification.router import Router
from distillery.verification.verdict import Item
from tests.support.builders import verdicts_of, verify_params


def verify(route, *pairs, category="math"):
    """The verdicts of (gold, answer) pairs, in order."""
    return verdicts_of(route, [Item(f"{i}", category, answer, ground_truth=gold) for i, (gold, answer) in enumerate(pairs)])


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"first \boxed{1} then \boxed{2}", None),
        (r"first \boxed{2} then \boxed{2}", "2"),
        (r"\boxed{a{b}{c}d}", "a{b}{c}d"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{open", r"\boxed{open"),
        (" none ", "none"),
    ],
)
def test_the_one_expression_of_a_text(text, inside):
    assert math_verifier.single_expression(text) == inside


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_rationals_are_read_exactly(top, bottom):
    assert math_verifier.rational(f"{top}/{bottom}") == Fraction(top, bottom)
    assert math_verifier.rational(str(top)) == top
    assert math_verifier.rational(rf"\frac{{{abs(top)}}}{{{bottom}}}") == Fraction(abs(top), bottom)
    assert math_verifier.rational(f"-{abs(top)} 1/{bottom}") == -(abs(top) + Fraction(1, bottom))


@pytest.mark.parametrize("text", ["1,000", "x", "1/0", "1e5", "", "١", "1 2", "½", "--1", "1/2/3"])
def test_what_is_no_plain_rational_takes_no_shortcut(text):
    assert math_verifier.rational(text) is None


GOLDEN = [
    ("24", r"\boxed{ 24 }", PASS),
    ("24", r"\boxed{ 25 }", FAIL),
    ("1/2", r"\boxed{\frac{1}{2}}", PASS),
    ("0.5", r"\boxed{\frac{1}{2}}", PASS),
    (r"\frac{\sqrt{3}}{2}", r"\boxed{\frac{\sqrt 3}{2}}", PASS),
    (r"\sqrt{8}", r"$2\sqrt{2}$", PASS),
    (r"\sqrt{8}", r"$3\sqrt{2}$", FAIL),
    (r"\{1, 2, 3\}", r"\boxed{\{3, 2, 1\}}", PASS),
    (r"\{1, 2, 3\}", r"\boxed{\{1, 2\}}", FAIL),
    ("(1, 2)", r"\boxed{(2, 1)}", FAIL),
    (r"x^2 + 2x + 1", r"\boxed{(x+1)^2}", PASS),
    ("7", "I do not know", FAIL),
    ("7", "the answer is 7", PASS),
    ("3", r"3\sqrt{2}", FAIL),
    ("12", r"12\pi", FAIL),
    ("2", r"2^{10}", FAIL),
    ("2", "2x", FAIL),
    ("5", "4 5", FAIL),
    ("3", "3 < x", FAIL),
    (r"2\pi", r"2 \pi", PASS),
    (r"\frac{\pi}{4}", r"\pi/4", PASS),
    (r"\frac{\sqrt3}{2}", r"\frac{\sqrt{3}}{2}", PASS),
    ("(1,2)", "(1, 2)", PASS),
    ("[0,1)", "[0, 1)", PASS),
    ("x^2+1", "x^2 + 1", PASS),
    ("-5", "\u22125", PASS),
    (r"\$18.90", r"\$18.90", PASS),
    (r"\$18.90", "18.9", PASS),
    ("Paris", r"\boxed{paris}", PASS),
    ("Paris", r"\boxed{Pairs}", UNKNOWN),
    (r"\text{(C)}", "C", PASS),
    ("7", None, FAIL),
    # sets, tuples, intervals
    ("1,2", r"\boxed{2, 1}", PASS),
    ("1,2", r"\boxed{1}", FAIL),
    ("1", r"\boxed{1, 2}", FAIL),
    (r"\{1,2\}", r"\boxed{1,2}", PASS),
    (r"\pm 2", r"\boxed{2,-2}", PASS),
    ("(1,2,3)", r"\boxed{(1,2)}", FAIL),
    ("(0,1)", r"\boxed{[0,1]}", FAIL),
    ("[0,1)", r"\boxed{(0,1)}", FAIL),
    (r"(-\infty,2]", r"\boxed{(-\infty, 2]}", PASS),
    (r"[1,2]\cup[3,4]", r"\boxed{[3,4]\cup[1,2]}", PASS),
    # units, percentages, mixed numbers
    ("5", r"\boxed{5\text{ cm}}", PASS),
    (r"5\text{ cm}", r"\boxed{5}", PASS),
    (r"5\text{ cm}", r"\boxed{5 cm}", PASS),
    (r"5\text{ cm}", r"\boxed{5\text{ m}}", UNKNOWN),
    ("5", "**5**", PASS),
    (r"5\text{ cm}", r"\boxed{6\text{ cm}}", FAIL),
    (r"50\%", r"\boxed{50\%}", PASS),
    (r"50\%", r"\boxed{0.5}", PASS),
    (r"50\%", r"\boxed{40\%}", FAIL),
    ("2.5", r"\boxed{2\frac{1}{2}}", PASS),
    ("2 1/2", r"\boxed{2.5}", PASS),
    ("-2 1/2", r"\boxed{-\frac{5}{2}}", PASS),
    ("2 1/2", r"\boxed{1}", FAIL),
    (r"90^\circ", r"\boxed{90}", PASS),
    # boxes: nested, the same twice, several
    ("7", r"\boxed{\boxed{7}}", PASS),
    ("2", r"so \boxed{2}, thus \boxed{2}", PASS),
    ("2", r"\boxed{1} or \boxed{2}", FAIL),
    ("1", r"\boxed{1} or \boxed{2}", FAIL),
    ("1,2", r"\boxed{1} and \boxed{2}", PASS),
    # matrices, roots, powers
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}}", PASS),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{\begin{pmatrix}1&2\\4&3\end{pmatrix}}", FAIL),
    (r"10^{-3}", r"\boxed{0.001}", PASS),
    (r"1.5 \times 10^3", r"\boxed{1500}", PASS),
    ("x=5", r"\boxed{5}", PASS),
    ("1,000", r"\boxed{1000}", PASS),
]


def test_golden_cases(route):
    found = verify(route, *[(gold, answer) for gold, answer, _ in GOLDEN])
    assert [(g, a, v.verdict) for (g, a, _), v in zip(GOLDEN, found, strict=True)] == GOLDEN


HOSTILE = {
    "a tower of powers": "$9^{9^{9^{9^{9}}}}$",
    "a factorial": "$100000000!$",
    "factorials of factorials": "$((20!)!)!$",
    "200 kB of digits": "$" + "7" * 200_000 + "$",
    "200 kB of words": "so " * 66_000,
    "5,000 brackets": "$" + "(" * 5000 + "1" + ")" * 5000 + "$",
    "5,000 fractions": r"$\frac{1}{" * 2000 + "1" + "}" * 2000 + "$",
    "5,000 boxes": r"\boxed{" * 5000 + "1" + "}" * 5000,
    "roots of roots": "$" + r"\sqrt{1+" * 1500 + "1" + "}" * 1500 + "$",
    "a sum without end": r"$\sum_{n=1}^{10^{12}} \frac{1}{n}$",
    "a great power": r"$(x+1)^{100000}$",
    "unbalanced": "$" + "{" * 5000,
}


@pytest.mark.slow
def test_hostile_mathematics_ends_as_inconclusive_and_leaves_its_neighbours_alone():
    """Two seconds per item; every hostile answer has a sound one next to it."""
    pairs = [(r"\sqrt{8}", text) for text in HOSTILE.values()]
    sound = [(r"\sqrt{8}", rf"\boxed{{\sqrt{{8}}+{i}-{i}}}") for i in range(len(pairs))]
    with closing(Router(verify_params(timeout=2.0, math=Rule("math", 0.9)))) as router:
        found = verify(router, *[pair for both in zip(pairs, sound, strict=True) for pair in both])
    assert {v.verdict for v in found[1::2]} == {PASS}, "the neighbours"
    verdicts = dict(zip(HOSTILE, found[0::2], strict=True))
    assert not [name for name, v in verdicts.items() if v.verdict == PASS]
    told = {name: v.reason for name, v in verdicts.items() if v.verdict == FAIL}
    assert not told.keys() & {"a tower of powers", "a factorial", "200 kB of digits", "5,000 brackets"}, told


def test_a_time_out_is_inconclusive_and_says_so():
    with closing(Router(verify_params(timeout=0.5, math=Rule("math", 0.9)))) as router:
        (hostile,) = verify(router, ("$100000000!$", "$100000001!$"))
    assert (hostile.verdict, hostile.score, hostile.reason) == (UNKNOWN, None, "timed out after 0.5 s")


def test_what_cannot_be_told_is_unknown_and_says_why(route):
    (missing,) = verify(route, (None, "5"))
    assert (missing.verdict, missing.reason, missing.hopeless) == (UNKNOWN, "the query has no ground truth", True)
    (words,) = verify(route, ("Paris", "Rome"))
    assert words.verdict == UNKNOWN and words.reason.startswith("the reference is words")
    (long,) = verify(route, ("5", "5" * 30_000))
    assert long.verdict == UNKNOWN and long.reason == "longer than 20000 characters"


def test_only_exact_numbers_that_differ_are_certain():
    pairs = [("2", r"\boxed{3}"), ("1/2", "2"), ("0.33", "1/3"), (r"5\text{ cm}", r"5\text{ m}")]
    found = [math_verifier.quick_verdict(*pair) for pair in pairs]
    assert [(v.verdict, v.certain) for v in found if v] == [(FAIL, True), (FAIL, True), (FAIL, False), (UNKNOWN, False)]


def test_the_same_pair_is_compared_once(route):
    pairs = [(r"\sqrt{50}", r"$5\sqrt{2}$")] * 40
    before = len(route.pool.known)
    assert {v.verdict for v in verify(route, *pairs)} == {PASS}
    assert len(route.pool.known) <= before + 1
