import json
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.errors import DataError
from distillery.core.schemas import QUERY
from distillery.core.tables import part_paths, read_table, write_table
from distillery.corpus.arrow_text import classes, flat
from stages import clean as clean_stage
from stages.clean import REASONS, Clean, clean, measured, reasons
from tests.support.builders import make_query

SETTINGS = Clean(max_unicode_ratio=0.3, min_characters=4)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=20)


def why(*texts):
    """The rejection reason of each text, None if kept."""
    messages = pa.array([[{"role": "user", "content": text}] for text in texts], QUERY.field("messages").type)
    return [REASONS[code] if code >= 0 else None for code in reasons(messages, SETTINGS)]


def cleaned(rows):
    """Kept and rejected rows, as `clean` splits sorted rows."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), QUERY)
    return tuple(part.to_pylist() for part in clean(table, SETTINGS))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("   \n ", "empty"),
        ("see https://example.org/a for the figure , what is x ?", "url"),
        ("look at www.example.com and say what it sells", "url"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\nwhich is larger ?", "table"),
        ("| a | b |\r\n|---|---|\r\n| 1 | 2 |\r\nadd them up", "table"),
        ("a | b\n:-: | :-:\n1 | 2\nadd them up", "table"),
        ("```python\r\nprint(1)", "incomplete"),
        ("``` python title=a.py\nprint(`x`", "incomplete"),
        ("<table><tr><td>1</td></tr></table> add them up", "table"),
        ("\\begin{tabular}{cc} a & b \\end{tabular} what is a ?", "table"),
        ("name\tage\tcity\nAnn\t3\tRome\nBen\t4\tOslo\nwho is older ?", "table"),
        ("☃★☆♞♜☃★☆♞♜ what ?", "unicode_ratio"),
        ("```python\nprint(1)", "incomplete"),
        ("Ann has 3 apples and then", "incomplete"),
        ("\\begin{align} x = 1", "incomplete"),
        ("Solve \\[ x^2 = 4", "incomplete"),
        ("Find \\( x \\) and \\( y", "incomplete"),
        ("Evaluate $$\\int_0^1 x dx", "incomplete"),
        ("Sort the list and print it (", "incomplete"),
        ("小明有三个苹果，", "incomplete"),
        ("```\nfirst\n```\nthen\n```c\nint main() {", "incomplete"),
        ("Summarise https://en.wikipedia.org/wiki/Dota_2 for me.", "url"),
        ("HTTP://EXAMPLE.ORG/ what is there ?", "url"),
        ("a | b | c\n--- | --- | ---\n1 | 2 | 3\nadd the columns", "table"),
        ("\\begin{tabular}{|l|} x \\\\ \\hline \\end{tabular} count the rows", "table"),
        ("\\begin{longtable}{ll} a & b \\end{longtable} what is b ?", "table"),
        ("What does ![a plot](plot.png) show ?", "image"),
        ("<img src='x.gif'> what is it ?", "image"),
        ("\\includegraphics[width=3cm]{fig1} find the area.", "image"),
        ("The file chart.png holds the data ; how many bars are there ?", "image"),
        ("Find the area of the triangle shown in the figure.", "image"),
        ("In the diagram below, AB is parallel to CD. Find x.", "image"),
        ("如图所示，求阴影部分的面积。", "image"),
    ],
)
def test_bad_texts_are_rejected(text, reason):
    assert why(text) == [reason]


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
        "Let $A = \\left[ 0, 1 \\right]$ ; find its length. Line one \\\\[2pt] line two.",
        "Given \\[ x + y = 3 \\] and \\( x - y = 1 \\), find x.",
        "Escape a bracket in the pattern `\\(` of Python.",
        "Fix this:\n```python\nre.compile(r'\\(')  # see www.example.com\n```",
        "Wrap the answer in JSON. You may use markdown ticks such as ```.",
        "For example:\n```JSON\n{\n}\n```\nUse ticks such as ```.",
        "It costs $5 and sells for $7. What is the gain ?",
        "What figure do 30 % of 200 make ?",
        "Draw a diagram of the water cycle in words.",
        "Find the area of the triangle shown in the figure. [asy] draw((0,0)--(1,0)--(0,1)--cycle); [/asy]",
        "Write a function that gives the image of a set under a map f.",
        "Explain the protocol http in a sentence.",
        "a\tb on one line is no table",
        "在有向图中求最短路径。",
        "例如图书馆，每周上图书馆几次？",
        "Escribe una carta formal a un señor",
        "My function is shown below ; what does it print ?",
        "v lies in the image, i.e. v = Aw. Find w.",
        "Find the area, as shown in the figure.\n```asy\ndraw((0,0)--(1,1));\n```",
        "Tell me a joke :(",
        "Is $$$$ a price ?",
        "Why does echo $$ print a number ?",
        "What does ~~~\nsee www.example.com\n~~~ hold ?",
        "x | y means that x divides y ; list all x with x | 12.",
        "这段代码有什么问题？\n```python\nprint(1)  # https://example.org\n```",
        "She said yes, and he agreed to it. What did he agree to",
    ],
)
def test_good_texts_are_kept(text):
    assert why(text) == [None]


@pytest.mark.parametrize(("roles", "kept"), [("u", 1), ("uau", 1), ("su", 1), ("ua", 0), ("au", 0), ("s", 0)])
def test_turns_must_alternate_and_end_with_the_user(roles, kept):
    names = {"u": "user", "a": "assistant", "s": "system"}
    query = make_query(messages=[{"role": names[role], "content": "what is this ?"} for role in roles])
    assert len(cleaned([query])[0]) == kept


def test_the_first_duplicate_is_kept_and_the_rest_rejected():
    rows = [make_query("what is 2 + 3 ?", source="a"), make_query("what  is 2 + 3 ?", source="b")]
    kept, rejected = cleaned(rows)
    assert [row["source"] for row in kept] == ["a"]
    assert [(row["source"], row["reason"]) for row in rejected] == [("b", "duplicate")]


@given(TEXTS)
def test_every_row_is_either_kept_or_rejected(texts):
    rows = [make_query(text) for text in texts]
    kept, rejected = cleaned(rows)
    assert len(kept) + len(rejected) == len(rows)
    assert len({row["id"] for row in kept}) == len(kept)
    again, none = cleaned(kept)
    assert again == kept and none == []


@given(TEXTS)
def test_character_counts_match_pythons(texts):
    characters, inner, odd = measured(*flat(pa.array(texts, pa.string())), classes())

    def strange(c):
        return not c.isspace() and unicodedata.category(c)[0] in "SC" and unicodedata.category(c) not in ("Sm", "Sc", "Sk")

    assert characters.tolist() == [len(text) for text in texts]
    assert inner.tolist() == [len(text.strip()) for text in texts]
    assert odd.tolist() == [sum(map(strange, text)) for text in texts]


@pytest.mark.slow
@given(TEXTS)
def test_a_rows_reason_does_not_depend_on_others(texts):
    assert why(*texts) == [reason for text in texts for reason in why(text)]


@pytest.mark.parametrize("start", [0, 2])
def test_a_table_slice_is_cleaned_by_its_own_rows(start):
    rows = sorted(
        (make_query(f"see www.example.com/{i} what is it ?" if i % 2 else f"what is {i} ?") for i in range(6)),
        key=lambda r: r["id"],
    )
    kept, rejected = clean(pa.Table.from_pylist(rows, QUERY).slice(start), SETTINGS)
    assert {row["id"] for row in kept.to_pylist()} | {row["id"] for row in rejected.to_pylist()} == {
        r["id"] for r in rows[start:]
    }
    assert all("www" in row["messages"][0]["content"] for row in rejected.to_pylist())


def test_no_rows():
    kept, rejected = clean(QUERY.empty_table(), SETTINGS)
    assert len(kept) == len(rejected) == 0
    assert np.array_equal(reasons(pa.array([], QUERY.field("messages").type), SETTINGS), [])


@pytest.mark.parametrize(
    ("odd", "plain", "reason"), [(3, 7, None), (4, 6, "unicode_ratio"), (30, 70, None), (31, 69, "unicode_ratio")]
)
def test_the_unicode_ratio_may_equal_its_limit(odd, plain, reason):
    assert why("☃" * odd + "a" * plain) == [reason]


def test_a_text_is_read_to_its_own_end_only():
    """The first ends where another could open an environment with the next one's brace."""
    assert why(r"so \begin", "{x} is 5") == [None, None]


def test_the_stage_writes_what_it_keeps_and_rejects_part_by_part(inside):
    texts = ["what is 2 + 3 ?", "see https://example.org/a , what is x ?", "", "how many apples are there ?"]
    rows = sorted((make_query(text) for text in texts), key=lambda row: row["id"])
    write_table(rows, "data/raw", QUERY, 2)
    settings = {"max_unicode_ratio": 0.3, "min_characters": 4}
    Path("params.yaml").write_text(json.dumps({"clean": settings, "runner": "native"}))
    clean_stage.main()
    kept = read_table("data/clean", QUERY).to_pylist()
    assert {row["messages"][0]["content"] for row in kept} == {texts[0], texts[3]}
    rejected = read_table("data/rejected/clean", clean_stage.REJECTED_QUERY).to_pylist()
    assert {row["messages"][0]["content"]: row["reason"] for row in rejected} == {texts[1]: "url", texts[2]: "empty"}
    assert [len(part_paths(f"data/{name}")) for name in ("clean", "rejected/clean")] == [2, 2]
    found = json.loads(Path("metrics/clean.json").read_text())
    assert (found["kept"], found["rejected"]) == (2, {"empty": 1, "url": 1})


def test_nothing_left_is_an_error(inside):
    write_table([make_query("")], "data/raw", QUERY)
    Path("params.yaml").write_text(json.dumps({"clean": {"max_unicode_ratio": 0.3, "min_characters": 4}, "runner": "native"}))
    with pytest.raises(DataError, match=r"data/raw: no query is left after cleaning \(rejected: {'empty': 1}\)"):
        clean_stage.main()


def test_halves_of_latex_are_looked_for_in_each_text_alone():
    good, bad = r"what is \[ x^2 \] for x = 3 ?", r"what is \[ x^2 for x = 3 ?"
    assert why(good, bad, good, bad, good) == [None, "incomplete", None, "incomplete", None]
    assert why(bad, good) == ["incomplete", None]
