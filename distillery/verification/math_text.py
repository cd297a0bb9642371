r"""Reads a final answer: which box counts, and one spelling for what is written in many.

`final_expression` finds the answer, `normalize` spells it, the `..._of` functions read numbers, units and containers.
"""

import re
from fractions import Fraction

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{)|\\(?:boxed|fbox)\s*(-?\d+|[A-Za-z])(?![\w{])|\\(?:boxed|fbox)\b")
_STATED = re.compile(r"(?:####|(?:final\s+)?answer\s*(?:is|:|=)|答案(?:是|为|：|:))\s*[:*]*\s*", re.IGNORECASE)
_END = re.compile(r"(?<!\d)\.(?=\s|$)|\.(?=\s+[A-Z]|$)|\n|[;(]\s*(?=[a-z]{2})|。|,\s*(?=not\b|because\b|since\b|so\b|which\b)")
_LEADING = re.compile(r"((?:\\?\$)?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?)(?![\d^_\\])")
_SENTENCE = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|rm|bf)\s*\{([^{}]*)\}")
_COMMANDS = {r"\left": "", r"\right": "", r"\displaystyle": "", r"\!": "", r"\dfrac": r"\frac", r"\tfrac": r"\frac"}
_COMMANDS |= {
    r"\cfrac": r"\frac",
    r"\sfrac": r"\frac",
    r"\leqslant": r"\le",
    r"\geqslant": r"\ge",
    r"\leq": r"\le",
    r"\geq": r"\ge",
}
_COMMANDS |= {r"\lt": "<", r"\gt": ">", r"\varnothing": r"\emptyset", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\ne": r"\neq"}
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+|!)")
_SPACES = re.compile(r"(?<!\\)\\[ ,;:>]|\\quad\b|\\qquad\b|~|[\s\u00a0\u2009\u202f\u2007\u200a]")
_UNICODE = {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le "}
_UNICODE |= {"≥": r"\ge ", "≠": r"\neq ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "°": r"^\circ ", "±": r"\pm "}
_UNICODE |= {"½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}"}
_UNICODE |= {"²": "^2", "³": "^3", "，": ",", "：": ":", "（": "(", "）": ")", "％": "%", "∈": r"\in "}
_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z]|\([^()]*\))|\\sqrt\s*\(([^()]*)\)")
_CURRENCY = re.compile(r"\\\$|[£€¥]|\\(?:pounds|euro)\b")
_NUMBER = re.compile(r"([+-]?)(?:(\d{1,3}(?:(?:,|\{,\})\d{3})+|\d{1,400})?(\.\d{1,400})?)(?:[eE]([+-]?\d{1,3}))?", re.ASCII)
_FRACTION = re.compile(r"([+-]?)\\frac\{?([+-]?\d{1,100})\}?\{?(\d{1,100})\}?|([+-]?)(\d{1,100})/(\d{1,100})", re.ASCII)
_MIXED = re.compile(r"([+-]?)(\d{1,40})(?: ?\\frac\{(\d{1,40})\}\{(\d{1,40})\}| (\d{1,40})/(\d{1,40}))", re.ASCII)
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?) ?\\(?:times|cdot) ?10\^\{?([+-]?\d{1,3})\}?", re.ASCII)
_UNIT = re.compile(
    r"(?P<number>.*?\S)\s*(?P<unit>\\(?:text|mathrm|textrm|rm)\s*\{[^{}]*[^\W\d_][^{}]*\}\s*(?:\^\{?-?\d+\}?)?)"
    r"|(?P<plain>.*[\d})])(?P<word>\s*[^\W\d_]{2}[^\d\\{}()=<>+*,:]*(?:[\^/]\{?-?\d+\}?)?|\s+[mgshLNJWKVAC])",
    re.DOTALL,
)
_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {word: number for number, word in enumerate(_ONES.split())}
NUMBER_WORDS |= {word: 10 * number for number, word in enumerate(_TENS.split(), 2)}
NUMBER_WORDS |= {f"{ten}-{one}": NUMBER_WORDS[ten] + NUMBER_WORDS[one] for ten in _TENS.split() for one in _ONES.split()[1:10]}


def boxes(text: str) -> tuple[list[str], bool]:
    """The contents of every outermost box, and whether the last box can be read: it is neither truncated nor empty."""
    found, readable, position = [], True, 0
    while match := _BOX.search(text, position):
        content, position = (match[1], match.end()) if match[1] else _braced(text, match.end())
        blank = re.sub(r"\\phantom\{[^{}]*\}|[{}$\s]", "", content or "")
        readable = bool(blank)
        if readable and content:
            found.append(content.strip())
    return found, readable


def _braced(text: str, start: int) -> tuple[str | None, int]:
    """What is in the braces that open at ``start``, and where the search goes on; None where they do not close."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] in "{}" and text[i - 1] != "\\":
            depth += 1 if text[i] == "{" else -1
            if depth == 0:
                return text[start + 1 : i], i + 1
        if depth == 0:
            break
    return None, len(text) if depth else start


def final_expression(text: str) -> str | None:
    """The answer of a response: what its boxes hold, or what is stated as the answer, or all of a text that is no prose.

    Several boxes are a list. None where the last box is empty or truncated: no number is picked from elsewhere then.
    """
    found, readable = boxes(text)
    if not readable:
        return None
    if found:
        inner = [final_expression(each) if _BOX.search(each) else each for each in dict.fromkeys(found)]
        return None if None in inner else ", ".join(each for each in inner if each)
    if stated := list(_STATED.finditer(text)):
        rest = _END.split(text[stated[-1].end() :].strip(), maxsplit=1)[0].strip().strip("*").strip()
        leading = _LEADING.match(rest)
        return leading[1] if leading and _SENTENCE.search(rest) else rest or None
    return text.strip().strip("*").strip()


def normalize(text: str) -> str:
    """One spelling: LaTeX without layout, ASCII, no currency, no closing full stop."""
    for sign, plain in _UNICODE.items():
        text = text.replace(sign, plain)
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    text = _CURRENCY.sub("", text).replace("$", "").replace(r"\(", "").replace(r"\)", "").replace(r"\[", "").replace(r"\]", "")
    text = re.sub(r",\\!\s*(?=\d)", ",", text)
    text = re.sub(r"(?<=\d)(?:\\[,!]|\{,\}|[\u2009\u202f])(?=\d{3}(?!\d))", "", text)
    text = _COMMAND.sub(lambda found: _COMMANDS.get(found[0], found[0]), text).replace("\\%", "%")
    text = re.sub(r" +", " ", _SPACES.sub(" ", text)).strip()
    return re.sub(r"[.,;:]+$", "", text.removeprefix(r"\approx").strip()).strip()


def plain(text: str) -> str:
    """Normalized text whose words stand without their commands, such as ``\\text``."""
    return re.sub(r" +", " ", _WRAPPED.sub(r" \1 ", text)).strip()


def number_of(text: str) -> Fraction | None:
    """The value of a number: integer, decimal, fraction, mixed number, scientific notation, English word; None for all else."""
    text = plain(text)
    if braced := re.fullmatch(r"\{([^{}]*)\}", text):
        text = braced[1].strip()
    if mixed := _MIXED.fullmatch(text):
        above, below = mixed[3] or mixed[5], mixed[4] or mixed[6]
        value = int(mixed[2]) + Fraction(int(above), int(below)) if int(below) else None
        return None if value is None else -value if mixed[1] == "-" else value
    if fraction := _FRACTION.fullmatch(text):
        sign, above, below = (fraction[1], fraction[2], fraction[3]) if fraction[2] else (fraction[4], fraction[5], fraction[6])
        return Fraction(int(above), int(below)) * (-1 if sign == "-" else 1) if int(below) else None
    if scientific := _SCIENTIFIC.fullmatch(text):
        return Fraction(scientific[1]) * Fraction(10) ** int(scientific[2])
    match = _NUMBER.fullmatch(text)
    if match and (match[2] or match[3]):
        digits = (match[2] or "0").replace(",", "").replace("{}", "") + (match[3] or "")
        return Fraction(f"{match[1]}{digits}") * Fraction(10) ** int(match[4] or 0)
    word = NUMBER_WORDS.get(text.casefold())
    return None if word is None else Fraction(word)


def percent_of(text: str) -> tuple[Fraction, bool] | None:
    """A number, and whether it is written in percent."""
    percent = text.endswith("%") or plain(text).endswith(("percent", "per cent"))
    value = number_of(re.sub(r"%|\bper ?cent$", "", plain(text)).strip()) if percent else number_of(text)
    return None if value is None else (value, percent)


def split_unit(text: str) -> tuple[str, str]:
    r"""An expression and its unit, ``5 cm`` or ``4\sqrt{3}\text{ cm}^2``; the unit is empty where there is none."""
    degrees = re.fullmatch(r"(.*?)\s*\^\{?\\circ\}?\s*(?:\\text\{\s*\w*\s*\}|[CF])?", text)
    if degrees and degrees[1]:
        return degrees[1].strip(), "degrees"
    match = _UNIT.fullmatch(text)
    if not match or (match["word"] and number_of(match["plain"]) is None):
        return text, ""
    number, spelling = (match["number"], match["unit"]) if match["unit"] else (match["plain"], match["word"])
    unit = re.sub(r"\\(?:text|mathrm|textrm|rm)\b|[{}\s.^]", "", spelling).casefold()
    return number.strip(), unit.removesuffix("s") if len(unit) > 2 else unit


def split_top(text: str, separators: str = ",;") -> list[str]:
    """The parts of a list, split where no bracket is open; ``and`` and ``or`` separate, too."""
    text = re.sub(r"\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])", ",", text)
    parts, depth, last = [], 0, 0
    for i, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char in separators and depth == 0:
            parts.append(text[last:i])
            last = i + 1
    return [part.strip() for part in [*parts, text[last:]] if part.strip()]


def key_of(answer: str | None) -> str | None:
    """A key that equal answers share, as far as normalization goes; None where there is no answer."""
    expression = final_expression(answer) if answer else None
    if not expression:
        return None
    value = number_of(normalize(expression))
    return re.sub(r"\s", "", plain(normalize(expression))).casefold() if value is None else str(value)
