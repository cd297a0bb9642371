"""Locates the think part and the answer part of a response."""

import re

_INSIDE = r"(?:(?!</?(?:think|answer)>).)*"


_FORM = re.compile(rf"\s*<think>(?P<think>{_INSIDE})</think>\s*<answer>(?P<answer>{_INSIDE})</answer>\s*", re.DOTALL)


_ANSWER = re.compile(r"<answer>(?P<answer>.*?)</answer>", re.DOTALL)


def split(text: str) -> tuple[str | None, str | None]:
    """The think part and the answer part of a response in the study's form, or (None, None)."""
    match = _FORM.fullmatch(text)
    return (match["think"].strip(), match["answer"].strip()) if match else (None, None)


def answer_part(text: str) -> str | None:
    """What is verified in free form: the last answer part, or else the whole text; None for a truncated think part."""
    answers = _ANSWER.findall(text)
    if answers:
        return answers[-1].strip()
    if "<think>" in text:
        return text.rpartition("</think>")[2].strip() if "</think>" in text else None
    return text
