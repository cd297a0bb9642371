"""python scripts/settings_page.py: writes docs/settings.md, every setting of params.yaml with its type and what it means.

All of it is from the dataclasses that the pipeline reads its settings with; ``--check`` fails where the page is stale.
"""

import ast
import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distillery.core.codehash import modules, tree_of
from distillery.core.config import Section

PAGE = Path("docs/settings.md")
LOADED = re.compile(r'config\.load\((\w+), f?"([^"]+)"\)')
INTRODUCTION = """# Settings

Every setting of params.yaml, from the code that reads it. Bounds are part of the types: a value outside them, an unknown key or
a missing one is an error that names it. A field with a default may be left out. `python -m distillery.core.profiles NAME`
writes all of them for a profile.
"""


def sections() -> Iterator[type[Section]]:
    """Every settings class of library and stages, by module and place in its file."""
    for name in sorted(modules()):
        if name.startswith(("distillery.", "stages.")) and ".inside" not in name:
            found = vars(importlib.import_module(name)).values()
            own = [
                each
                for each in found
                if isinstance(each, type) and issubclass(each, Section) and each.__module__ == name != Section.__module__
            ]
            yield from own


def keys() -> dict[str, list[str]]:
    """Under which keys of params.yaml a class is read."""
    found: dict[str, list[str]] = {}
    for path in modules().values():
        for kind, key in LOADED.findall(path.read_text()):
            found.setdefault(kind, []).append(re.sub(r"\{\w+\}", "NAME", key))
    return {kind: sorted(set(each)) for kind, each in found.items()}


def body_of(kind: type[Section]) -> list[ast.stmt]:
    """The statements of a class in its source."""
    (node,) = (n for n in ast.walk(tree_of(kind.__module__)) if isinstance(n, ast.ClassDef) and n.name == kind.__name__)
    return node.body


def rows(kind: type[Section]) -> Iterator[str]:
    """A line per field: its name, type, default and docstring."""
    body = body_of(kind)
    defaults = {field.name: field for field in dataclasses.fields(kind)}
    for statement, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name) or statement.target.id == "_":
            continue
        said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        field = defaults[statement.target.id]
        default = "" if field.default is dataclasses.MISSING else f", default `{field.default!r}`"
        meaning = " ".join(str(said).split())
        yield f"- `{field.name}` ({ast.unparse(statement.annotation)}{default}): {meaning}".rstrip(": ")


def page() -> str:
    known, parts = keys(), [INTRODUCTION]
    for kind in sections():
        if lines := list(rows(kind)):
            at = ", ".join(f"`{key}`" for key in known.get(kind.__name__, []))
            parts.append(
                f"## {kind.__name__}{f': {at}' if at else ''}\n\n{(kind.__doc__ or '').strip()}\n\n" + "\n".join(lines) + "\n"
            )
    return "\n".join(parts)


def main() -> None:
    if "--check" in sys.argv:
        if PAGE.read_text() != page():
            sys.exit(f"{PAGE}: stale; run `python scripts/settings_page.py`")
        return
    PAGE.write_text(page())
    print(f"settings: {PAGE}")


if __name__ == "__main__":
    main()
