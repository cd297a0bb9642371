import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.params import ParamsError
from stages.verifiers import FAIL, PASS, UNKNOWN, Item, Rule, Verdict, VerifyParams, answer_part, math, split
from stages.verifiers.pool import PoolVerifier

PARAMS = VerifyParams({"math": Rule("math", 0.9), "code": Rule("sandbox", 0.9)}, timeout=2.0, processes=1)


@pytest.fixture(scope="module")
def pool():
    verifier = PoolVerifier(PARAMS)
    yield verifier
    verifier.close()


def verify(pool, *pairs, category="math"):
    """The verdicts of (gold, answer) pairs, in order."""
    for i, (gold, answer) in enumerate(pairs):
        pool.submit(Item(str(i), category, gold, answer))
    found: dict[str, Verdict] = {}
    while len(found) < len(pairs):
        found.update(pool.poll(0.1))
    return [found[str(i)] for i in range(len(pairs))]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think> a </think> <answer> b </answer>", ("a", "b")),
        (" <think>a</think>\n<answer>b</answer>\n", ("a", "b")),
        ("<think> a </think> b", (None, None)),
        ("<answer> b </answer>", (None, None)),
        ("<think> a </think> <answer> b </answer> more", (None, None)),
        ("<think>a</think><answer>5</answer><answer>6</answer>", (None, None)),
        ("<think>a<think>b</think><answer>5</answer>", (None, None)),
        ("", (None, None)),
    ],
)
def test_only_one_think_part_and_one_answer_part_is_the_form(text, parts):
    assert split(text) == parts


def test_the_answer_part_in_free_form_is_the_last_or_all():
    assert answer_part("<answer> 1 </answer> no <answer> 2 </answer>") == "2"
    assert answer_part("so it is 2") == "so it is 2"
    assert answer_part("<think> so it is 2") is None


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"first \boxed{1} then \boxed{2}", "2"),
        (r"\boxed{a{b}{c}d}", "a{b}{c}d"),
        (r"\boxed{open", None),
        ("none", None),
    ],
)
def test_the_last_box_with_balanced_braces(text, inside):
    assert math.boxed(text) == inside


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_rationals_are_read_exactly(top, bottom):
    assert math.rational(f"{top}/{bottom}") == Fraction(top, bottom)
    assert math.rational(str(top)) == top


@pytest.mark.parametrize("text", ["1,000", "x", "1/0", "1e5", "", "١", "1 2", "½", "--1", "1/2/3"])
def test_what_is_no_plain_rational_takes_no_shortcut(text):
    assert math.rational(text) is None


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
]


def test_golden_cases(pool):
    found = verify(pool, *[(gold, answer) for gold, answer, _ in GOLDEN])
    assert [(g, a, v.verdict) for (g, a, _), v in zip(GOLDEN, found, strict=True)] == GOLDEN


def test_what_never_ends_is_unknown_in_time_and_leaves_its_neighbours_alone(pool):
    start = time.monotonic()
    hostile, good = verify(pool, ("$100000000!$", "$100000001!$"), (r"\sqrt{8}", r"\boxed{\sqrt{8}+0}"))
    assert (hostile.verdict, hostile.score, hostile.reason) == (UNKNOWN, None, "timed out after 2 s")
    assert good.verdict == PASS
    assert time.monotonic() - start < 30


def test_what_cannot_be_told_is_unknown_and_says_why(pool):
    (missing,) = verify(pool, (None, "5"))
    assert (missing.verdict, missing.reason, missing.hopeless) == (UNKNOWN, "the query has no ground truth", True)
    (code,) = verify(pool, ("x", "y"), category="code")
    assert code.verdict == UNKNOWN and "not built yet" in code.reason
    (other,) = verify(pool, ("x", "y"), category="other")
    assert other.verdict == UNKNOWN and "no rule" in other.reason


def test_the_same_pair_is_compared_once(pool):
    pairs = [(r"\sqrt{50}", r"$5\sqrt{2}$")] * 40
    assert {v.verdict for v in verify(pool, *pairs)} == {PASS}


def test_an_unknown_verifier_is_named():
    with pytest.raises(ParamsError, match=r"verify.rules.math.verifier: 'maths' is none of"):
        PoolVerifier(VerifyParams({"math": Rule("maths", 0.9)}, 1.0, 1))
