"""Where thought and answer stand in what a model writes.

Markers are looked up in linear time, whatever the text is.
"""

import re
from bisect import bisect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from distillery.core.formats import (
    ANNOUNCED,
    ANSWER,
    END_OF_ANSWER,
    END_OF_THINK,
    FORMATS,
    STUDY,
    TAGS,
    THINK,
    WRITTEN,
    Format,
    format_of,
)

Span = tuple[int, int]
"""From and to, in characters of the text."""

_TAGS = ((ANSWER, END_OF_ANSWER), ("<response>", "</response>"), ("<output>", "</output>"), ("<Output>", "</Output>"))
_QUOTES = "`'\"“‘「(", re.compile("[.,;:!?]?[`'\"”’」)]")
_END_OF_TURN = re.compile(
    r"(?:\s*(?:<\|(?:im_end|endoftext|eot_id|eot|end|return|user|assistant_end|END_OF_TURN_TOKEN|end_of_text)\|>|</s>"
    r"|<｜end▁of▁sentence｜>|<end_of_turn>|<turn\|>|<seed:eos>|\[\|endofturn\|\]|\[e~\[))+\s*\Z"
)
_LONGEST_END = 200
_ANSWER_FOLLOWS = re.compile(rf"\s*{ANSWER}")


class Parts(NamedTuple):
    """Where thought and answer stand; None where there is none."""

    thought: Span | None
    answer: Span | None


NOTHING = Parts(None, None)


def locate(text: str, name: str, truncated: bool = False) -> Parts:
    """Where thought and answer stand in a response of the format ``name``.

    A model that writes ``<think>`` instead, since a prompt asks for it or a server puts the thought in such tags, is read too.

    A thought may open in the prompt, so that the text has only its end. A thought that quotes its markers, or names them
    in pairs, goes on. A truncated response has no answer, unless the answer's own end came before that. Where a closing marker
    is left over, or a second thought follows the answer, it cannot be told which part is which: there is neither.
    """
    if name not in WRITTEN and text.lstrip().startswith(THINK) and END_OF_THINK in text:
        name = TAGS
    form = FORMATS[name]
    markers = _markers(text, _pattern(form.opening, form.closing))
    if form.answer and name != STUDY:
        return _by_answer(text, form, markers, truncated)
    if name in ANNOUNCED:
        thought = _announced(text, markers)
    else:
        thought = _anchored(text, markers) if name == STUDY else None
        thought = thought or _thought(text, markers, truncated)
    if thought is None:
        return NOTHING
    (first, last), after = thought
    return Parts(_stripped(text, first, last), _answer(text, form, after, truncated))


def _pattern(opening: str, closing: str) -> str:
    """Either marker; the group ``opening`` is None at a closing one.

    The group is empty and comes last: an alternative that begins with a group is searched for forty times slower.
    """
    return f"{opening}(?P<opening>)|{closing}"


def _markers(text: str, pattern: str, *within: int) -> list[re.Match[str]]:
    """The markers that are not quoted; ``within``: from where, and up to where."""
    return [each for each in re.compile(pattern).finditer(text, *within) if not _is_quoted(text, each)]


def _is_quoted(text: str, marker: re.Match[str]) -> bool:
    before = text[marker.start() - 1 : marker.start()]
    return bool(before) and before in _QUOTES[0] and _QUOTES[1].match(text, marker.end()) is not None


def _anchored(text: str, markers: list[re.Match[str]]) -> tuple[Span, int] | None:
    """The thought that ends where the answer tag directly follows; None where that is nowhere, or in several places."""
    ends = [each for each in markers if each["opening"] is None and _ANSWER_FOLLOWS.match(text, each.end())]
    return ((_begin(text, markers)[0], ends[0].start()), ends[0].end()) if len(ends) == 1 else None


def _begin(text: str, markers: list[re.Match[str]]) -> tuple[int, int]:
    """Where the thought begins, and how many of the markers that is: none where it was opened in the prompt."""
    if markers[0]["opening"] is None or _is_mentioned(text, markers[0]):
        return 0, 0
    twice = len(markers) > 1 and markers[1]["opening"] is not None and not text[markers[0].end() : markers[1].start()].strip()
    return (markers[1].end(), 2) if twice else (markers[0].end(), 1)  # twice: by the prompt, and by the model again


def _thought(text: str, markers: list[re.Match[str]], truncated: bool) -> tuple[Span, int] | None:
    """The thought's span and where the text goes on after its closing marker; None where that cannot be told."""
    if not markers:
        return None
    begins, used = _begin(text, markers)
    depth, end = 1, None
    for marker in markers[used:]:
        if marker["opening"] is not None:
            if end is not None and text[end.end() : marker.start()].strip():
                return None if _closes(markers, marker) else ((begins, end.start()), end.end())
            depth, end = depth + 1, None
        elif end is not None:
            return None
        else:
            depth -= 1
            end = None if depth else marker
    if end is None and not truncated:
        end = next((each for each in reversed(markers) if each["opening"] is None), None)
    return ((begins, end.start()), end.end()) if end else None


def _is_mentioned(text: str, opening: re.Match[str]) -> bool:
    """Whether an opening marker stands within a line: the thought that names it was opened in the prompt."""
    before, after = text[: opening.start()].rstrip(" "), text[opening.end() : opening.end() + 1]
    return bool(before.strip()) and not before.endswith("\n") and after != "\n"


def _closes(markers: list[re.Match[str]], opening: re.Match[str]) -> bool:
    return any(each["opening"] is None and each.start() > opening.start() for each in markers)


def _announced(text: str, markers: list[re.Match[str]]) -> tuple[Span, int] | None:
    closings = [each for each in markers if each["opening"] is None]
    if not closings:
        return None
    begins = markers[0].end() if markers[0]["opening"] is not None else 0
    return (begins, closings[-1].start()), closings[-1].end()


def _by_answer(text: str, form: Format, markers: list[re.Match[str]], truncated: bool) -> Parts:
    """Parts of a format that marks where the answer begins: the thought is all before it, in one message or several.

    Some leave the mark out; what calls a tool instead of answering has no answer.
    """
    answers = list(re.finditer(form.answer, text))
    before = answers[0].start() if answers else len(text)
    openings = [each for each in markers if each["opening"] is not None and each.start() < before]
    closings = [each for each in markers if each["opening"] is None and each.start() < before]
    if not closings or (openings and openings[-1].start() > closings[-1].start()):
        return NOTHING
    first = openings[0].end() if openings and openings[0].start() < closings[-1].start() else 0
    last = _closing_after(closings, openings[-1]) if openings else closings[0]
    thought = _stripped(text, first, last.start())
    calls = not answers and text[last.end() :].lstrip().startswith("<|")
    if len(answers) > 1 or calls:
        return Parts(thought, None)
    return Parts(thought, _until(text, answers[0].end() if answers else last.end(), form.end, truncated))


def _closing_after(closings: list[re.Match[str]], opening: re.Match[str]) -> re.Match[str]:
    return next(each for each in closings if each.start() > opening.start())


def _answer(text: str, form: Format, after: int, truncated: bool) -> Span | None:
    """The span of the answer, which begins after ``after``."""
    if form == FORMATS[STUDY]:
        return _in_tags(text, after, ANSWER, END_OF_ANSWER)
    for opening, end in _TAGS:
        starts = text[after:].lstrip().startswith(opening)
        if (starts or opening == ANSWER) and (span := _in_tags(text, after, opening, end)):
            return span
        if starts:
            found = text.find(opening, after) + len(opening)
            return None if truncated or end in text[found:] else _until(text, found, form.end, truncated)
    return _until(text, after, form.end, truncated)


def _in_tags(text: str, after: int, opening: str, end: str) -> Span | None:
    """The span before the only end tag outside quotes and code, from the last opening tag on."""
    fences = [each.start() for each in re.compile("```").finditer(text, after)]
    markers = _markers(text, _pattern(opening, end), after)
    tags = [each for each in markers if bisect(fences, each.start()) % 2 == 0]
    closings = [each for each in tags if each["opening"] is None]
    openings = [each for each in tags if each["opening"] is not None and closings and each.start() < closings[-1].start()]
    if len(closings) != 1 or not openings:
        return None
    return _filled(_stripped(text, openings[-1].end(), closings[0].start()))


def _until(text: str, first: int, end: str, truncated: bool) -> Span | None:
    """The span up to the end marker, or to the end of the text; None where it was truncated before."""
    marker = re.compile(end).search(text, first) if end else None
    if truncated and marker is None:
        return None
    last = marker.start() if marker else len(text)
    tail = _END_OF_TURN.search(text, max(first, last - _LONGEST_END), last)
    return _filled(_stripped(text, first, tail.start() if tail else last))


def _stripped(text: str, first: int, last: int) -> Span:
    """The span without white space at its ends."""
    inner = text[first:last]
    first += len(inner) - len(inner.lstrip())
    return first, max(first, first + len(inner.strip()))


def _filled(span: Span) -> Span | None:
    return span if span[0] < span[1] else None


def cut(text: str, span: Span | None) -> str | None:
    return None if span is None else text[slice(*span)]


def thought_of(text: str, span: Span | None, name: str) -> str | None:
    """A thought as text: where it came in several messages, without what stands between them."""
    if span is None:
        return None
    form = FORMATS[name]
    markers = _markers(text, _pattern(form.opening, form.closing), *span)
    pieces, place = [], span[0]
    for closing, opening in _between(text, markers, anything=bool(form.answer) and name != STUDY):
        pieces.append(text[place : closing.start()].strip())
        place = opening.end()
    return "\n\n".join([*pieces, text[place : span[1]].strip()])


def _between(text: str, markers: list[re.Match[str]], anything: bool) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
    """The end of each message of a thought and the start of its next one; white space or ``anything`` stands between."""
    closing = None
    for marker in markers:
        if marker["opening"] is None:
            closing = (closing if anything else None) or marker
        elif closing is not None and (anything or not text[closing.end() : marker.start()].strip()):
            yield closing, marker
            closing = None


def columns_of(text: str, name: str, truncated: bool = False) -> dict[str, Any]:
    """A response and where its parts stand, as columns of TRACE."""
    columns: dict[str, Any] = {"text": text, "format": name}
    for part, span in zip(("think", "answer"), locate(text, name, truncated), strict=True):
        columns |= {f"{part}_start": span and span[0], f"{part}_end": span and span[1]}
    return columns


def span_of(trace: Mapping[str, Any], part: str) -> Span | None:
    """Where a part, ``think`` or ``answer``, of a row of TRACE stands."""
    first, last = trace[f"{part}_start"], trace[f"{part}_end"]
    return None if first is None or last is None else (first, last)


def answer_of(trace: Mapping[str, Any]) -> str | None:
    """The answer of a row of TRACE."""
    return cut(trace["text"], span_of(trace, "answer"))


def parts_of(trace: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Thought and answer of a row of TRACE."""
    return thought_of(trace["text"], span_of(trace, "think"), trace["format"]), answer_of(trace)


def response_of(trace: Mapping[str, Any], student_format: str) -> str:
    """A row of TRACE as a student learns it; as it came where thought or answer is missing, which quality checks remove."""
    thought, answer = parts_of(trace)
    if thought is None or answer is None:
        return str(trace["text"])
    return WRITTEN[student_format].format(thought=thought, answer=answer)


def answer_part(text: str) -> str | None:
    """What a student's response is judged by: the last answer part after the thought, or else all that follows the thought.

    Lenient, since a student may have learnt no format: without any marker it is the whole text. None for a thought that does
    not end, and for an answer that another thought follows. Formats of other models count where the text begins with one.
    """
    stripped, name = text.lstrip(), format_of(text)
    if re.match(FORMATS[name].opening, stripped) and name not in WRITTEN:
        answer = cut(text, locate(text, name).answer)
        if answer or name not in ANNOUNCED:
            return answer
    if re.search(FORMATS[TAGS].closing, text):
        return cut(text, locate(text, TAGS).answer)
    if stripped.startswith(THINK):
        return None
    span = _in_tags(text, 0, ANSWER, END_OF_ANSWER) or _last_answer(text)
    return cut(text, span) if span else text


def _last_answer(text: str) -> Span | None:
    """The last answer part, open or closed."""
    end = text.rfind(END_OF_ANSWER)
    last = end if end >= 0 else len(text)
    start = text.rfind(ANSWER, 0, last)
    return _stripped(text, start + len(ANSWER), last) if start >= 0 else None
