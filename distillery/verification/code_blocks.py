"""Finds the program in a response: which of its code blocks is the solution."""

import ast
import re
import warnings
from collections.abc import Iterator
from functools import cache

from markdown_it import MarkdownIt

LANGUAGES = {"py": "python", "python": "python", "python3": "python", "py3": "python", "pypy": "python", "pypy3": "python"}
LANGUAGES |= {"cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "c": "cpp"}
LONGEST = 200_000
"""Characters of a response that are searched: a longer one is no solution."""
_TAG = re.compile(r"[A-Za-z][\w+#]*")
_READS = {"python": re.compile(r"\binput\b|\bstdin\b|\bopen\(0"), "cpp": re.compile(r"\bmain\s*\(")}
_GLUED = re.compile(r"^(.*[^\s`])[ \t]*(?:```|~~~)+[ \t]*$", re.MULTILINE)


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").disable(["code", "html_block", "lheading", "reference", "table"])


def program_of(answer: str, language: str = "python", names: frozenset[str] = frozenset()) -> str:
    """The program in a response: the last block that can be one, or else all of it.

    A block can be the program if it is of the language, parses, and defines one of ``names``, or, where there are none,
    reads input. Sample outputs, usage snippets and other languages are passed by.
    """
    text = answer[:LONGEST].replace("\r\n", "\n").lstrip("\ufeff")
    blocks = [(_language(tag), _mended(body, following, language)) for tag, body, following in _blocks(text)]
    own = [body for tag, body in blocks if tag == language] or [body for tag, body in blocks if tag is None]
    if not own:
        return text
    ranks = [_rank(body, language, names) for body in own]
    best = max(ranks)
    joined = "\n".join(own)
    if best < 2 and len(own) > 1 and _rank(joined, language, names) == 2:
        return joined
    return own[len(own) - 1 - ranks[::-1].index(best)]


def parses(source: str) -> bool:
    """Whether a text is Python."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _blocks(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Each fenced block: its info string, its content, and the lines from its first to the end of the text."""
    lines = text.split("\n")
    for token in _markdown().parse(text):
        if token.type == "fence" and token.map:
            yield token.info, token.content, lines[token.map[0] + 1 :]


def _language(info: str) -> str | None:
    """The language of an info string such as ``python title="x"`` or ``{.python}``; None where it names none."""
    found = _TAG.search(info)
    return LANGUAGES.get(found[0].lower(), "other") if found else None


def _mended(body: str, following: list[str], language: str) -> str:
    """The block, cut or prolonged where its fence is glued to code, or a line of a string looks like a fence."""
    if language == "cpp":
        return body.partition("```")[0]
    if parses(body):
        return body
    if (glued := _GLUED.search(body)) and parses(cut := body[: glued.end(1)]):
        return cut
    ends = [number for number, line in enumerate(following) if line.strip().startswith(("```", "~~~"))][:8]
    longer = ("\n".join(following[:end]) + "\n" for end in ends)
    return next((text for text in longer if len(text) > len(body) and parses(text)), body)


def _rank(body: str, language: str, names: frozenset[str]) -> int:
    """2 for what can be the program, 1 for code of the language, 0 for anything else."""
    if language != "python":
        return 2 if _READS[language].search(body) else 1
    if not parses(body):
        return 0
    if not names:
        return 2 if _READS[language].search(body) else 1
    with warnings.catch_warnings(action="ignore"):
        tree = ast.parse(body)
    return 2 if names & defined(tree) else 1


def defined(tree: ast.AST) -> set[str]:
    """Functions, classes, methods and variables that a program defines, and names that it imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found
