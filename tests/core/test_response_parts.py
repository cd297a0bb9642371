"""Answer formats of current reasoning models, in texts of our own."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import distillery.core.response_parts as module
from distillery.core.formats import FORMATS, STUDY, TAGS, WRITTEN, format_of, opening_of, recognise
from distillery.core.response_parts import answer_part, columns_of, locate, parts_of, response_of
from tests.support.response_texts import SAID, THOUGHT, WRITES

PAIRS = "<think> </think> and <answer> </answer> . ok"
XML = "```xml\n<response>\n  <answer>1</answer>\n</response>\n```\nDone."


def messages(*parts: tuple[str, str]) -> str:
    """Harmony messages of (channel, text)."""
    return "<|end|><|start|>assistant".join(f"<|channel|>{channel}<|message|>{text}" for channel, text in parts)


SEVERAL = messages(("analysis", "a"), ("analysis", "b"), ("commentary", "c"), ("final", "d<|return|>"))
PIECES = ("<think>", "</think>", "<answer>", "</answer>", "`", " a ", "\n")
HOSTILE = (*PIECES[:4], "<think></think>", "<|start|>assistant", "<think:")


def read(text: str, name: str, truncated: bool = False) -> tuple[str | None, str | None]:
    return parts_of(columns_of(text, name, truncated))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read(name):
    assert read(WRITES[name], name) == (THOUGHT, SAID)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"s1"}))
def test_a_format_is_recognised_by_its_markers(name):
    text = WRITES[name]
    assert recognise(text) == (TAGS if name == STUDY else name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_thought_may_open_in_the_prompt(name):
    """A server gives back what was generated alone; the engine here puts the opening back."""
    text = WRITES[name]
    opening = opening_of(text[: text.index(THOUGHT)])
    assert opening and read(text.removeprefix(opening), name) == (THOUGHT, SAID)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_response_has_no_answer(name):
    text = WRITES[name]
    for end in (text.index(THOUGHT) + 5, text.index(SAID), text.index(SAID) + 5):
        assert read(text[:end], name, truncated=True)[1] is None


@pytest.mark.parametrize("name", FORMATS)
def test_a_thought_that_never_closes_has_no_answer(name):
    text = WRITES[name]
    assert read(text[: text.index(THOUGHT) + len(THOUGHT)], name) == (None, None)


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        (STUDY, "<think> a </think> So it is. <answer> b </answer>", ("a", "b")),
        (STUDY, "<think> a </think> <answer> b </answer> I hope this helps.", ("a", "b")),
        (STUDY, "<think> the <answer> tags come last </think> <answer> b </answer>", ("the <answer> tags come last", "b")),
        (STUDY, f"<think> I write {PAIRS} </think> <answer> b </answer>", (f"I write {PAIRS}", "b")),
        (STUDY, "<think> quote `</think>` first </think> <answer> b </answer>", ("quote `</think>` first", "b")),
        (STUDY, "<think> a </think> b", ("a", None)),
        (STUDY, "<answer> b </answer>", (None, None)),
        (STUDY, "<think>a</think><answer>5</answer><answer>6</answer>", ("a", None)),
        (STUDY, "", (None, None)),
        (TAGS, "<think>\n\n</think>\n\nb", ("", "b")),
        (TAGS, "<think>a</think><answer>b</answer>", ("a", "b")),
        (TAGS, "<think>a</think><response>b</response>", ("a", "b")),
        (TAGS, "<think>a</think>the <answer> tag", ("a", "the <answer> tag")),
        (TAGS, "<think>a</think><think>b</think>c", ("a\n\nb", "c")),
        (TAGS, "<think>a</think>b <think>c</think>", (None, None)),
        (TAGS, "<think>a</think>b</think>b", (None, None)),
        (TAGS, "<think>a</think>write <think> first", ("a", "write <think> first")),
        (TAGS, "<think>\n<think>\na\n</think>\n\nb", ("a", "b")),
        (TAGS, "in <think> tags. a\n</think>\n\nb", ("in <think> tags. a", "b")),
        (TAGS, "Well.\n<think>\na</think>b", ("a", "b")),
        (
            TAGS,
            "<think>close with “</think>” or (</think>) or '</think>'. a</think>b",
            ("close with “</think>” or (</think>) or '</think>'. a", "b"),
        ),
        (TAGS, f"<think>a</think>{XML}", ("a", XML)),
        (TAGS, "<think>a</think>Parse `<answer>` and `</answer>` tags.", ("a", "Parse `<answer>` and `</answer>` tags.")),
        (TAGS, "<think>a</think>\n<answer>\n`<answer>` and `</answer>`\n</answer>", ("a", "`<answer>` and `</answer>`")),
        (TAGS, "<think>a</think>\n<response>\nb", ("a", "b")),
        (TAGS, "<think>a</think>b<|im_end|>\n<|endoftext|>", ("a", "b")),
        (TAGS, "<think>a</think>\n\n<|im_end|>", ("a", None)),
        (
            STUDY,
            "<think> close with </think> then answer . a </think> <answer> b </answer>",
            ("close with </think> then answer . a", "b"),
        ),
        (STUDY, "<think> a </think> <answer> print('</think>') </answer>", ("a", "print('</think>')")),
        (TAGS, "I use <think> </think> here. a</think>b", ("I use <think> </think> here. a", "b")),
        (TAGS, "<think:6124c78e>a</think:6124c78e>b", ("a", "b")),
        (TAGS, "b", (None, None)),
        ("gemma", "<think> a </think> <answer> b </answer>", ("a", "b")),
        ("harmony", "<think>a</think>b", ("a", "b")),
        ("harmony", "<|channel|>final<|message|>b", (None, None)),
        ("harmony", SEVERAL, ("a\n\nb", "d")),
        ("granite", "Here's my thought process: a Here's my response: b", ("a", "b")),
        (
            "apriel",
            "a [BEGIN FINAL RESPONSE] b [END FINAL RESPONSE]. c\n[BEGIN FINAL RESPONSE]\nd\n[END FINAL RESPONSE]",
            ("a [BEGIN FINAL RESPONSE] b [END FINAL RESPONSE]. c", "d"),
        ),
        ("apriel", "<think>I finish with [BEGIN FINAL RESPONSE]. a</think>b", ("I finish with [BEGIN FINAL RESPONSE]. a", "b")),
        ("gemma", "<think>the <|channel>thought marker</think>b", ("the <|channel>thought marker", "b")),
        ("harmony", messages(("analysis", "a"), ("commentary", "p"), ("analysis", "b"), ("final", "c")), ("a\n\nb", "c")),
        ("harmony", messages(("commentary", "p"), ("analysis", "b"), ("final", "c")), ("b", "c")),
        ("harmony", messages(("analysis", "a"), ("commentary", "p"), ("final", "c")), ("a", "c")),
        (
            "harmony",
            messages(("analysis", "a"), ("commentary", "p"), ("final", "c")).removeprefix("<|channel|>analysis<|message|>"),
            ("a", "c"),
        ),
        ("harmony", messages(("analysis", "a"), ("final <|constrain|>json", "{}")), ("a", "{}")),
        ("harmony", messages(("analysis", "a"), ("final json", "{}")), ("a", "{}")),
        ("harmony", messages(("analysis", "a"), ("final", "1"), ("final", "2")), ("a", None)),
        ("harmony", messages(("analysis", "a"), ("commentary to=functions.x <|constrain|>json", "{}")), ("a", None)),
        ("cohere", "<|START_THINKING|>a<|END_THINKING|><|START_ACTION|>[]<|END_ACTION|>", ("a", None)),
        ("cohere", "<|START_THINKING|>a<|END_THINKING|>b", ("a", "b")),
        ("granite", "**Here is my thought process:**\n\na\n\n**Here is my response:**\n\nb", ("a", "b")),
        ("thinking", "<thinking>a</thinking>\n<output>\nb\n</output>", ("a", "b")),
        ("solution", "<|begin_of_thought|>a<|end_of_thought|>\nb", ("a", "b")),
    ],
)
def test_what_models_do_with_their_format(name, text, parts):
    assert read(text, name) == parts


def test_a_truncated_thought_that_names_the_tags_stays_truncated():
    text = "<think>I must use <think> </think> and <answer> </answer>. Let me see"
    assert read(text, STUDY, truncated=True) == read(text, TAGS, truncated=True) == (None, None)


@pytest.mark.parametrize("name", FORMATS)
def test_students_learn_one_format(name):
    row = columns_of(WRITES[name], name)
    assert response_of(row, STUDY) == f"<think> {THOUGHT} </think> <answer> {SAID} </answer>"
    assert read(response_of(row, STUDY), STUDY) == (THOUGHT, SAID)
    assert read(response_of(row, TAGS), TAGS) == (THOUGHT, SAID)


@pytest.mark.parametrize("name", FORMATS)
def test_a_response_shows_its_format(name):
    assert format_of(WRITES[name]) == name
    assert format_of(f"<think>\nmy thought process: [THINK] <thought>\n</think>\n\n{SAID}") == TAGS


def test_white_space_without_end_takes_no_time():
    """A pattern that begins with white space would look at a run of it once per character."""
    text = "<think>" + " " * 300_000 + "a" + "\n" * 300_000 + "</think>b"
    assert read(text, TAGS) == ("a", "b") and answer_part(text) == "b"


def test_what_has_no_parts_is_left_as_it_came():
    assert response_of(columns_of("b", TAGS), STUDY) == "b"


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.booleans())
def test_parts_stand_in_the_text_and_do_not_overlap(pieces, truncated):
    text = "".join(pieces)
    for name in WRITTEN:
        thought, answer = locate(text, name, truncated)
        assert thought is not None or answer is None
        spans = [span for span in (thought, answer) if span]
        assert all(0 <= first <= last <= len(text) for first, last in spans)
        assert len(spans) < 2 or spans[0][1] <= spans[1][0]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("name", FORMATS)
def test_hostile_texts_take_linear_work(name, piece, monkeypatch):
    """Each marker is looked at a bounded number of times, counted by the calls per marker."""
    quoted, count = module._is_quoted, Counter[str]()

    def counting(*arguments):
        count["calls"] += 1
        return quoted(*arguments)

    monkeypatch.setattr(module, "_is_quoted", counting)
    locate(piece * 2000, name)
    assert count["calls"] <= 4000


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> 1 </answer> no <answer> 2 </answer>", "2"),
        ("so it is 2", "so it is 2"),
        ("<think> so it is 2", None),
        ("<think> so it is 3 </think> 2", "2"),
        ("<think> a </think> <answer> 1 </answer> <think> b </think>", None),
        (f"<think> I use {PAIRS} </think> <answer> 6 </answer>", "6"),
        ("<think> I use `</think>` . </think> <answer> 6 </answer>", "6"),
        ("<think:6124c78e>x</think:6124c78e>6", "6"),
        ("<think>x</think>\n<response>\n6\n</response>", "6"),
        ("Let me lay out my thought process: 3*2=6. </think> <answer> 6 </answer>", "6"),
        ("Here is my thought process: it is \\boxed{6}.", "Here is my thought process: it is \\boxed{6}."),
        ("<think>x</think> code: `<thought>`; 6", "code: `<thought>`; 6"),
        ("The token <|content|> is used.", "The token <|content|> is used."),
        ("The tag <think> opens. It is 6", "The tag <think> opens. It is 6"),
        (WRITES["harmony"], SAID),
        (WRITES["s1"], SAID),
        ("[THINK]x", None),
    ],
)
def test_a_student_is_judged_by_the_answer_part_or_all_that_follows_the_thought(text, answer):
    assert answer_part(text) == answer


def test_an_answer_part_that_begins_the_response_counts():
    assert answer_part("<answer> 5") == "5" == answer_part("<answer> 5 </answer> 6")
    assert answer_part("</answer> <answer> 5") == "</answer> <answer> 5", "closed before it is opened"
