r"""Compares two final answers by what they are: numbers, words, lists, equations, intervals, quantities.

Math-Verify compares expressions. What it cannot be trusted with is decided here first: equations (it takes ``I=5`` for a
statement about the imaginary unit), ordered against unordered lists, units, times, choices, and small numbers (it rounds).
`compare` gives True, False, None where that is open, or a list of pairs of expressions that must all be equal.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from itertools import permutations

from distillery.verification.math_text import normalize, number_of, percent_of, plain, split_top, split_unit

MOST_UNITED = 4
"""Intervals of a union that are compared in any order."""
Equal = Callable[[str, str], bool | None]
"""How expressions are compared in the end: by Math-Verify."""
_SUBSCRIPT = r"(?:_(?:\w|\{[^{}]*\}))?"
_FUNCTION = re.compile(r"([a-zA-Z])\(([a-z])\)")
_NAME = re.compile(
    rf"(?:[A-Za-z]|\\[a-zA-Z]+|\\(?:vec|bar|hat|mathbf)\{{\w\}}){_SUBSCRIPT}'*(?:\([^()=]*\))?|[A-Za-z]{{2,}}(?:\([^()=]*\))?",
    re.ASCII,
)
_OPERATORS = r"\\(?:frac|sqrt|pm|times|cdot|div|infty|log|ln|sin|cos|tan|sum|int|binom)\b"
_UNSURE = re.compile(r"\\(?:sum|int|prod)\b")
"""What Math-Verify takes for equal too easily."""
_RELATION = re.compile(r"\\(?:to|rightarrow|equiv|le|ge|neq|in|notin|sim|mid)\b|[<>]")
EXCLUSIVE = [
    {"yes", "no"},
    {"odd", "even"},
    {"north", "east", "south", "west"},
    {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"},
    set("january february march april may june july august september october november december".split()),
]
"""Words of which one excludes the others; that two other words mean the same cannot be told."""
_DATE = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}[-/]\d{1,2}[-/]\d{4}")
_TIME = re.compile(r"(\d{1,2}:\d{2}) ?(a\.?m\.?|p\.?m\.?)?", re.IGNORECASE)
_RATIO = re.compile(r"(\d+(?:\.\d+)?) ?: ?(\d+(?:\.\d+)?)")
_BASE = re.compile(r"([0-9A-Z]+)_\{?(\d+)\}?")
_CHOICE = re.compile(r"\(?([A-J])\)?[.:)]?")
_LETTERED = re.compile(r"\(([A-J])\) ?(.*)|([A-J])[.):] ?(.+)", re.DOTALL)
_INTERVAL = re.compile(r"([(\[])([^,()\[\]]+),([^,()\[\]]+)([)\]])")
_BOUNDS = re.compile(r"(.+?)(<|\\le\b)\s*[a-zA-Z]\s*(<|\\le\b)(.+)")
_BOUND = re.compile(r"[a-zA-Z]\s*(<|>|\\le\b|\\ge\b)(.+)|([^<>]+?)(<|>|\\le\b|\\ge\b)\s*[a-zA-Z]")
_BUILDER = re.compile(r"\\\{ ?([a-zA-Z]) ?(?:\\in ?\\mathbb\{?R\}? ?)?(?:\||:|\\mid) ?(.*)\\\}")
_WORDS = re.compile(r"[^\W\d_][^\W\d_.'-]*(?:[\s-]+[^\W\d_]+|\s+\d+(?:st|nd|rd|th)?)*", re.UNICODE)
_SPELLINGS = {
    "none": r"\emptyset|{}|\{\}|empty set|the empty set|no solution|no solutions|no real solution|no real solutions|none|无解",
    "infinity": r"infinity|infinite|diverges|\infty|+\infty",
    "yes": "yes|true",
    "no": "no|false",
}
CANONICAL = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split("|")}


class Open:
    """What a rule gives where it knows that nothing can tell."""


Found = bool | Open | None


def compare(gold: str, answer: str, equal: Equal) -> bool | None:
    """Whether two expressions are the same answer; None where that cannot be told."""
    gold, answer = _unwrapped(normalize(gold)), _unwrapped(normalize(answer))
    if not gold or not answer:
        return None if not gold else False
    if gold.startswith("(") or answer.startswith("("):
        gold, answer = _column(gold), _column(answer)
    for rule in (_texts, _choices, _percents, _times, _ratios, _bases, _intervals, _equations, _containers, _units, _words):
        found = rule(gold, answer, equal)
        if found is not None:
            return None if isinstance(found, Open) else found
    found = equal(_letters_plain(gold), _letters_plain(answer))
    return None if found and _UNSURE.search(gold + answer) else found


def _unwrapped(text: str) -> str:
    r"""``\text{A, C}`` as a whole, without its command."""
    return plain(text) if re.fullmatch(r"\\(?:text|textbf|mathrm|mathbf|textit)\s*\{[^{}]*\}", text) else text


def _column(text: str) -> str:
    """A column vector as a tuple."""
    match = re.fullmatch(r"\\begin\{([pbv]matrix)\}([^&]*)\\end\{\1\}", text)
    return "(" + ", ".join(part.strip() for part in match[2].split("\\\\") if part.strip()) + ")" if match else text


def _letters_plain(text: str) -> str:
    """Single letters without a font: ``\\mathrm{e}`` is the number e."""
    return re.sub(r"\\(?:mathrm|mathbf|mathit|text)\s*\{([a-zA-Z])\}", r"\1", text)


def _texts(gold: str, answer: str, equal: Equal) -> bool | None:
    ours, theirs = plain(gold), plain(answer)
    if ours == theirs:
        return True
    if re.sub(r"\s", "", ours) == re.sub(r"\s", "", theirs) and not any(map(str.isdigit, ours)):
        return True
    if r"\begin{cases}" in gold + answer or r"\begin{array}" in gold + answer or r"\ldots" in gold + answer:
        return re.sub(r"\s", "", gold) == re.sub(r"\s", "", answer)
    return True if _canonical(ours) == _canonical(theirs) != "" else None


def _canonical(text: str) -> str:
    return CANONICAL.get(text.casefold().strip(), "")


def _choices(gold: str, answer: str, equal: Equal) -> bool | None:
    """A lettered option; where the reference has the option's text, that is right, too."""
    if len(split_top(gold)) > 1:
        return None
    ours, theirs = plain(gold), plain(answer)
    theirs = re.sub(r"^(?:option|choice|answer)\s+", "", theirs, flags=re.IGNORECASE)
    lettered = _LETTERED.fullmatch(ours)
    letter = (lettered[1] or lettered[3]) if lettered else None
    text = (lettered[2] or lettered[4] or "").strip() if lettered else ""
    if not letter and (single := _CHOICE.fullmatch(ours)):
        letter = single[1]
    if not letter:
        other = _LETTERED.fullmatch(theirs)
        return (
            compare(gold, other[2] or other[4], equal)
            if other and (other[2] or other[4]) and number_of(ours) is not None
            else None
        )
    found = _CHOICE.fullmatch(theirs.upper()) or _LETTERED.fullmatch(theirs)
    if found:
        return letter == next(group for group in found.groups() if group)
    if text:
        return compare(text, theirs, equal)
    return False if number_of(theirs) is not None else None


def _percents(gold: str, answer: str, equal: Equal) -> bool | None:
    """Numbers, exactly. A percent sign may be left out, and shares may be given in percent."""
    ours, theirs = percent_of(gold), percent_of(answer)
    if ours is None or theirs is None:
        return _european(gold, answer)
    (left, left_percent), (right, right_percent) = ours, theirs
    if left_percent == right_percent:
        return left == right
    if left_percent:
        return right in (left, left / 100)
    return left == right / 100 or (left == right and abs(left) >= 1)


def _european(gold: str, answer: str) -> bool | None:
    """``3,14`` for 3.14 and ``1.000,99`` for 1000.99."""
    for one, other in ((gold, answer), (answer, gold)):
        if re.fullmatch(r"-?\d{1,3}(?:\.\d{3})*,\d{1,2}", one) and re.fullmatch(r"-?\d+\.\d+", other):
            return Fraction(one.replace(".", "").replace(",", ".")) == Fraction(other)
    return None


def _times(gold: str, answer: str, equal: Equal) -> bool | None:
    ours, theirs = plain(gold), plain(answer)
    if _DATE.fullmatch(ours) or _DATE.fullmatch(theirs):
        return ours == theirs
    mine, other = _TIME.fullmatch(ours), _TIME.fullmatch(theirs)
    if not mine or not other or (mine[2] is None and other[2] is None):
        return None
    halves = {(each[2] or "").replace(".", "").casefold() for each in (mine, other)} - {""}
    return mine[1].lstrip("0") == other[1].lstrip("0") and len(halves) == 1


def _ratios(gold: str, answer: str, equal: Equal) -> bool | None:
    mine, other = _RATIO.fullmatch(gold), _RATIO.fullmatch(answer)
    if not mine or not other or _TIME.fullmatch(gold):
        return None
    return Fraction(mine[1]) * Fraction(other[2]) == Fraction(mine[2]) * Fraction(other[1])


def _bases(gold: str, answer: str, equal: Equal) -> bool | None:
    """Numbers with their base as a subscript, which may be left out."""
    mine, other = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    if not mine and not other:
        return None
    if mine and not other and number_of(answer) is not None:
        with suppress(ValueError):
            if number_of(answer) == int(mine[1], int(mine[2])):
                return True
    digits = [each[1] if each else text for each, text in ((mine, gold), (other, answer))]
    if not all(re.fullmatch(r"[0-9A-F]+", each) for each in digits):
        return None if mine and other else False
    bases = {each[2] for each in (mine, other) if each}
    return digits[0].lstrip("0") == digits[1].lstrip("0") and len(bases) == 1


def _interval(text: str) -> list[tuple[str, str, bool, bool]] | None:
    """A union of intervals as (low, high, low included, high included); an inequality or a set in builder form, too."""
    if built := _BUILDER.fullmatch(text):
        text = built[2].strip()
    found = []
    for part in re.split(r"\\cup\b", re.sub(r"^[a-zA-Z] ?\\in\b", "", text)):
        part = part.strip()
        if match := _INTERVAL.fullmatch(part):
            found.append((match[2].strip(), match[3].strip(), match[1] == "[", match[4] == "]"))
        elif match := _BOUNDS.fullmatch(part):
            found.append((match[1].strip(), match[4].strip(), match[2] != "<", match[3] != "<"))
        elif match := _BOUND.fullmatch(part):
            sign, value = (match[1], match[2]) if match[1] else (match[4], match[3])
            upper = (sign in ("<", r"\le")) == bool(match[1])
            closed = sign.startswith("\\")
            found.append((r"-\infty", value.strip(), False, closed) if upper else (value.strip(), r"\infty", closed, False))
        else:
            return None
    return found


def _intervals(gold: str, answer: str, equal: Equal) -> bool | None:
    """Intervals and inequalities, in either form. Two pairs in round brackets may as well be points: lists decide."""
    ours, theirs = _interval(gold), _interval(answer)
    if ours is None or theirs is None:
        return False if _RELATION.search(answer) and not _RELATION.search(gold) and number_of(gold) is not None else None
    if _INTERVAL.fullmatch(gold) and _INTERVAL.fullmatch(answer) and gold[0] + gold[-1] + answer[0] + answer[-1] == "()()":
        return None
    if len(ours) != len(theirs):
        return False
    orders = permutations(theirs) if len(theirs) <= MOST_UNITED else [theirs]
    found = [_all(_one_interval(mine, other, equal) for mine, other in zip(ours, order, strict=True)) for order in orders]
    return True if True in found else None if None in found else False


def _one_interval(ours: tuple[str, str, bool, bool], theirs: tuple[str, str, bool, bool], equal: Equal) -> bool | None:
    if ours[2:] != theirs[2:]:
        return False
    return _all(compare(mine, other, equal) for mine, other in zip(ours[:2], theirs[:2], strict=True))


def _all(found: Iterable[bool | None]) -> bool | None:
    """Whether all are true: False if one is false, None if one is open."""
    answers = list(found)
    return False if False in answers else None if None in answers else True


def _sides(text: str) -> list[str]:
    r"""The sides of an equation or a chain of them; ``\approx`` counts as ``=``."""
    marked = re.sub(r"(?<![<>!\\:])=|\\approx\b", "\0", text)
    return [side for side in split_top(marked, "\0") if side]


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(plain(text))) and not re.match(_OPERATORS, text)


def _equations(gold: str, answer: str, equal: Equal) -> bool | None:
    """``x=5`` is 5; the names of two equations must be the same; an equation in general is left to Math-Verify."""
    if len(split_top(gold)) > 1 or len(split_top(answer)) > 1:
        return None
    ours, theirs = _sides(gold), _sides(answer)
    if len(ours) == len(theirs) == 1:
        return None
    if len(theirs) > 1 and len(ours) == 1:
        if number_of(theirs[0]) is not None or not _stands_for(theirs[0]):
            return compare(gold, theirs[0], equal) if r"\approx" in answer and "=" not in answer else False
        return compare(gold, theirs[-1], equal)
    if len(ours) > 1 and len(theirs) == 1:
        return (
            compare(ours[-1], theirs[0], equal) if _is_name(ours[0]) else False if not _letters(gold) else equal(gold, answer)
        )
    if _is_name(ours[0]) and _is_name(theirs[0]):
        theirs = _with_argument(theirs, ours[0])
        if not _same_name(ours[0], theirs[0]):
            return False
        return compare(_without_condition(ours[-1]), _without_condition(theirs[-1]), equal)
    if not _letters(gold) or not _letters(answer) or r"\equiv" in gold + answer:
        return re.sub(r"\s", "", gold) == re.sub(r"\s", "", answer)
    return equal(gold, answer)


def _stands_for(side: str) -> bool:
    """Whether a left side names the value on the right: a name, or an expression of several variables."""
    return _is_name(side) or len(_letters(side)) > 1


def _letters(text: str) -> set[str]:
    return set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", text)))


def _same_name(ours: str, theirs: str) -> bool:
    left, right = (re.sub(r"[\s{}]", "", plain(each)) for each in (ours, theirs))
    return (
        left == right
        or {left, re.sub(r"\(.*\)", "()", right)} == {"y", "f()"}
        or {right, re.sub(r"\(.*\)", "()", left)} == {"y", "f()"}
    )


def _with_argument(sides: list[str], name: str) -> list[str]:
    """``f(t)=t+1`` with the variable of ``name``, ``f(x)``: what a function's variable is called does not matter.

    Unless it is no variable: P(A)=0.5.
    """
    left, right = (_FUNCTION.fullmatch(plain(each)) for each in (sides[0], name))
    used = _letters("=".join(sides[1:]))
    if not left or not right or left[1] != right[1] or left[2] not in used or right[2] in used - {left[2]}:
        return sides
    return [re.sub(rf"(?<![\\a-zA-Z]){left[2]}(?![a-zA-Z])", right[2], each) for each in sides]


def _without_condition(text: str) -> str:
    r"""``3k \text{ for any integer } k``: the condition that follows an expression in words is dropped."""
    return re.sub(r"\\text\{\s*(?:for|where|with)\b.*", "", text).strip()


def _container(text: str) -> tuple[str, list[str]]:
    """The kind of a list (``set``, ``tuple``, ``bare`` or ``one``) and its elements."""
    for kind, opening, closing in (("set", r"\{", r"\}"), ("tuple", "(", ")"), ("bare", "[", "]")):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and _balanced(inner):
            parts = split_top(inner)
            if kind != "tuple" or len(parts) > 1:
                return kind, parts
    parts = split_top(text)
    return ("bare", parts) if len(parts) > 1 else ("one", parts)


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char in "([") - (char in ")]")
        if depth < 0:
            return False
    return depth == 0


def _containers(gold: str, answer: str, equal: Equal) -> bool | None:
    """Lists: in braces without order, in brackets with it; bare ones as the other side has it."""
    gold, answer = (_with_signs(each) for each in (gold, answer))
    (ours, mine), (theirs, other) = _container(gold), _container(answer)
    if ours == theirs == "one":
        return None
    if {ours, theirs} == {"set", "tuple"}:
        return False
    if "tuple" in (ours, theirs):
        if len(mine) != len(other):
            return False
        bare = [_sides(each)[-1] for each in other] if ours == "tuple" else other
        return _all(compare(left, right, equal) for left, right in zip(mine, bare, strict=True))
    if len(mine) != len(other) and "[" in (gold[0], answer[0]):
        return False
    return _unordered(mine, other, equal)


def _with_signs(text: str) -> str:
    r"""``a \pm b`` as a list of two."""
    if text.count(r"\pm") != 1 or len(split_top(text)) > 1:
        return text
    name, value = (_sides(text)[0] + "=", _sides(text)[-1]) if len(_sides(text)) > 1 else ("", text)
    return ", ".join(name + value.replace(r"\pm", sign).strip().removeprefix("+") for sign in "+-")


def _unordered(ours: list[str], theirs: list[str], equal: Equal) -> bool | None:
    """Whether each element has its equal on the other side."""
    if max(len(ours), len(theirs)) > 12:
        return None
    open_ = False
    for some, others in ((ours, theirs), (theirs, ours)):
        for each in some:
            found = [compare(each, other, equal) if some is ours else compare(other, each, equal) for other in others]
            if True in found:
                continue
            if None not in found:
                return False
            open_ = True
    return None if open_ else True


def _units(gold: str, answer: str, equal: Equal) -> Found:
    """Quantities: a unit may be left out; two that differ, or are spelt differently, decide nothing."""
    mine, others = (re.fullmatch(r"(.*\d)\s*([A-Za-z])", each) for each in (gold, answer))
    if mine and others and mine[2] == others[2] and number_of(mine[1]) is not None and number_of(others[1]) is not None:
        return number_of(mine[1]) == number_of(others[1])
    (ours, unit), (theirs, other) = split_unit(gold), split_unit(answer)
    if not unit and not other:
        return None
    if unit and other and unit != other:
        return Open() if number_of(ours) is not None or compare(ours, theirs, equal) else False
    if "degrees" in (unit, other) and r"\pi" in ours + theirs:
        return equal(
            *(f"({value})*\\pi/180" if kind == "degrees" else value for value, kind in ((ours, unit), (theirs, other)))
        )
    return compare(ours, theirs, equal)


def is_words(text: str) -> bool:
    """Whether a normalized text is words, which mathematics cannot compare."""
    return bool(_WORDS.fullmatch(plain(text))) and "\\" not in plain(text)


def _words(gold: str, answer: str, equal: Equal) -> Found:
    """Words: the same ones pass; that others mean the same cannot be told."""
    ours, theirs = plain(gold), plain(answer)
    if not is_words(gold) or (len(ours) == 1 and len(theirs) == 1 and not theirs.isdigit()):
        return _same_letter(ours, theirs)
    left, right = (re.sub(r"(\d)(?:st|nd|rd|th)\b", r"\1", each.casefold()) for each in (ours, theirs))
    if left == right or re.match(rf"{re.escape(left)}\s*[,.!]", right):
        return True
    if number_of(theirs) is not None or len(ours) == 1:
        return False
    letters = re.fullmatch(r"[A-Z]{2,6}", ours) and re.fullmatch(r"[A-Z]{2,6}", theirs)
    both = {_canonical(each) or each for each in (left, right)}
    different = any(both <= words for words in EXCLUSIVE)
    return False if letters or different else Open()


def _same_letter(ours: str, theirs: str) -> bool | None:
    return True if len(ours) == len(theirs) == 1 and ours.isalpha() and ours.casefold() == theirs.casefold() else None
