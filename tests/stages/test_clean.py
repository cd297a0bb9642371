import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean import Clean, clean, reason
from tests.conftest import make_query

SETTINGS = Clean(max_unicode_ratio=0.3, min_characters=4)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("   \n ", "empty"),
        ("see https://example.org/a for the figure , what is x ?", "url"),
        ("look at www.example.com and say what it sells", "url"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\nwhich is larger ?", "table"),
        ("<table><tr><td>1</td></tr></table> add them up", "table"),
        ("\\begin{tabular}{cc} a & b \\end{tabular} what is a ?", "table"),
        ("name\tage\tcity\nAnn\t3\tRome\nBen\t4\tOslo\nwho is older ?", "table"),
        ("☃★☆♞♜☃★☆♞♜ what ?", "unicode_ratio"),
        ("```python\nprint(1)", "incomplete"),
        ("Ann has 3 apples and then", "incomplete"),
        ("\\begin{align} x = 1", "incomplete"),
    ],
)
def test_what_must_go_goes(text, why):
    assert reason(text, SETTINGS) == why


@pytest.mark.parametrize(
    "text",
    [
        "What is |x| + |y| where x = -1 and y = 2 ?",
        "Find P(A | B) given P(A) = 1/2 and P(B | A) = 1/3.",
        "一个长方形的长是8厘米，宽是5厘米，求它的面积。",
        "Fix this:\n```python\n# see https://docs.python.org\nprint(1)\n```",
        "Evaluate \\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix} squared.",
        "Сколько будет 2 + 3 ?",
        "Prove that ∑ 1/n² = π²/6 ≤ 2.",
        "Write a haiku - one line --- then stop.",
        "Implement quicksort in C++",
        "Compute 12 * 15 - 3 =",
        "**Find all real x such that x^2 = 4.**",
        "What is 3 times 5 equal to",
        "f(x)=\\left\\{\\begin{array}{ll} x & x>0 \\\\ -x & x<0 \\end{array}\\right. , find f(2).",
        "求1+1的值",
        "2+2=?",
        "एक कक्षा में कितने विद्यार्थी हैं ?",
        "解方程：x＋1＝2。",
    ],
)
def test_what_is_sound_stays(text):
    assert reason(text, SETTINGS) is None


@pytest.mark.parametrize(("roles", "kept"), [("u", 1), ("uau", 1), ("su", 1), ("ua", 0), ("au", 0), ("s", 0)])
def test_a_query_ends_with_the_user_after_turns_that_alternate(roles, kept):
    names = {"u": "user", "a": "assistant", "s": "system"}
    query = make_query(messages=[{"role": names[role], "content": "what is this ?"} for role in roles])
    assert len(clean([query], SETTINGS)[0]) == kept


def test_of_duplicates_the_first_is_kept_and_the_rest_say_why():
    rows = [make_query("what is 2 + 3 ?", source="a"), make_query("what  is 2 + 3 ?", source="b")]
    kept, rejected = clean(rows, SETTINGS)
    assert [row["source"] for row in kept] == ["a"]
    assert [(row["source"], row["reason"]) for row in rejected] == [("b", "duplicate")]


@given(st.lists(st.text(max_size=40), max_size=20))
def test_no_row_is_lost_and_none_is_in_both(texts):
    rows = [make_query(text) for text in texts]
    kept, rejected = clean(rows, SETTINGS)
    assert len(kept) + len(rejected) == len(rows)
    assert len({row["id"] for row in kept}) == len(kept)
    again, none = clean(kept, SETTINGS)
    assert again == kept and none == []
