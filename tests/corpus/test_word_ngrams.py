import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.corpus.word_ngrams import POINTS, fold, words

CHARACTERS = st.characters(max_codepoint=POINTS - 1, exclude_categories=["Cs"], exclude_characters="\\,")


def reference(text: str) -> list[str]:
    """Reference word splitting with regular expressions, without LaTeX."""
    raised = lambda char: unicodedata.decomposition(char).startswith(("<super>", "<sub>"))  # noqa: E731
    plain = "".join(" " * raised(char) + fold(char) for char in text)
    spaced = re.sub(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ffff])", r" \1 ", plain)
    return re.findall(r"[^\W_]+", spaced)


def same(left: str, right: str) -> bool:
    return words(left).tolist() == words(right).tolist()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("CAFE\u0301", "caf\u00e9"),
        ("stra\u00dfe", "STRASSE"),
        ("\uff58\uff0b\uff11", "x 1"),
        ("x\u00b2", "x^2"),
        ("\uff71", "\u30a2"),
        ("\\emph{so}", "so"),
        ("\\dfrac12", "\\frac 12"),
        ("\\dfrac12", "\\frac{1}{2}"),
        ("\\tbinom5 2 x", "\\binom{5}{2}x"),
        ("\\frac1{23}", "\\frac{1}{23}"),
        ("\\frac a{12}", "\\frac{a}{12}"),
        ("\\frac x2 + y", "\\frac{x}{2}+y"),
        ("\\frac\\pi2", "\\frac{\\pi}{2}"),
        ("1000", "1,000"),
        ("1234567", "1{,}234{,}567"),
        ("10000 people", "10,\\!000 people"),
        ("5,000th", "5000th"),
        ("\uff11\uff10\uff10\uff10", "1000"),
        ("(1,100)", "(1, 100)"),
        ("[-500,500]", "[-500, 500]"),
        ("\\{1,200,300\\}", "\\{1, 200, 300\\}"),
        ("1234,567", "1234, 567"),
        ("1,2345", "1, 2345"),
        ("\\12", "12"),
        ("\u32c0", "1\u6708"),
        ("\\left(x\\right)", "(x)"),
        ("$x_{1}$", "x_1"),
        ("a \\leq b", "a \\le b"),
        ("one\u00adtwo", "onetwo"),
        ("\\text{if } x", "if x"),
        ("你好", "你 好"),
    ],
)
def test_equivalent_spellings(left, right):
    assert same(left, right) and len(words(left))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("ab", "a b"),
        ("left", ""),
        ("12", "21"),
        ("\\alpha", "\\beta"),
        ("x-1", "x1"),
        ("1000", "1 000"),
        ("\\sqrt12", "\\sqrt1 2"),
    ],
)
def test_different_texts(left, right):
    assert not same(left, right)


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("?! _ $", 0), ("你好吗", 3), ("a1 b2", 2), ("\\frac{a}{b}", 3), ("a", 1)]
)
def test_word_counts(text, count):
    assert len(words(text)) == count


def test_folding_is_idempotent_for_every_character():
    for point in range(POINTS):
        if not 0xD800 <= point < 0xE000:
            once = fold(chr(point))
            assert "".join(map(fold, once)) == once, hex(point)


@given(st.text(CHARACTERS, max_size=30))
def test_words_match_the_reference(text):
    expected = reference(text)
    assert len(words(text)) == len(expected)
    assert same(text, " ".join(expected))


@given(st.lists(st.text(CHARACTERS, min_size=1, max_size=8), max_size=6))
def test_equality_matches_the_reference(parts):
    left, right = "".join(parts), " ".join(parts)
    assert same(left, right) == (reference(left) == reference(right))


@given(st.integers(1000, 10**18), st.sampled_from([",", "{,}", ",\\!"]))
def test_thousands_separators_do_not_change_a_number(number, separator):
    parted = f"{number:,}".replace(",", separator)
    assert same(f"so ${parted}$ is it", f"so ${number}$ is it") and len(words(parted)) == 1


def test_a_combining_mark_alone_is_not_a_word():
    assert unicodedata.category("\u0301") == "Mn" and len(words("\u0301")) == 0
