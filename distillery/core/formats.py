"""Formats: how families of models mark thought and answer, and how a student is taught to write.

Every teacher has one format, named in params.yaml or recognised by its chat template. Whatever it is, all students
learn one of ``WRITTEN``, so that data sets differ by their traces and not by their tags.
"""

import re
from typing import Literal, NamedTuple


class Format(NamedTuple):
    """The markers of one family of models, as regular expressions without open repetition.

    ``answer`` opens the answer and ``end`` ends it. Without ``answer``, all that follows the thought is the answer.
    """

    opening: str
    closing: str
    answer: str = ""
    end: str = ""


THINK, END_OF_THINK, ANSWER, END_OF_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
STUDY, TAGS = "study", "think"
_BOLD = r"\*{0,2}"
_HERE = rf"{_BOLD}Here(?: is|['’]s)"
FORMATS = {
    STUDY: Format(THINK, END_OF_THINK, ANSWER, END_OF_ANSWER),
    # Hunyuan 3 writes <think:6124c78e>.
    TAGS: Format(r"<(?:longcat_)?think(?::\w{1,16})?\s?>", r"</(?:longcat_)?think(?::\w{1,16})?\s?>"),
    "thinking": Format("<thinking>", "</thinking>"),
    "thought": Format("<[tT]hought>", "</[tT]hought>"),
    "mistral": Format(r"\[THINK\]", r"\[/THINK\]"),
    "seed": Format("<seed:think>", "</seed:think>"),
    "minimax": Format("<mm:think>", "</mm:think>"),
    "k2": Format(r"<ifm\|think(?:_fast(?:er)?)?>", r"</ifm\|think(?:_fast(?:er)?)?>"),
    "kimi": Format("◁think▷", "◁/think▷"),
    "kimi3": Format(
        r"<\|open\|>think<\|sep\|>",
        r"<\|close\|>think<\|sep\|>",
        r"<\|open\|>response<\|sep\|>",
        r"<\|close\|>response<\|sep\|>",
    ),
    "cohere": Format(
        r"<\|START_THINKING\|>", r"<\|END_THINKING\|>", r"<\|START_(?:RESPONSE|TEXT)\|>", r"<\|END_(?:RESPONSE|TEXT)\|>"
    ),
    "gemma": Format(r"<\|channel>thought", r"<channel\|>"),
    "harmony": Format(
        r"(?:<\|start\|>assistant)?<\|channel\|>analysis\s?<\|message\|>",
        r"<\|end\|>",
        r"(?:<\|start\|>assistant)?<\|channel\|>final[^<]{0,40}(?:<\|constrain\|>[^<]{0,40})?<\|message\|>",
        r"<\|return\|>|<\|end\|>",
    ),
    "solar": Format(
        r"(?:<\|begin\|>assistant)?<\|think\|>", r"<\|end\|>", r"(?:<\|begin\|>assistant)?<\|content\|>", r"<\|end\|>"
    ),
    "muse": Format(
        r"(?:<\|start\|>assistant)?\s?to=self<\|message\|>",
        r"<\|eom\|>",
        r"(?:<\|start\|>assistant)?\s?to=user<\|message\|>",
        r"<\|eot\|>|<\|eom\|>",
    ),
    "apertus": Format(r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    "granite": Format(rf"{_HERE} my thought process:{_BOLD}", rf"{_HERE} my response:{_BOLD}"),
    "apriel": Format(r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]", end=r"\[END FINAL RESPONSE\]"),
    "solution": Format(
        r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>", r"<\|begin_of_solution\|>", r"<\|end_of_solution\|>"
    ),
    "s1": Format(r"<\|im_start\|>think", r"<\|im_start\|>answer"),
}
"""The formats by name. ``study`` wants its answer tags; ``think`` takes them, or ``<response>``, where they are there."""

RECOGNISED_BY = (
    ("<|channel|>analysis", "harmony"),
    ("<|channel>", "gemma"),
    ("[THINK]", "mistral"),
    ("[/THINK]", "mistral"),
    ("<seed:think>", "seed"),
    ("<mm:think>", "minimax"),
    ("<ifm|think", "k2"),
    ("◁think▷", "kimi"),
    ("<|open|>", "kimi3"),
    ("<|START_THINKING|>", "cohere"),
    ("to=self<|message|>", "muse"),
    ("<|inner_prefix|>", "apertus"),
    ("[BEGIN FINAL RESPONSE]", "apriel"),
    ("Here are my reasoning steps:", "apriel"),
    ("<|im_start|>think", "s1"),
    ("my thought process:", "granite"),
    ("<|begin_of_thought|>", "solution"),
    ("<|content|>", "solar"),
    ("<thought>", "thought"),
    ("</thinking>", "thinking"),
    ("</think", TAGS),
    ("<think>", TAGS),
)
"""What a chat template contains, and the format that it is a sign of; the first counts."""

WRITTEN = {
    STUDY: "<think> {thought} </think> <answer> {answer} </answer>",
    TAGS: "<think>\n{thought}\n</think>\n\n{answer}",
}
"""How a student may be taught to write."""
StudentFormat = Literal["study", "think"]

PARTS_OF_MARKERS = {"<|channel|>", "<|message|>", "<|channel>", "<channel|>", "<|open|>", "<|close|>", "<|sep|>", "<|think|>"}
"""Special tokens that markers of several tokens are made of."""
STUDENT_TAGS = frozenset({THINK, END_OF_THINK, ANSWER, END_OF_ANSWER})

ANNOUNCED = ("granite", "apriel", "s1")
"""Formats whose markers are words: a thought may announce them, so the last one counts."""


def recognise(text: str) -> str:
    """The format that a chat template gives away."""
    return next((name for sign, name in RECOGNISED_BY if sign in text), STUDY)


def format_of(text: str) -> str:
    """The format of a response whose teacher is not known."""
    stripped = text.lstrip()
    for name, form in FORMATS.items():
        if name not in WRITTEN and re.match(form.opening, stripped):
            return name
    if re.search(FORMATS[TAGS].closing, text):
        return STUDY if ANSWER in text else TAGS
    return recognise(text)


def is_marker(token: str) -> bool:
    """Whether a token is, or is part of, a marker of any format."""
    return any(re.search(f"{form.opening}|{form.closing}", token) for form in FORMATS.values()) or token in PARTS_OF_MARKERS


def opening_of(prompt: str) -> str:
    """The end of a prompt that already opens the thought, ``<think>`` and the white space after it; empty where none does."""
    end = prompt[-64:]
    found = (re.search(rf"(?:{form.opening})\s*\Z", end) for form in FORMATS.values())
    return next((marker[0] for marker in found if marker), "")
