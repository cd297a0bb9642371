import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.errors import DataError
from distillery.core.files import write_json_lines
from distillery.core.schemas import QUERY, SIMILARITY
from distillery.core.tables import part_paths, read_table, write_table
from distillery.corpus.benchmark_index import COMMON, Benchmarks
from distillery.corpus.word_ngrams import gram_hashes, suspects, words
from stages import decontaminate as decontaminate_stage
from stages.decontaminate import EVIDENCE, decontaminate, nested, report
from stages.similarity import nearest
from tests.support.builders import make_query

LONG = "Every morning Aya walks nine kilometres to a coffee shop at a constant speed of s kilometres per hour."
ITEMS = [
    {"id": "aime2024-0001", "question": LONG},
    {"id": "math500-0001", "question": "What is the value of seven plus eight minus three ?"},
]


def benchmarks_of(*questions: str, ngram: int = 13) -> Benchmarks:
    """The questions as items named b-1, b-2 and so on; without any, ITEMS."""
    items = [{"id": f"b-{i}", "question": question} for i, question in enumerate(questions, 1)]
    return Benchmarks(items or ITEMS, ngram, 8, 0.6)


def run(text: str, cosine: float = 0.1):
    query = make_query(text)
    near = {"id": query["id"], "benchmark_item": "aime2024-0001", "cosine": cosine}
    tables = pa.Table.from_pylist([query], QUERY), pa.Table.from_pylist([near], SIMILARITY)
    return tuple(part.to_pylist() for part in decontaminate(*tables, benchmarks_of(), 0.9))


def test_case_and_spacing_are_ignored_by_exact_matching():
    _, (row,) = run("  " + LONG.upper().replace(" ", "  "))
    assert (row["reason"], row["benchmark_item"], row["score"]) == ("exact", "aime2024-0001", 1.0)


def test_a_copy_inside_a_longer_text_is_found_by_ngrams():
    _, (row,) = run("Please solve this. " + LONG + " Explain each step.")
    assert (row["reason"], row["benchmark_item"]) == ("ngram", "aime2024-0001")
    assert (row["score"], row["matched"]) == (1.0, LONG)


def test_a_short_item_is_found_by_shorter_ngrams():
    _, (row,) = run("tell me , what is the value of seven plus eight minus three now")
    assert (row["reason"], row["benchmark_item"]) == ("ngram", "math500-0001")


@pytest.mark.parametrize(
    ("question", "text", "is_found"),
    [
        ("Compute $\\dbinom{8}{4}$.", "compute $\\binom{8}{4}$", True),
        ("Compute $\\dbinom{5}{1}$.", "Compute $\\dbinom{5}{1} + \\dbinom{5}{2} + \\dbinom{5}{3}$ and factor it.", False),
        (
            "Compute $\\tan 60^\\circ$.",
            "In triangle ABC, first compute $\\tan 60^\\circ$, then use it to find a height.",
            False,
        ),
        ("Evaluate $\\log_2 (4^2)$.", "Evaluate $\\log_2 (4^2+1)$.", False),
        ("What is $2+3$?", "What is $2-3$?", False),
        ("What is $2+3$?", "what is 2 + 3", True),
        ("What is $2.3$?", "What is $(2,3)$?", False),
        ("Is 1,000 even?", "is 1000 even ?", True),
        ("Simplify $(3-2i)-(5-2i)$", "Simplify $(3+2i)+(5+2i)$", False),
        ("Simplify $(3-2i)-(5-2i)$", "simplify $(3 - 2i) - (5 - 2i)$ .", True),
    ],
)
def test_a_question_of_few_words_is_found_alone_and_with_its_signs(question, text, is_found):
    assert (benchmarks_of(question).match(text) is not None) is is_found


@pytest.mark.parametrize("order", [1, -1])
def test_of_questions_that_share_as_much_the_first_by_name_is_evidence(order):
    one, other = (" ".join(f"{letter}{i}" for i in range(20)) for letter in "ab")
    items = [{"id": "a-1", "question": one}, {"id": "b-1", "question": other}][::order]
    for text in (f"{one} then {other}", f"{other} then {one}"):
        found = Benchmarks(items, 13, 8, 0.6).match(text)
        assert found and found[:3] == ("ngram", "a-1", 1.0)


def test_latex_notation_does_not_matter():
    found = benchmarks_of("Find $\\frac{1}{x_1}$ for the least x.").match("find $\\dfrac{1}{x_{1}}$ for the least x")
    assert found and found[:3] == ("exact", "b-1", 1.0)


def test_an_item_without_words_matches_nothing():
    assert benchmarks_of("?!").match("...") is None


def test_only_a_cosine_above_the_threshold_counts():
    kept, _ = run("something else altogether", cosine=0.89)
    assert len(kept) == 1
    _, (row,) = run("something else altogether", cosine=0.91)
    assert row["reason"] == "embedding" and row["score"] == pytest.approx(0.91)


def test_the_report_counts_by_benchmark_and_method():
    _, rejected = run(LONG)
    assert nested(report(pa.Table.from_pylist(rejected))) == {"aime2024": {"exact": 1}}


def test_scores_of_other_queries_are_an_error():
    near = pa.Table.from_pylist([{"id": "0" * 32, "benchmark_item": "aime2024-0001", "cosine": 0.1}], SIMILARITY)
    with pytest.raises(DataError, match="data/similarity: not of the queries"):
        decontaminate(pa.Table.from_pylist([make_query()], QUERY), near, benchmarks_of(), 0.9)


@given(st.lists(st.sampled_from([*LONG.split(), "is", "value", "7", "，", "和"]), max_size=40).map(" ".join), st.booleans())
def test_the_bulk_scan_finds_all_that_matching_one_by_one_finds(text, planted):
    text = text + " " + LONG[10:95] if planted else text
    benchmarks = benchmarks_of()
    messages = pa.array([[{"role": "user", "content": text}]], QUERY.field("messages").type)
    assert suspects(messages, benchmarks.index).all() or benchmarks.match(text) is None
    assert benchmarks.match(text) or not planted


@pytest.mark.parametrize("text", [LONG + " And then ?", "So : " + LONG[: LONG.rindex(" ")], " ".join(LONG.split()[:13]) + " x"])
def test_an_ngram_at_the_beginning_or_the_end_is_found(text):
    messages = pa.array([[{"role": "user", "content": text}]], QUERY.field("messages").type)
    assert suspects(messages, benchmarks_of().index).all()


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 6))
def test_gram_hashes_cover_every_window(tokens, n):
    ids = words(" ".join(tokens))
    found = dict(zip(gram_hashes(ids, n).tolist(), (tuple(tokens[i : i + n]) for i in range(len(tokens))), strict=False))
    windows = {tuple(tokens[i : i + n]) for i in range(len(tokens)) if i + n <= len(tokens)}
    assert set(found.values()) == windows and len(found) == len(windows)


def test_the_nearest_item_has_the_highest_cosine():
    rng = np.random.default_rng(0)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    queries, items = unit(rng.normal(size=(50, 8))), unit(rng.normal(size=(7, 8)))
    index, cosine = nearest(queries, items, block=16)
    assert (index == (queries @ items.T).argmax(1)).all()
    assert np.allclose(cosine, (queries @ items.T).max(1))


def test_the_question_with_the_largest_overlap_is_named_and_on_ties_the_first():
    """Two questions share their first fifteen words; a third shares them and more with the query."""
    words_ = [f"word{chr(ord('a') + i)}" for i in range(18)]
    same, longer = " ".join(words_[:15]), " ".join(words_)
    items = [{"id": "b-2", "question": f"{same} first"}, {"id": "b-1", "question": f"{same} second"}]
    assert Benchmarks(items, 13, 8, 0.6).match(f"so {same} then") == ("ngram", "b-1", 0.938, same)
    more = [{"id": "b-3", "question": f"{longer} third"}, *items]
    assert Benchmarks(more, 13, 8, 0.6).match(f"so {longer} then") == ("ngram", "b-3", 0.947, longer)


@pytest.mark.parametrize(("words", "size"), [(14, 13), (13, 13), (12, 8), (8, 8), (5, 5)])
def test_a_questions_length_chooses_the_size_of_its_ngrams(words, size):
    assert benchmarks_of().size(words) == size


def stage(folder, texts, cosines, parts=2):
    """Runs the stage on queries in several parts; its metrics."""
    (folder / "data/benchmarks").mkdir(parents=True)
    for name in {item["id"].rpartition("-")[0] for item in ITEMS}:
        write_json_lines([i for i in ITEMS if i["id"].startswith(name)], folder / f"data/benchmarks/{name}.jsonl")
    queries = sorted((make_query(text) for text in texts), key=lambda query: query["id"])
    near = [{"id": q["id"], "benchmark_item": "aime2024-0001", "cosine": cosines.get(text_of(q), 0.1)} for q in queries]
    write_table(queries, "data/clean", QUERY, parts)
    write_table(near, "data/similarity", SIMILARITY, parts)
    settings = {"ngram": 13, "short_ngram": 8, "min_overlap": 0.6, "max_cosine": 0.9}
    Path("params.yaml").write_text(json.dumps({"decontaminate": settings, "runner": "native"}))
    decontaminate_stage.main()
    return json.loads(Path("metrics/decontaminate.json").read_text())


def text_of(query):
    return query["messages"][0]["content"]


def test_the_stage_writes_what_it_keeps_and_rejects_with_evidence(inside):
    inserted = f"Please: {LONG}"
    found = stage(inside, [LONG, inserted, "near", "further", "what is 2 + 3 ?"], {"near": 0.95, "further": 0.9})
    assert found["kept"] == 2 and found["rejected"] == {"aime2024": {"embedding": 1, "exact": 1, "ngram": 1}}
    assert {text_of(row) for row in read_table("data/decontaminated", QUERY).to_pylist()} == {"further", "what is 2 + 3 ?"}
    rejected = read_table("data/rejected/decontaminate", EVIDENCE).to_pylist()
    assert {text_of(row): row["reason"] for row in rejected} == {LONG: "exact", inserted: "ngram", "near": "embedding"}
    assert {row["benchmark_item"] for row in rejected} == {"aime2024-0001"}
    assert [len(part_paths(f"data/{name}")) for name in ("decontaminated", "rejected/decontaminate")] == [2, 2]


def test_a_corpus_that_is_all_benchmark_is_an_error_and_writes_nothing(inside):
    with pytest.raises(DataError, match="data/clean: all 1 queries look like benchmark questions"):
        stage(inside, [LONG], {}, 1)
    assert not Path("data/decontaminated").exists()


PHRASE = "can be written as a fraction where m and n are relatively prime positive integers find m plus n"
REMINDER = "(Reminder: the symbol n! stands for the product of the integers from 1 up to (and including) the number n.)"
FIGURE = "[asy] size(5cm); pair A = (0,0), B = (4,0), C = (0,3); draw(A--B--C--cycle); label(A, SW); label(B, SE); [/asy]"
OPTIONS = "\\textbf{(A)} 12 \\qquad \\textbf{(B)} 15 \\qquad \\textbf{(C)} 18 \\qquad \\textbf{(D)} 21 \\qquad \\textbf{(E)} 24"
TAXI = "A taxi driver in Oslo earns twice as much on every Sunday as on any other day of the same week, apart from holidays."
FROG = "Seven green frogs sit around a round pond and each of them looks at exactly two others; how many looks are returned?"


@pytest.mark.parametrize("shared", [REMINDER, FIGURE, OPTIONS])
def test_what_does_not_tell_questions_apart_is_no_overlap(shared):
    assert benchmarks_of(f"{TAXI} {shared}").match(f"{FROG} {shared}") is None
    assert benchmarks_of(f"{TAXI} {shared}").match(f"{TAXI} {FIGURE}")


def test_a_phrase_of_many_questions_is_no_overlap_and_one_of_a_single_question_is_little():
    others = [" ".join(f"{letter}{i}" for i in range(20)) for letter in "abcdefg"]
    few, many = (benchmarks_of(*(f"{other}, {PHRASE}" for other in others[:count])) for count in (COMMON - 1, COMMON))
    assert not few.common and many.common
    assert few.match(f"sum, {PHRASE}") and many.match(f"sum, {PHRASE}") is None
    assert few.match(f"{FROG} {PHRASE}") is None


def test_a_question_in_two_benchmarks_makes_no_phrase_common():
    twice = benchmarks_of(*[LONG] * COMMON)
    assert not twice.common and twice.match(f"so: {LONG}")


def test_a_question_with_other_names_and_numbers_is_found_and_its_words_are_shown():
    text = "Every morning Ben walks six kilometres to a coffee shop at a constant speed of s kilometres per hour"
    found = benchmarks_of(LONG, ngram=10).match(f"{text} today.")
    assert found and found.score > 0.6
    assert found.matched == "kilometres to a coffee shop at a constant speed of s kilometres per hour"


def test_the_first_half_of_a_question_is_found():
    question = f"{TAXI} {FROG}"
    found = benchmarks_of(question).match(TAXI)
    assert found and found.score == 1.0


def test_code_of_a_figure_counts_where_the_question_is_about_nothing_else():
    other = (
        FIGURE.replace("(4,0)", "(9,1)").replace("(0,3)", "(2,8)").replace("draw(A--B--C--cycle)", "fill(B--C--cycle, gray)")
    )
    asked = "What is the number of square centimetres in the area of this triangle?"
    benchmarks = benchmarks_of(f"{asked} {FIGURE}", ngram=8)
    assert (
        benchmarks.match(f"{asked} {FIGURE} Explain.")
        and benchmarks.match(f"{FROG} {asked.replace('?', ' here?')} {other}") is None
    )


def test_a_short_question_is_found_with_its_figure_and_without():
    asked = "Let $f(x)=x^2+3x+2$. {} What is the area of triangle $ABC$?"
    benchmarks = benchmarks_of(asked.format(FIGURE), ngram=10)
    for text in (asked.format(FIGURE) + " Explain.", asked.format("") + " Explain."):
        messages = pa.array([[{"role": "user", "content": text}]], QUERY.field("messages").type)
        assert benchmarks.match(text) and suspects(messages, benchmarks.index).all()


def test_a_sentence_of_many_questions_makes_no_candidate():
    sentence = "The input is given from standard input in the following format:"
    items = [f"{' '.join(f'{letter}{i}' for i in range(30))} {sentence}" for letter in "abcdefgh"]
    benchmarks = benchmarks_of(*items, ngram=10)
    messages = pa.array([[{"role": "user", "content": f"{FROG} {sentence} N"}]], QUERY.field("messages").type)
    assert not suspects(messages, benchmarks.index).any() and benchmarks.match(items[0])


@pytest.mark.parametrize("unit", ["[asy] ", "(note (", "\\begin{asy} ", "(A) ", "(reminder: "])
def test_hostile_repetitions_take_no_more_than_linear_time(unit):
    """200,000 characters: what is quadratic takes minutes."""
    assert benchmarks_of().match(unit * (200_000 // len(unit))) is None


def test_many_runs_of_words_in_common_take_no_more_than_linear_time():
    found = benchmarks_of(LONG).match(f"{LONG} " + "coffee shop at xx walks nine kilometres yy " * 4000)
    assert found and len(found.matched) <= 2000


def test_a_benchmarks_name_may_hold_the_mark_before_its_numbers():
    rejected = pa.table({"benchmark_item": ["math-500-0001", "math-500-0002"], "reason": ["exact", "exact"]})
    assert nested(report(rejected)) == {"math-500": {"exact": 2}}
