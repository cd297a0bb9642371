import re
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.reader.rendering import ATTRIBUTES, LONGEST, html_of, marked

TAG = re.compile(r"</?(?:div|span|pre|p|mark|math|m[a-z]+)((?: [a-z]+=(?:\"[^\"<>]*\"|[a-z]+))*) ?/?>")
NAMES = ATTRIBUTES | {"class", "xmlns", "style"}
"""Pygments gives its own blocks a line height."""
PIECES = [
    "<",
    ">",
    "&",
    '"',
    "$",
    "$$",
    "\\[",
    "\\]",
    "\\(",
    "\\)",
    "`",
    "```\n",
    "{",
    "}",
    "\\text{",
    "\\href{javascript:x}{",
    "\\style{x:y}{",
    "\\class{a}{",
    "<b>",
    "<script>",
    " onload=x",
    "\\frac",
    "^",
    "_",
    " ",
    "\n",
    "a",
    "1",
]


def test_mathematics_becomes_mathml():
    for text in (r"so $\frac{1}{2}$", r"so \(\frac{1}{2}\)", r"so \[\frac{1}{2}\]", r"so $$\frac{1}{2}$$"):
        assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in html_of(text)


def test_prices_are_no_mathematics():
    assert "<math" not in html_of("it costs $5 and she has $7 left")


def test_what_is_no_latex_stays_as_it_is():
    assert html_of("$}{$") == "<div class=text>$}{$</div>"


def test_code_is_coloured_and_kept():
    found = html_of("so\n```python\nif a < 1:\n    return '<b>'\n```\ndone")
    assert '<span class="k">if</span>' in found and "&lt;" in found and "<b>" not in found
    assert "done" in html_of("```nolanguage\nx\n```\ndone") and "x" in html_of("```\nx")


@pytest.mark.parametrize("formula", [r"\text{<b>x</b>}", r"\href{javascript:alert(1)}{x}", r"\style{x:y}{a}", r"\class{a}{b}"])
def test_a_formula_may_hold_nothing_but_mathematics(formula):
    assert html_of(f"${formula}$") == f"<div class=text>{escape(f'${formula}$')}</div>"


def test_a_long_text_is_cut_and_says_so():
    assert "5 more characters" in html_of("x" * (LONGEST + 5))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "$<img src=x onerror=alert(1)>$",
        "```html\n<script>\n```",
        '"><svg>',
        r"$\text{<img src=x>}$",
    ],
)
def test_no_text_becomes_markup(text):
    for found in (html_of(text), marked(text, "alert … img")):
        assert not re.search("<(?:script|img|svg)", found)


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_every_tag_and_attribute_is_one_of_ours(text):
    for tag in re.findall("<[^>]*>", html_of(text) + marked(text, text[:5])):
        found = TAG.fullmatch(tag)
        assert found and set(re.findall(r" ([a-z]+)=", found[1])) <= NAMES, tag


def test_common_words_are_marked_across_punctuation():
    found = marked("Finn has 23 coins, then gives 2 & 3", "has 23 coins then … 2 &")
    assert found.count("<mark>") == 2 and "<mark>has 23 coins, then</mark>" in found and "<mark>2 &amp;</mark>" in found
