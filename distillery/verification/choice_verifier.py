"""Multiple choice: which of the options an answer names, by its letter, with its text, by its text alone, or in prose.

An answer that names several options, or none that can be read, is inconclusive.
"""

import re
from concurrent.futures import Future

from distillery.verification.futures import done
from distillery.verification.math_text import boxes, normalize, plain
from distillery.verification.verdict import Item, Verdict, scored, unknown

NAME = "choice"
LAST = 2000
"""Characters at the end of an answer in which prose is searched: what is chosen stands there."""
_OPTION = re.compile(r"^[\s*-]*\(?([A-J])[).:][\s*]*(\S.*?)\s*$", re.MULTILINE)
_INLINE = re.compile(r"\(([A-J])\)\s*([^()\n]+?)\s*(?=\([A-J]\)|$)", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-Ja-j])\)?[.:)]?")
_LETTERED = re.compile(r"\(?([A-J])[).:]\s*\S.*", re.DOTALL)
_NAMED = re.compile(
    r"(?:\b(?:answer|choice|option|choose|select(?:ion)?|pick)\b(?:\s+(?:is|would be|should be|must be|option|choice|letter))*"
    r"|答案(?:是|为)?|选择?|####)\s*:?\s*[*_$\\({]*(?:text\{|mathbf\{|boxed\{)*\(?([A-J])(?![\w'])(?!\)?\s+(?:is|was)\s+(?:not|wrong|incorrect|false))",
    re.IGNORECASE,
)
_IS_RIGHT = re.compile(r"(?<!\w)\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b")


def options_of(question: str) -> dict[str, str]:
    """The options that a question lists, by their letters; nothing where they do not run on from A."""
    for pattern in (_OPTION, _INLINE):
        found = {letter: _bare(text) for letter, text in pattern.findall(question)}
        if len(found) > 1 and sorted(found) == [chr(ord("A") + i) for i in range(len(found))]:
            return found
    return {}


def _bare(text: str) -> str:
    """An option's text as it is compared: without layout, case and closing full stop."""
    return re.sub(r"\s+", " ", plain(normalize(text.replace("*", "")))).casefold().strip("_ .")


def letters_in(answer: str, options: dict[str, str]) -> set[str]:
    """The letters of all options that an answer chooses: in its boxes, else as a whole, else in its last sentences."""
    boxed, readable = boxes(answer)
    if boxed:
        return set().union(*(_letters(each, options) for each in boxed)) if readable else set()
    if found := _letters(answer, options):
        return found
    end = answer[-LAST:]
    named = sorted((match.start(1), match[1].upper()) for each in (_NAMED, _IS_RIGHT) for match in each.finditer(end))
    if named:
        return {letter for _, letter in named[-2:]}
    lines = [line for line in end.splitlines() if line.strip()]
    return _letters(lines[-1], options) if lines else set()


def _letters(text: str, options: dict[str, str]) -> set[str]:
    """The letter that a short text is, begins with, or is the text of."""
    short = plain(normalize(text.replace("*", ""))).strip("_ ")
    short = re.sub(r"^(?:option|choice|answer)\s+", "", short, flags=re.IGNORECASE)
    if match := _LETTER.fullmatch(short):
        return {match[1].upper()}
    if match := _LETTERED.fullmatch(short):
        return {match[1]}
    return {letter for letter, option in options.items() if option == _bare(text)}


def verdict_of(gold: str, answer: str, question: str) -> Verdict:
    """Compares the chosen option with the reference, which is a letter or an option's text."""
    options = options_of(question)
    wanted, chosen = _letters(gold, options), letters_in(answer, options)
    if len(wanted) != 1:
        return unknown(NAME, f"the reference names no option: {gold}", hopeless=True)
    if len(chosen) != 1:
        return unknown(NAME, f"several options: {', '.join(sorted(chosen))}" if chosen else "no option is named")
    return scored(NAME, chosen == wanted, f"option {min(chosen)} for {min(wanted)}", certain=True)


def is_choice(gold: str, question: str) -> bool:
    """Whether a question lists options and its reference is one of them."""
    options = options_of(question)
    return len(_letters(gold, options) & options.keys()) == 1


class ChoiceVerifier:
    def verify(self, item: Item) -> "Future[Verdict]":
        if not item.ground_truth:
            return done(unknown(NAME, "the query has no ground truth", hopeless=True))
        return done(verdict_of(item.ground_truth, item.answer or "", item.question))

    def close(self) -> None: ...
