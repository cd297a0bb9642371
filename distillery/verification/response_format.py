"""Locates the think part and the answer part of a response."""

THINK, END_OF_THINK, ANSWER, END_OF_ANSWER = "<think>", "</think>", "<answer>", "</answer>"


def split(text: str) -> tuple[str | None, str | None]:
    """The think part and the answer part of a response in the study's form, or (None, None)."""
    inner = text.strip()
    if not (inner.startswith(THINK) and inner.endswith(END_OF_ANSWER)):
        return None, None
    if any(inner.count(tag) != 1 for tag in (THINK, END_OF_THINK, ANSWER, END_OF_ANSWER)):
        return None, None
    think, _, answer = inner.removeprefix(THINK).removesuffix(END_OF_ANSWER).partition(END_OF_THINK)
    answer = answer.lstrip()
    return (think.strip(), answer.removeprefix(ANSWER).strip()) if answer.startswith(ANSWER) else (None, None)


def answer_part(text: str) -> str | None:
    """What is verified in free form: the last answer part after the thought, or else all that follows the thought.

    None for a thought that does not end, and for an answer that another thought follows. Linear, whatever the text is.
    """
    if THINK in text and END_OF_THINK not in text:
        return None
    before, _, answer = text.rpartition(END_OF_THINK)
    if END_OF_ANSWER in before and END_OF_THINK in before:
        return None
    end = answer.rfind(END_OF_ANSWER)
    start = answer.rfind(ANSWER, 0, end if end >= 0 else len(answer))
    if start < 0:
        return answer.strip() if END_OF_THINK in text else answer
    return answer[start + len(ANSWER) : end if end >= 0 else len(answer)].strip()
