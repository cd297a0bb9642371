import pytest

from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.verification.choice_verifier import LAST, ChoiceVerifier, is_choice, options_of, verdict_of
from distillery.verification.verdict import Item

QUESTION = """Which planet is the largest?
A) Mars
B. **Jupiter**
(C) Saturn
D: The Moon, which is no planet"""
INLINE = r"What is 3+4? (A) 5 (B) $7$ (C) \frac{1}{2}"


@pytest.mark.parametrize(("more", "verdict"), [(0, PASS), (1, UNKNOWN)])
def test_prose_is_searched_at_the_end(more, verdict):
    named = "answer: B"
    text = f"{named} {'x' * (LAST - len(named) - 1 + more)}"
    assert (
        ChoiceVerifier().verify(Item("x", "choice", text, ({"role": "user", "content": QUESTION},), "B")).result(0).verdict
        == verdict
    )


def test_options_are_read_from_a_question():
    assert options_of(QUESTION) == {"A": "mars", "B": "jupiter", "C": "saturn", "D": "the moon, which is no planet"}
    assert options_of(INLINE) == {"A": "5", "B": "7", "C": r"\frac{1}{2}"}
    assert options_of("What is (B) here? Nothing follows from A.") == {}
    assert is_choice("B", QUESTION) and is_choice("Jupiter", QUESTION) and not is_choice("Pluto", QUESTION)
    assert not is_choice("B", "no options")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("B", PASS),
        ("b", PASS),
        ("(B)", PASS),
        ("B. Jupiter", PASS),
        ("Jupiter", PASS),
        ("**Jupiter.**", PASS),
        (r"\boxed{B}", PASS),
        (r"\boxed{\text{(B) Jupiter}}", PASS),
        (r"so $\boxed{\text{Jupiter}}$.", PASS),
        ("The largest is Jupiter, so the answer is B.", PASS),
        ("Mars is small (A). Thus the correct answer is (B) Jupiter, not C.", PASS),
        ("So our selection is option B. #### B", PASS),
        ("Option A is wrong. B is the correct choice.", PASS),
        ("Let us see.\n\nB) Jupiter", PASS),
        ("因此答案是 B", PASS),
        ("C", FAIL),
        ("Saturn", FAIL),
        ("The answer is A.", FAIL),
        (r"\boxed{A} or \boxed{B}", UNKNOWN),
        ("The answer is A or maybe the answer is B", UNKNOWN),
        ("I do not know", UNKNOWN),
        (r"B? \boxed{", UNKNOWN),
        ("", UNKNOWN),
        ("Pluto", UNKNOWN),
    ],
)
def test_what_an_answer_chooses(answer, verdict):
    assert verdict_of("B", answer, QUESTION).verdict == verdict
    assert verdict_of("Jupiter", answer, QUESTION).verdict == verdict


def test_a_reference_that_is_no_option_is_hopeless():
    found = verdict_of("Pluto", "B", QUESTION)
    assert found.verdict == UNKNOWN and found.hopeless


def test_two_options_are_enough_and_one_is_not():
    assert options_of("Which?\nA) yes\nB) no") == {"A": "yes", "B": "no"}
    assert options_of("Which?\nA) yes") == {} and not is_choice("A", "Which?\nA) yes")


def test_of_many_named_options_the_last_two_decide():
    said = "The answer is A. No: the answer is C. Indeed the answer is B. The answer is B."
    assert verdict_of("B", said, QUESTION).verdict == PASS
    found = verdict_of("B", said + " Or the answer is C.", QUESTION)
    assert found.verdict == UNKNOWN and found.reason == "several options: B, C"


def test_verdicts_say_what_was_chosen():
    assert verdict_of("B", "C", QUESTION).reason == "option C for B" and verdict_of("B", "C", QUESTION).certain
    assert verdict_of("B", "Pluto", QUESTION).reason == "no option is named"


def test_the_verifier_needs_a_reference_and_reads_the_item():
    turns = ({"role": "user", "content": QUESTION},)
    verifier = ChoiceVerifier()
    assert verifier.verify(Item("x", "science", "Jupiter", turns, "B")).result(0).verdict == PASS
    assert verifier.verify(Item("x", "science", "Mars", turns, "B")).result(0).verdict == FAIL
    missing = verifier.verify(Item("x", "science", "B", turns)).result(0)
    assert missing.verdict == UNKNOWN and missing.hopeless and missing.reason == "the query has no ground truth"


def test_only_the_end_of_a_long_answer_is_searched():
    named, filler = "The answer is C. ", "and so on it goes, "
    assert verdict_of("B", named + filler * 120 + "the answer is B.", QUESTION).verdict == PASS
