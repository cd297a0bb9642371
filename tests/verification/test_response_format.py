import pytest

from distillery.verification.response_format import answer_part, split


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
def test_the_format_is_one_think_part_and_one_answer_part(text, parts):
    assert split(text) == parts


def test_in_other_formats_the_last_answer_or_all_text_counts():
    assert answer_part("<answer> 1 </answer> no <answer> 2 </answer>") == "2"
    assert answer_part("so it is 2") == "so it is 2"
    assert answer_part("<think> so it is 2") is None
    assert answer_part("<think> so it is 3 </think> 2") == "2"
