import json
from pathlib import Path

import pytest

from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.verification.ifeval_verifier import ConstraintsError, check, checkers, constraints_of, holds
from distillery.verification.verdict import Item
from tests.support.builders import verdicts_of

SHARED = Path(__file__).resolve().parents[3] / "shared/data/ifeval_prompts.jsonl"
LONG = "The weather in the mountains changes quickly, and people who walk there should carry a warm coat and some food."
GERMAN = (
    "Das Wetter in den Bergen ändert sich schnell, und wer dort wandert, sollte warme Kleidung und etwas Essen dabei haben."
)
# (checker, arguments, a response that satisfies it, one that does not)
GOLDEN = [
    ("keywords:existence", {"keywords": ["sun", "moon"]}, "The sun and the moon.", "The sun."),
    ("keywords:frequency", {"keyword": "sun", "frequency": 2, "relation": "at least"}, "sun, Sun", "sun"),
    ("keywords:frequency", {"keyword": "sun", "frequency": 2, "relation": "less than"}, "sun", "sun sun"),
    ("keywords:forbidden_words", {"forbidden_words": ["rain"]}, "No train came.", "Much rain fell."),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": "at least"}, "eee", "ee"),
    ("language:response_language", {"language": "de"}, GERMAN, LONG),
    ("language:response_language", {"language": "en"}, LONG, GERMAN),
    ("language:response_language", {"language": "fr"}, "Le temps change vite dans les montagnes et il faut un manteau.", LONG),
    ("language:response_language", {"language": "es"}, "El tiempo cambia rápido en las montañas y hace falta un abrigo.", LONG),
    ("language:response_language", {"language": "ru"}, "Погода в горах быстро меняется, возьмите тёплую одежду.", LONG),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two.", "Only one, Dr. Lee."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "Only one.", "One. Two."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One."),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen second.",
        "First.\n\nSecond.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "Dear [name]", "Dear name"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nP.S. More.", "Bye."),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\n\nP.P.S More.", "P.S. More"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. P.S. more", "PS more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", "* one"),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and *two*", "*one*"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "A title"),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One."),
    ("combination:two_responses", {}, "A\n******\nB", "A\n******\nA"),
    ("combination:two_responses", {}, "first\n******\nsecond", "first ***** second"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. It.", "It. Say it."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Why?"}, "why? Because.", "Because."),
    ("startend:end_checker", {"end_phrase": "The end."}, "So it was. The end.", "The end. Or not"),
    ("startend:end_checker", {"end_phrase": "thanks"}, "Many thanks", "thanks a lot"),
    ("startend:end_checker", {"end_phrase": "Bye"}, '"Bye"', "Bye bye then"),
    ("startend:quotation", {}, '"All of it."', "All of it."),
    ("startend:quotation", {}, '"a"', '"a" b'),
    ("change_case:english_capital", {}, LONG.upper(), LONG),
    ("change_case:english_lowercase", {}, LONG.lower(), LONG),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "YES I do", "yes we do"),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "yes WE do", "YES WE do"),
    ("change_case:english_capital", {}, GERMAN.upper().replace("Ä", "A") and LONG.upper(), GERMAN.upper()),
    ("punctuation:no_comma", {}, "No pause at all.", "A pause, here."),
    ("punctuation:no_comma", {}, "a; b", "a,b"),
    ("punctuation:no_comma", {}, "1.000", "1,000"),
    ("punctuation:no_comma", {}, "one and two", "one, two"),
    ("punctuation:no_comma", {}, "a، b", ","),
]


@pytest.mark.parametrize(("name", "kwargs", "kept", "broken"), GOLDEN)
def test_golden_responses(name, kwargs, kept, broken):
    constraint = {"id": name, "kwargs": kwargs}
    assert holds(constraint, kept) and not holds(constraint, broken)


def test_every_checker_has_a_golden_response_and_every_family_five():
    assert {name for name, *_ in GOLDEN} == set(checkers())
    families = [name.split(":")[0] for name, *_ in GOLDEN]
    assert min(families.count(family) for family in set(families)) >= 5


def test_the_score_is_the_share_of_constraints_that_hold(route):
    text = json.dumps(
        [{"id": "punctuation:no_comma", "kwargs": {}}, {"id": "startend:end_checker", "kwargs": {"end_phrase": "bye"}}]
    )
    both, one, empty = verdicts_of(
        route, [Item(str(i), "if", answer, constraints=text) for i, answer in enumerate(("so bye", "so, bye", " "))]
    )
    assert (both.score, both.verdict) == (1.0, PASS)
    assert (one.score, one.verdict) == (0.5, FAIL) and one.reason == "1 of 2 constraints hold; not punctuation:no_comma"
    assert (empty.score, empty.verdict) == (0.0, FAIL)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no constraints"),
        ("[]", "no constraints"),
        ("{torn", "not JSON"),
        ('[{"id": "keywords:unheard_of"}]', "no ifeval checker 'keywords:unheard_of'"),
        ('["keywords:existence"]', "no ifeval checker 'keywords:existence'"),
        ('[{"id": "keywords:existence", "kwargs": {}}]', "needs 'keywords'"),
        ('[{"id": "punctuation:no_comma", "kwargs": {"commas": 3}}]', "takes no 'commas'"),
        ('[{"id": "keywords:frequency", "kwargs": {"keyword": "a", "frequency": 1, "relation": "around"}}]', "refuses"),
    ],
)
def test_invalid_constraints_are_named(route, text, why):
    with pytest.raises(ConstraintsError, match=why):
        constraints_of(text)
    (verdict,) = verdicts_of(route, [Item("x", "if", "answer", constraints=text)])
    assert verdict.verdict == UNKNOWN and verdict.hopeless and why in verdict.reason.replace("the query has no", "no")


@pytest.mark.parametrize(("name", "dump"), [("kwargs", False), ("kwargs", True), ("instruction_kwargs", False)])
def test_constraints_are_read_in_the_formats_of_data_sets(name, dump):
    ours = [{"id": "keywords:existence", "kwargs": {"keywords": ["a"]}}]
    kwargs = [{"keywords": ["a"], "num_words": None}]
    theirs = {"instruction_id_list": ["keywords:existence"], name: json.dumps(kwargs) if dump else kwargs}
    assert constraints_of(json.dumps(theirs))[0]["kwargs"]["keywords"] == ["a"]
    assert check(json.dumps(ours), "a b") == check(json.dumps(theirs), "a b")


@pytest.mark.skipif(not SHARED.exists(), reason="IFEval's prompts are missing")
def test_the_checkers_accept_every_constraint_of_ifevals_prompts():
    rows = [json.loads(line) for line in SHARED.open()]
    assert len(rows) == 541
    for row in rows:
        constraints_of(json.dumps({"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]}))


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": ["x"], "kwargs": {}}]',
        '[{"id": "punctuation:no_comma", "kwargs": "sun"}]',
        '[{"id": "punctuation:no_comma", "kwargs": ["sun"]}]',
        '{"instruction_id_list": "punctuation:no_comma", "kwargs": [{}]}',
        '{"instruction_id_list": ["punctuation:no_comma", "punctuation:no_comma"], "kwargs": [{}]}',
    ],
)
def test_constraints_of_a_wrong_shape_are_refused_and_none_is_lost(text):
    with pytest.raises(ConstraintsError):
        constraints_of(text)


@pytest.mark.parametrize("kwargs", [{}, {"kwargs": None}, {"kwargs": []}, {"kwargs": "null"}, {"instruction_kwargs": [None]}])
def test_constraints_without_arguments(kwargs):
    text = json.dumps({"instruction_id_list": ["punctuation:no_comma"]} | kwargs)
    assert check(text, "no pause").score == 1 and check(text, "a, b").score == 0


def test_arguments_go_with_their_own_constraint():
    ids = ["keywords:existence", "punctuation:no_comma", "startend:end_checker"]
    text = json.dumps({"instruction_id_list": ids, "kwargs": [{"keywords": ["a"]}, {}, {"end_phrase": "bye"}]})
    assert (
        check(text, "a bye").score == 1 and check(text, "a, so").reason == "1 of 3 constraints hold; not punctuation:no_comma"
    )


@pytest.mark.parametrize("kwargs", [[{}, {}], [{}]])
def test_a_list_of_arguments_must_have_the_length_of_the_ids(kwargs):
    ids = ["punctuation:no_comma"] * (3 - len(kwargs))
    with pytest.raises(ConstraintsError, match="not lists of one length"):
        constraints_of(json.dumps({"instruction_id_list": ids, "kwargs": kwargs}))


def test_a_missing_list_of_constraints_is_named(route):
    (verdict,) = verdicts_of(route, [Item("x", "if", "answer")])
    assert verdict.hopeless and verdict.reason == "the query has no constraints"


def test_the_language_of_a_short_answer_is_always_the_same():
    import langdetect

    checkers()
    assert langdetect.DetectorFactory.seed == 0
