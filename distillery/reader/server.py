"""``python -m distillery.reader.server [PORT]`` (`make browse`): the page over all rows, on this machine only."""

import json
import sys
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from distillery.core import config
from distillery.core.arms import arm_names
from distillery.core.errors import ConfigError, UserError
from distillery.core.progress import log
from distillery.core.stage import run_stage
from distillery.core.teachers import BASE, teacher_names
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.reader import index, labels, sources
from distillery.reader.page import choices_of, page, with_counts
from distillery.reader.sample import sampled_questions, sampled_removed

PORT, PAGE_ROWS = 8765, 100
REMOVED_PER_RULE, QUESTIONS = 500, 500
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


class Rows:
    """What the page asks for: queries through the index, removed rows and questions from memory."""

    def __init__(self, seed: int):
        self.teachers, self.lock = teacher_names(), Lock()
        self.database = index.opened(self.teachers)
        removed = sampled_removed(self.teachers, REMOVED_PER_RULE, seed)
        models = [model for model in (*arm_names(), BASE) if Path(f"{sources.SAMPLES}/{model}").is_dir()]
        asked = sampled_questions(models, enabled_benchmarks(), QUESTIONS, seed) if models else []
        self.held = {"removed": removed, "questions": with_counts(asked)}
        self.rules = {row["id"]: row["rule"] for row in removed}

    def page(self) -> str:
        choices = choices_of({"queries": []} | self.held, self.teachers)
        with self.lock:
            choices["queries"] |= index.choices(self.database)
        known = {key: row["label"] for key, row in labels.read().items()}
        return page("Reader", "/report/index.html", {"served": True, "choices": choices, "labels": known})

    def list(self, view: str, offset: str = "0", **filters: str) -> dict[str, Any]:
        first = int(offset)
        if view == "queries":
            with self.lock:
                return index.listed(self.database, filters, first, PAGE_ROWS)
        known = labels.read()
        found = [row for row in self.held[view] if fits(row, filters, known)]
        return {"rows": found[first : first + PAGE_ROWS], "total": len(found)}

    def row(self, view: str, id: str) -> dict[str, Any] | None:
        if view == "queries":
            return next(iter(sources.query_records([id], self.teachers)), None)
        return next((row for row in self.held[view] if row["id"] == id), None)

    def label(self, id: str, label: str | None) -> None:
        with self.lock:
            labels.add({"id": id, "rule": self.rules[id], "label": label})


def fits(row: dict[str, Any], filters: dict[str, str], known: dict[str, dict[str, Any]]) -> bool:
    """Whether a row held in memory passes the filters."""
    fields = ("category", "source", "rule", "benchmark", "difficulty")
    label = known.get(row["id"], {}).get("label", "none")
    solved = "by none" if not row.get("solved") else "by all" if row["solved"] == row["samples"] else "by some"
    return (
        all(word in row["text"].lower() for word in filters.get("search", "").lower().split())
        and all(row[name] == filters[name] for name in fields if filters.get(name))
        and filters.get("label", label) == label
        and filters.get("solved", solved) == solved
    )


class Handler(BaseHTTPRequestHandler):
    """Answers the page's requests. Only to this machine's own names, so that no other site's script can ask."""

    def __init__(self, rows: Rows, *rest: Any):
        self.rows = rows
        super().__init__(*rest)

    def answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def is_local(self) -> bool:
        return self.headers.get("Host", "").rsplit(":", 1)[0] in ("127.0.0.1", "localhost")

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        values: dict[str, Any] = dict(parse_qsl(asked.query))
        if not self.is_local():
            return self.fail(HTTPStatus.FORBIDDEN, "only for this machine")
        if asked.path == "/":
            return self.answer(self.rows.page().encode(), "text/html; charset=utf-8")
        if asked.path.startswith("/report/"):
            return self.file(asked.path.removeprefix("/report/"))
        call = {"/api/list": self.rows.list, "/api/row": self.rows.row}.get(asked.path)
        if call is None:
            return self.fail(HTTPStatus.NOT_FOUND, "no such page")
        self.call(call, values)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        origin = self.headers.get("Origin")
        if not self.is_local() or (origin and urlsplit(origin).netloc != self.headers.get("Host")):
            return self.fail(HTTPStatus.FORBIDDEN, "only for this machine")
        if self.path != "/api/label" or length > 10_000:
            return self.fail(HTTPStatus.NOT_FOUND, "no such page")
        self.call(self.rows.label, json.loads(self.rfile.read(length)))

    def call(self, function: Any, values: dict[str, Any]) -> None:
        try:
            found = function(**values)
        except (KeyError, TypeError, ValueError) as error:
            return self.fail(HTTPStatus.BAD_REQUEST, f"{type(error).__name__}: {error}")
        except UserError as error:
            return self.fail(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        self.answer(json.dumps(found).encode(), "application/json")

    def file(self, name: str) -> None:
        root = Path("data/report").resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            return self.fail(HTTPStatus.NOT_FOUND, "no such file; `dvc repro report` makes the report")
        kinds = {".html": "text/html; charset=utf-8", ".svg": "image/svg+xml", ".js": "text/javascript"}
        self.answer(path.read_bytes(), kinds.get(path.suffix, "text/plain; charset=utf-8"))

    def fail(self, status: HTTPStatus, why: str) -> None:
        self.answer(why.encode(), "text/plain; charset=utf-8", status)

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: requests are no news."""


def main(port: str = str(PORT)) -> None:
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"port {port!r}: a number up to 65535 is needed, as in `make browse PORT=8765`")
    rows = Rows(config.load(int, "seed"))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), partial(Handler, rows))
    except OSError as error:
        raise ConfigError(f"port {port}: {error.strerror}; take another one, as in `make browse PORT=8766`") from None
    log("reader", f"http://127.0.0.1:{server.server_address[1]} (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.stdout.write("\n")


if __name__ == "__main__":
    run_stage(main)
