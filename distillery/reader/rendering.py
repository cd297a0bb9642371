r"""Texts as HTML: mathematics as MathML, fenced code with colours, all else escaped and with its line breaks.

Everything is rendered here, so that the page needs no library and nothing of a text can become markup of its own.
"""

import re
from html import escape
from xml.etree import ElementTree

LONGEST = 60_000
"""Characters of a text that are shown; looping models write megabytes."""
LONGEST_FORMULA = 1_500
MATHML = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", MATHML)
_NAMES = (
    "math mrow mi mn mo mtext mspace ms mfrac msqrt mroot mstyle merror mpadded mphantom mfenced menclose msub msup msubsup "
    "munder mover munderover mmultiscripts mprescripts mtable mtr mtd mlabeledtr none"
)
TAGS = {f"{{{MATHML}}}{name}" for name in _NAMES.split()}
ATTRIBUTES = set(
    "display stretchy fence form separator accent accentunder linethickness mathvariant mathcolor mathsize mathbackground "
    "columnalign rowspacing columnspacing columnlines rowlines scriptlevel displaystyle minsize maxsize width height depth "
    "lspace rspace voffset movablelimits largeop symmetric notation frame framespacing align rowspan columnspan".split()
)
_CODE = re.compile(r"```([\w+-]*)[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_MATHS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\d)", re.DOTALL)


def html_of(text: str | None) -> str:
    """A text as HTML; what is over `LONGEST` characters is cut and said so."""
    text = text or ""
    shown, cut = text[:LONGEST], len(text) - LONGEST
    parts, end = [], 0
    for block in _CODE.finditer(shown):
        parts += [_prose(shown[end : block.start()]), _code(block[2], block[1])]
        end = block.end()
    parts.append(_prose(shown[end:]))
    return "".join(parts) + (f"<p class=soft>{cut:,} more characters</p>" if cut > 0 else "")


def marked(text: str, words: str) -> str:
    """A text with the words marked that it has in common with another one; ``words`` are parted by ellipses."""
    found = [re.escape(escape(part.strip())) for part in words.split("…") if part.strip()]
    shown = escape(text[:LONGEST])
    if not found:
        return _lines(shown)
    pattern = "|".join(part.replace(r"\ ", r"\W+") for part in sorted(found, key=len, reverse=True))
    return _lines(re.sub(pattern, lambda match: f"<mark>{match[0]}</mark>", shown, flags=re.IGNORECASE))


def _lines(escaped: str) -> str:
    return f"<div class=text>{escaped.strip()}</div>" if escaped.strip() else ""


def _prose(text: str) -> str:
    parts, end = [], 0
    for formula in _MATHS.finditer(text):
        inner = next(group for group in formula.groups() if group is not None)
        parts += [escape(text[end : formula.start()]), _formula(inner, formula[0], block=formula[0].startswith(("$$", r"\[")))]
        end = formula.end()
    return _lines("".join(parts) + escape(text[end:]))


def _formula(latex: str, source: str, block: bool) -> str:
    """MathML, or the source as it stands where it is too long or no LaTeX."""
    from latex2mathml.converter import convert

    if len(latex) > LONGEST_FORMULA:
        return escape(source)
    try:
        made = ElementTree.fromstring(convert(latex, display="block" if block else "inline"))
    except Exception:  # the library has no error of its own, and models write anything between dollar signs
        return escape(source)
    return ElementTree.tostring(made, encoding="unicode") if is_mathml(made) else escape(source)


def is_mathml(made: ElementTree.Element) -> bool:
    """Whether there are only tags and attributes of mathematics: the library lets ``\\text{<b>}`` and links through."""
    return all(each.tag in TAGS and set(each.keys()) <= ATTRIBUTES for each in made.iter())


def _code(code: str, language: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language or "text")
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return str(highlight(code, lexer, HtmlFormatter(nowrap=False, cssclass="code")))


def code_styles() -> str:
    """The style sheet of coloured code, for light and for dark pages."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=name, cssclass="code").get_style_defs(".code") for name in ("friendly", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
