"""The page: one HTML file that needs nothing else, with a sample of the rows in it, or none where a server has them all."""

import json
from pathlib import Path
from typing import Any

from distillery.reader.records import Record
from distillery.reader.rendering import code_styles

PAGE = Path(__file__).with_name("page.html")
Views = dict[str, list[Record]]
"""Rows by view: ``queries``, ``removed``, ``questions``."""


def with_counts(questions: list[Record]) -> list[Record]:
    """Questions with the number of their samples, by which the page tells those that all models answer."""
    return [row | {"samples": sum(map(len, row["models"].values()))} for row in questions]


def choices_of(views: Views, teachers: list[str]) -> dict[str, dict[str, list[str]]]:
    """What each filter offers."""

    def values(view: str, name: str) -> list[str]:
        return sorted({row[name] for row in views[view] if row[name]})

    return {
        "queries": {"category": values("queries", "category"), "source": values("queries", "source"), "only": teachers},
        "removed": {name: values("removed", name) for name in ("rule", "category", "source")} | {"label": LABELS},
        "questions": {name: values("questions", name) for name in ("benchmark", "difficulty")} | {"solved": SOLVED},
    }


LABELS = ["right", "wrong", "none"]
SOLVED = ["by all", "by some", "by none"]


def page(title: str, report: str, data: dict[str, Any]) -> str:
    """The page; ``data`` is what its script reads. No text in it can end the script."""
    import jinja2

    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    template = jinja2.Template(PAGE.read_text(encoding="utf-8"), autoescape=True)
    safe = jinja2.utils.markupsafe.Markup
    return template.render(title=title, report=report, data=safe(text), code_styles=safe(code_styles()))


def sample_page(title: str, teachers: list[str], views: Views) -> str:
    """The page with these rows, for a browser without a server."""
    views = views | {"questions": with_counts(views["questions"])}
    return page(title, "index.html", {"served": False, "choices": choices_of(views, teachers), **views})
