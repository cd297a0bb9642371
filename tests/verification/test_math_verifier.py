from contextlib import closing
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.verification import math_verifier
from distillery.verification.config import Rule
from distillery.verification.futures import done
from distillery.verification.judge import JudgeReply
from distillery.verification.math_text import final_expression, key_of, number_of
from distillery.verification.math_verifier import MathVerifier
from distillery.verification.process_pool import Pool
from distillery.verification.router import Router
from distillery.verification.verdict import Item, unknown
from tests.support.builders import verdicts_of, verify_params


def verify(route, *pairs, category="math"):
    """The verdicts of (gold, answer) pairs, in order."""
    return verdicts_of(route, [Item(f"{i}", category, answer, ground_truth=gold) for i, (gold, answer) in enumerate(pairs)])


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"first \boxed{1} then \boxed{2}", "1, 2"),
        (r"first \boxed{2} then \boxed{2}", "2"),
        (r"\boxed{a{b}{c}d}", "a{b}{c}d"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{open", None),
        (r"7 or \boxed{}", None),
        (r"\fbox{42}", "42"),
        (r"\boxed {5}", "5"),
        (r"\boxed 5", "5"),
        (r"\boxed{\phantom{2}} is \boxed{4}", "4"),
        (" none ", "none"),
        ("We get 3.\n#### 5", "5"),
        ("The answer is 8 (my first try gave 7)", "8"),
        ("Final answer: **12.5**", "12.5"),
        ("The answer is 8 apples in total. Check: 3+5=8.", "8"),
    ],
)
def test_the_expression_that_is_the_answer(text, inside):
    assert final_expression(text) == inside


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_numbers_are_read_exactly(top, bottom):
    assert number_of(f"{top}/{bottom}") == Fraction(top, bottom)
    assert number_of(str(top)) == top
    assert number_of(f"{top:,}") == top
    assert number_of(rf"\frac{{{abs(top)}}}{{{bottom}}}") == Fraction(abs(top), bottom)
    assert number_of(f"-{abs(top)} 1/{bottom}") == -(abs(top) + Fraction(1, bottom))


@pytest.mark.parametrize("text", ["1,00", "x", "1/0", "", "١", "1 2", "--1", "1/2/3", "2x", "1e", "seventy-two-one"])
def test_what_is_no_number(text):
    assert number_of(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.5e3", 1500), (r"2 \times 10^{3}", 2000), ("twenty-one", 21), (r"1\frac{1}{2}", 1.5), (".5", 0.5), ("-.25", -0.25)],
)
def test_numbers_in_other_spellings(text, value):
    assert number_of(text) == value


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
    (r"5\text{ lbs}", r"\boxed{5\text{ lb}}", PASS),
    (r"5\text{ hours}", r"\boxed{5\text{ hour}}", PASS),
    (r"5\text{ ms}", r"\boxed{5\text{ m}}", UNKNOWN),
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
    ("7", r"\boxed 7", PASS),
    ("7", r"\boxed{7", FAIL),
    ("8", r"\boxed{7 and \boxed{8}", FAIL),
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
    (r"1\,234\,567", r"\boxed{1234567}", PASS),
    # equations: named by a constant, of another name, with another left side
    ("I=5", r"\boxed{I=5.0}", PASS),
    ("I=5", r"\boxed{I=6}", FAIL),
    ("e=2, f=3", r"\boxed{e=4, f=3}", FAIL),
    ("2", r"\boxed{e=2}", PASS),
    (r"\pi=3", r"\boxed{\pi=4}", FAIL),
    ("x=5", r"\boxed{y=5}", FAIL),
    ("5", r"\boxed{2+2=5}", FAIL),
    ("5", r"\boxed{x^2=5}", FAIL),
    ("5", r"\boxed{x\to5}", FAIL),
    ("7", r"\boxed{f(2)=7}", PASS),
    ("10", r"\boxed{x = 3+7 = 10}", PASS),
    ("2x+4y-3=0", r"\boxed{y = -\frac{1}{2}x + \frac{3}{4}}", PASS),
    ("3x-y+13=0", r"\boxed{3x + 4y + 14=0}", FAIL),
    ("y = x^2+2x+1", r"\boxed{2x+ 1+x^2}", PASS),
    (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"\boxed{F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}}", FAIL),
    # small numbers, which a tolerance would take for equal
    ("1/2^{99}", r"\boxed{1/2^{98}}", FAIL),
    (r"\frac{1}{2004!}", r"\boxed{\frac{1}{2006!}}", FAIL),
    (r"1.5 \times 10^{-30}", r"\boxed{2.5 \times 10^{-30}}", FAIL),
    # nothing is picked from prose where the box cannot be read
    ("7", r"There are 7 options. The answer is \boxed{}.", FAIL),
    ("7", r"We start with 7. Final: \boxed {8}", FAIL),
    ("7", r"7, but \fbox{8}", FAIL),
    ("5", r"\boxed{5} is a guess, but the answer is \boxed{", FAIL),
    ("7", "The answer is eight, not 7.", FAIL),
    ("7", r"\boxed{\text{true}} for 7", FAIL),
    # spellings that must not fail
    ("5", r"\boxed{5.}", PASS),
    ("42", r"So \fbox{42}.", PASS),
    ("35", r"\boxed{35.0\%}", PASS),
    ("0.5", r"\boxed{50\%}", PASS),
    ("0.5", r"\boxed{0.5\%}", FAIL),
    (r"\frac{1}{2}", r"\boxed{½}", PASS),
    (r"\sqrt{2}", r"\boxed{√2}", PASS),
    ("90", r"\boxed{90°}", PASS),
    (r"90^\circ", r"\boxed{\frac{\pi}{2}}", PASS),
    ("5", r"\boxed{£5}", PASS),
    ("12", r"\boxed{12 cm^2}", PASS),
    ("12", r"\boxed{\text{twelve}}", PASS),
    ("12", "thirteen", FAIL),
    (r"\emptyset", r"\boxed{\text{no solution}}", PASS),
    (r"\ln(xy)", r"\boxed{\ln x+\ln y}", PASS),
    (r"\frac{x^2}{2}+C", r"\boxed{C+\frac{1}{2}x^2}", PASS),
    ("1010_2", r"\boxed{10}", PASS),
    ("52_8", r"\boxed{528}", FAIL),
    ("2:3", r"\boxed{4:6}", PASS),
    ("2:3", r"\boxed{3:2}", FAIL),
    # intervals and inequalities
    ("[-2,7]", r"\boxed{-2 \le x \le 7}", PASS),
    ("(0, 12.5)", r"\boxed{0 < x < 12.5}", PASS),
    ("(0, 12.5)", r"\boxed{0 < x \le 12.5}", FAIL),
    (r"\{x|-2\leq x < 1\}", r"\boxed{[-2,1)}", PASS),
    # order, kinds of lists
    (r"\{1,2\}", r"\boxed{(1,2)}", FAIL),
    ("(1,2)", r"\boxed{2,1}", FAIL),
    ("(1,2),(3,4)", r"\boxed{(3,4),(1,2)}", PASS),
    ("[2, 3]", r"\boxed{2, 3}", PASS),
    ("[2, 3]", r"\boxed{2, 2, 3}", FAIL),
    (r"\pm 2021", r"\boxed{2021}", FAIL),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\boxed{(1,2)}", PASS),
    # units on anything, times, dates, cases
    (r"2x\text{ cm}", r"\boxed{2x\text{ m}}", UNKNOWN),
    (r"4\sqrt{3}\text{ cm}", r"\boxed{4\sqrt{3}}", PASS),
    ("3", r"\boxed{3z}", FAIL),
    (r"3:00 \text{ p.m.}", r"\boxed{3:00 \text{ a.m.}}", FAIL),
    ("10:30", r"\boxed{10:30 \text{ AM}}", PASS),
    ("2024-01-05", r"\boxed{2024-05-01}", FAIL),
    (r"\begin{cases} x & x>0 \\ 2x & x\le 0\end{cases}", r"\boxed{\begin{cases} 5x & x>7 \\ 9x & x\le 7\end{cases}}", FAIL),
    # choices
    ("B", r"\boxed{\text{Option B}}", PASS),
    ("B", r"\boxed{B) 12}", PASS),
    ("B", r"\boxed{D}", FAIL),
    ("B", r"\boxed{none}", FAIL),
    ("B", r"\boxed{\text{the second}}", FAIL),
    (r"\text{(B)} 12", r"\boxed{12}", PASS),
    ("31", r"\boxed{(f) 31}", FAIL),
    ("31", r"\boxed{(F) 31}", PASS),
    ("AC", r"\boxed{CA}", FAIL),
    ("A, C", r"\boxed{A}", FAIL),
    (r"\text{(A), (C)}", r"\boxed{\text{A, C}}", PASS),
    ("B", r"\boxed{12}", FAIL),
    # numbers: other bases, percent, commas
    ("A1_{16}", r"\boxed{A1}", PASS),
    ("A1_{16}", r"\boxed{1A_{16}}", FAIL),
    ("52_8", r"\boxed{52_9}", FAIL),
    ("x_1", r"\boxed{x_2}", FAIL),
    ("5", r"\boxed{500\%}", PASS),
    ("0.35", r"\boxed{35}", FAIL),
    (r"35.5\%", r"\boxed{35.5}", PASS),
    ("3,14", r"\boxed{3.14}", PASS),
    ("3,14", r"\boxed{3.15}", FAIL),
    ("1000.99", r"\boxed{1.000,99}", PASS),
    (r"\sqrt{2}", r"\boxed{1.41}", FAIL),
    (r"\sqrt{2}", r"\boxed{\sqrt{2} \approx 1.414}", PASS),
    ("3.5", r"\boxed{\approx 3.5}", PASS),
    (r"10^{20}+1", r"\boxed{10^{20}+2}", FAIL),
    # equations
    ("n=5", r"\boxed{5}", PASS),
    ("x^2+y^2=1", r"\boxed{1}", FAIL),
    ("x^2+y^2=1", r"\boxed{1-x^{2}-y^{2}=0}", PASS),
    ("y=2x", r"\boxed{f(x)=2x}", PASS),
    ("f(x)=x^2", r"\boxed{f(x)=x^3}", FAIL),
    ("f(t)=t+1", r"\boxed{f(x)=x+1}", PASS),
    (r"f(t)=\sin t", r"\boxed{f(n)=\sin n}", PASS),
    ("f(t)=t+1", r"\boxed{f(x)=x+2}", FAIL),
    ("f(t)=t+1", r"\boxed{g(x)=x+1}", FAIL),
    ("f(t)=t+x", r"\boxed{f(x)=x+x}", FAIL),
    ("f(t)=t+x", r"\boxed{f(x)=x+t}", FAIL),
    ("P(A)=0.5", r"\boxed{P(B)=0.5}", FAIL),
    ("f(a)=5", r"\boxed{f(b)=5}", FAIL),
    ("2+2=4", r"\boxed{1+1=2}", FAIL),
    ("81", r"\boxed{(x+y)^2=81}", PASS),
    (r"x \equiv 5 \pmod 7", r"\boxed{x \equiv 5 \pmod 8}", FAIL),
    ("n=3k", r"\boxed{n = 3k \text{ for any positive integer } k}", PASS),
    ("a=1, b=1, c=2", r"\boxed{a=1, b=2, c=2}", FAIL),
    ("z=2+3i", r"\boxed{z=2+4i}", FAIL),
    # inequalities
    ("x>2", r"\boxed{x<2}", FAIL),
    ("x>2", r"\boxed{2<x}", PASS),
    ("x>2", r"\boxed{x \geq 2}", FAIL),
    (r"x\ge 2", r"\boxed{[2,\infty)}", PASS),
    (r"x\le 2", r"\boxed{(-\infty,2]}", PASS),
    ("5", r"\boxed{x\ge 5}", FAIL),
    (r"[1,2]\cup[3,4]", r"\boxed{[1,2]}", FAIL),
    # lists
    ("(1,2)", r"\boxed{x=1, y=2}", PASS),
    ("(1,2)", r"\boxed{(1,2,3)}", FAIL),
    ("2,2", r"\boxed{2}", PASS),
    (r"x=\pm 3", r"\boxed{x=3, x=-3}", PASS),
    (r"x=\pm 3", r"\boxed{x=3}", FAIL),
    (r"1\pm\sqrt{2}", r"\boxed{1+\sqrt{2}}", FAIL),
    (r"1 \text{ or } 2", r"\boxed{2}", FAIL),
    # other languages, other spellings
    ("5", "因此，答案是 5。", PASS),
    ("5", "答案为6。", FAIL),
    ("5", r"所以答案是：\boxed{5}。", PASS),
    ("120000", r"\boxed{1.2e5}", PASS),
    ("120000", r"\boxed{1.3e5}", FAIL),
    ("1000", "\\boxed{1\u2009000}", PASS),
    ("1001", "\\boxed{1\u2009000}", FAIL),
    ("24", "He pays $20 and then $4, so $24 in total.", PASS),
    ("24", "He pays $20 and then $4, so $25 in total.", FAIL),
    ("e^{2x}", r"\boxed{\exp(2x)}", PASS),
    ("e^{2x}", r"\boxed{e^{3x}}", FAIL),
    ("2^{n+1}", r"\boxed{2\cdot 2^n}", PASS),
    (r"\text{no solution}", r"\boxed{\emptyset}", PASS),
    (r"\text{no solution}", r"\boxed{3}", FAIL),
    ("x^2, x>0", r"\boxed{x^2}", FAIL),
    # words and times
    (r"\text{June 20}", r"\boxed{\text{June 20th}}", PASS),
    (r"\text{Yes}", "Yes, it is.", PASS),
    (r"\text{Yes}", r"\boxed{\text{No}}", FAIL),
    (r"\text{Yes}", r"\boxed{\text{true}}", PASS),
    (r"\text{Tuesday}", r"\boxed{\text{Wednesday}}", FAIL),
    (r"\text{odd}", r"\boxed{\text{even}}", FAIL),
    (r"\text{odd}", r"\boxed{\text{uneven}}", UNKNOWN),
    (r"\text{June}", r"\boxed{\text{july}}", FAIL),
    (r"\text{East}", r"\boxed{\text{west}}", FAIL),
    (r"\text{East}", r"\boxed{\text{June}}", UNKNOWN),
    ("12:00", r"\boxed{1:00}", FAIL),
    (r"3:00 \text{ p.m.}", r"\boxed{3:00 \text{ PM}}", PASS),
    ("90", r"\boxed{90^{\circ}\text{C}}", PASS),
    (r"30^\circ", r"\boxed{60^\circ}", FAIL),
    ("0.64N", r"\boxed{0.6400 N}", PASS),
    ("5 m", r"\boxed{5}", PASS),
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
    "a large power": r"$(x+1)^{100000}$",
    "unbalanced": "$" + "{" * 5000,
}


@pytest.mark.slow
def test_hostile_mathematics_never_passes_and_does_not_affect_other_items():
    """Two seconds per item; every hostile answer has a sound one next to it."""
    pairs = [(r"\sqrt{8}", text) for text in HOSTILE.values()]
    sound = [(r"\sqrt{8}", rf"\boxed{{\sqrt{{8}}+{i}-{i}}}") for i in range(len(pairs))]
    with closing(Router(verify_params(timeout=2.0, math=Rule("math", 0.9)))) as router:
        found = verify(router, *[pair for both in zip(pairs, sound, strict=True) for pair in both])
    assert {v.verdict for v in found[1::2]} == {PASS}, "sound answers"
    verdicts = dict(zip(HOSTILE, found[0::2], strict=True))
    assert not [name for name, v in verdicts.items() if v.verdict == PASS]
    failed = {name: v.reason for name, v in verdicts.items() if v.verdict == FAIL}
    assert not failed.keys() & {"a tower of powers", "a factorial", "200 kB of digits", "5,000 brackets"}, failed


@pytest.mark.slow
def test_a_time_out_is_inconclusive_and_says_so():
    with closing(Router(verify_params(timeout=0.5, math=Rule("math", 0.9)))) as router:
        (hostile,) = verify(router, ("$100000000!$", "$100000001!$"))
    assert (hostile.verdict, hostile.score, hostile.reason) == (UNKNOWN, None, "the reference is too large to compare")


def test_inconclusive_verdicts_state_the_reason(route):
    (missing,) = verify(route, (None, "5"))
    assert (missing.verdict, missing.reason, missing.hopeless) == (UNKNOWN, "the query has no ground truth", True)
    (words,) = verify(route, ("Paris", "Rome"))
    assert words.verdict == UNKNOWN and words.reason == "not comparable: Paris and Rome"
    (long,) = verify(route, ("5", "5" * 30_000))
    assert long.verdict == UNKNOWN and long.reason == "longer than 20000 characters"


def test_only_exact_numbers_that_differ_are_certain():
    pairs = [("2", r"\boxed{3}"), ("1/2", "2"), ("0.33", "1/3"), (r"5\text{ cm}", r"5\text{ m}")]
    found = [math_verifier.quick_verdict(*pair) for pair in pairs]
    assert [(v.verdict, v.certain) for v in found if v] == [(FAIL, True), (FAIL, True), (FAIL, False)]


def test_the_same_pair_is_compared_once(route):
    pairs = [(r"\sqrt{50}", r"$5\sqrt{2}$")] * 40
    before = len(route.pool.known)
    assert {v.verdict for v in verify(route, *pairs)} == {PASS}
    assert len(route.pool.known) <= before + 1


class Scripted(Pool):
    """A pool whose comparisons end as told; keeps what it was asked."""

    def __init__(self, *reasons):
        self.reasons, self.asked = list(reasons), []

    def run(self, verifier, function, *arguments, share=1.0):
        self.asked.append((*arguments, share))
        return done(unknown(verifier, self.reasons.pop(0)).after(5))


@pytest.mark.parametrize("gold", ["1+" * 1000 + "1", "(" * 51 + "x" + ")" * 51, "\\frac{1}{" * 60 + "x" + "}" * 60])
def test_an_excessive_reference_is_given_up_at_once(gold):
    pool = Scripted()
    verdict = MathVerifier(pool, None).verify(Item("x", "math", "\\boxed{2}", ground_truth=gold)).result(0)
    assert not pool.asked
    assert verdict.verdict == UNKNOWN and verdict.hopeless and verdict.reason == "the reference is too large to compare"


def test_the_largest_reference_is_compared():
    assert not math_verifier.is_excessive("1" * 2000) and math_verifier.is_excessive("1" * 2001)
    assert not math_verifier.is_excessive("[" * 50 + "]" * 50) and not math_verifier.is_excessive("()" * 90)


def test_a_reference_that_cannot_be_compared_with_anything_is_given_up():
    pool = Scripted("timed out after 5 s", "timed out after 5 s")
    verifier = MathVerifier(pool, None)
    items = [Item(answer, "math", answer, ground_truth="a+b") for answer in ("x", "y")]
    first, second = (verifier.verify(item).result(0) for item in items)
    assert pool.asked == [("a+b", "x", 1.0), ("a+b", "x + 17", 0.2)]
    assert first.hopeless and first.seconds == 10
    assert second.hopeless and second.reason == "the reference is too large to compare" and second.seconds == 0


def test_a_time_out_that_the_answer_caused_is_no_matter_of_the_reference():
    pool = Scripted("timed out after 5 s", "x + 17 is not 9", "other")
    verifier = MathVerifier(pool, None)
    found = [verifier.verify(Item("x", "math", answer, ground_truth="x-2")).result(0) for answer in ("9^{9^{9}}", "x")]
    assert [verdict.reason for verdict in found] == ["timed out after 5 s", "other"] and not found[0].hopeless


@pytest.mark.parametrize(
    "gold",
    [
        *("9^{9^{9}}", "10^{-10^{10}}", "(10^9)!", "100000!", r"\binom{1000000}{500000}", "(x+1)^{5000}", "(a+b+c)^{30}"),
        *(r"\prod_{k=1}^n k", r"\int_0^1 x", "||||x||||", r"\sin(\sin(\sin(\sin(\sin(x)))))", "x^{-12}"),
    ],
)
def test_a_costly_reference_is_tried_first_and_given_up_before_any_answer_is_compared(gold):
    pool = Scripted("timed out after 1 s")
    verdict = MathVerifier(pool, None).verify(Item("x", "math", "y", ground_truth=gold)).result(0)
    assert pool.asked == [(gold, "x + 17", 0.2)] and verdict.hopeless


def test_a_costly_reference_that_can_be_compared_is():
    pool = Scripted("x + 17 is not 5!", "y is not 5!")
    verdict = MathVerifier(pool, None).verify(Item("x", "math", "y", ground_truth="5!")).result(0)
    assert pool.asked == [("5!", "x + 17", 0.2), ("5!", "y", 1.0)] and verdict.reason == "y is not 5!"


@pytest.mark.parametrize("gold", [r"\frac{\sqrt{3}}{2}", "x^2+y", "3x^2", r"\{1,2\}", "(-\\infty, 3]", r"2\pi r"])
def test_an_ordinary_reference_is_compared_at_once(gold):
    pool = Scripted("y is not it")
    MathVerifier(pool, None).verify(Item("x", "math", "y", ground_truth=gold)).result(0)
    assert pool.asked == [(gold, "y", 1.0)]


def test_equal_answers_share_a_key():
    halves = (r"\boxed{0.5}", "1/2", r"so $\boxed{\frac{1}{2}}$", "50/100")
    assert {key_of(answer) for answer in halves} == {"1/2"}
    assert key_of(r"\boxed{X + Y}") == key_of(r"\boxed{x+y}") == "x+y"
    assert key_of("3") != key_of("4")
    assert [key_of(answer) for answer in (None, "", r"7 or \boxed{")] == [None] * 3


@pytest.mark.parametrize(
    ("gold", "reference"),
    [("The answer is 5.", "5"), (r"so \boxed{x + 1}", "x + 1"), ("x + 1", "x + 1"), (r"\boxed{", r"\boxed{")],
)
def test_a_reference_is_taken_out_of_its_sentence(gold, reference):
    assert math_verifier.reference_of(gold) == reference


@pytest.mark.parametrize(("more", "verdict"), [(0, "pass"), (1, "unknown")])
def test_answers_up_to_the_bound_are_compared(route, more, verdict):
    end = r"so it is \boxed{5}"
    answer = "a" * (math_verifier.LONGEST + more - len(end) - 1) + " " + end
    found = MathVerifier(Scripted(), None).verify(Item("x", "math", answer, ground_truth="5")).result(0)
    assert found.verdict == verdict


def test_quick_verdicts_are_exact_and_say_when_no_doubt_is_left():
    def quick(gold, answer):
        found = math_verifier.quick_verdict(gold, answer)
        return found and (found.score, found.certain)

    assert quick("5", "{5}") == (1.0, False) and quick("x", "x") == (1.0, False) and quick("x", "y") is None
    assert quick("5", "6") == (0.0, True) and quick("5.0", "6") == (0.0, False) and quick("5", "6.5") == (0.0, False)
    assert quick("5", r"\boxed{") == (0.0, False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\ln(x^2)", r"2\ln x", True),
        (r"\ln(x^2)", r"3\ln x", False),
        (r"\ln x + y", r"y + \ln x", True),
        (r"\ln x", r"\ln y", False),
        (r"\ln 2", r"\ln 3", False),
        (r"\log x", r"\ln x", False),
    ],
)
def test_functions_with_logarithms_are_compared_at_points(one, other, same):
    assert math_verifier.equal_by_library(one, other) is same


def test_the_judges_seconds_come_on_top():
    verdict = unknown("math", "open").after(2.0)
    for words in ("yes", None):
        assert MathVerifier(Scripted(), None)._decided(verdict, JudgeReply(words, "why", 0.5)).seconds == 2.5


def test_the_seconds_of_a_reference_that_is_given_up_at_once():
    pool = Scripted("timed out after 1 s")
    assert MathVerifier(pool, None).verify(Item("x", "math", "y", ground_truth="9^{9^{9}}")).result(0).seconds == 5
