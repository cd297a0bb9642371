"""The page over all rows: what its index finds, and what its server answers and refuses."""

import json
import threading
import urllib.error
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer

import pytest

from distillery.reader import index, labels, server, sources
from tests.support.results import TEACHERS, TEXTS


@pytest.fixture
def database(here):
    return index.opened(TEACHERS)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 5),
        ({"search": "what is"}, 2),
        ({"search": 'WHAT "is" 2'}, 2),
        ({"search": "* -"}, 5),
        ({"search": "what OR ten"}, 0),
        ({"search": "absent"}, 0),
        ({"only": "good"}, 1),
        ({"only": "odd"}, 0),
        ({"category": "math", "attempts": "4"}, 5),
        ({"attempts": "5"}, 0),
        ({"tokens": "20"}, 5),
        ({"tokens": "many"}, 5),
        ({"reason": "NOT 5"}, 5),
        ({"reason": "%"}, 5),
        ({"reason": "no"}, 5),
        ({"reason": "5 absent"}, 0),
        ({"search": "what", "category": "math"}, 2),
        ({"search": "what", "category": "code"}, 0),
        ({"search": "what", "category": "math", "source": "absent"}, 0),
        ({"source": "'; DROP TABLE queries; --"}, 0),
    ],
)
def test_filters_find_what_they_name(database, filters, count):
    found = index.listed(database, filters, 0, 100)
    assert (len(found["rows"]), found["total"]) == (count, count)


def test_pages_follow_each_other(database):
    pages = [index.listed(database, {}, offset, 2) for offset in (0, 2, 4)]
    rows = [row["id"] for page in pages for row in page["rows"]]
    assert len(rows) == len(set(rows)) == 5 and all(page["total"] == 5 for page in pages)


def test_the_index_is_made_again_when_the_tables_change(here):
    before = index.path_of(TEACHERS)
    part = sources.part_paths(sources.QUERIES)[0]
    part.touch()
    assert index.path_of(TEACHERS) != before
    index.opened(TEACHERS)
    assert list(index.FOLDER.glob("*.sqlite")) == [index.path_of(TEACHERS)]


@pytest.fixture
def address(here):
    rows = server.Rows(0)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(server.Handler, rows)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def ask(address: str, path: str, body: dict | None = None, **headers: str) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_lists_rows_and_whole_rows(address):
    status, text = ask(address, "/api/list?view=queries&offset=0&search=ten")
    (row,) = json.loads(text)["rows"]
    assert status == 200 and row["text"] == TEXTS[-1] and row["verified"] == ["good"]
    whole = json.loads(ask(address, f"/api/row?view=queries&id={row['id']}")[1])
    assert list(whole["teachers"]) == TEACHERS and len(whole["teachers"]["good"]) == 2
    assert ask(address, "/api/row?view=queries&id=none") == (200, "null")
    found = json.loads(ask(address, "/api/list?view=removed&offset=0&rule=clean:+url")[1])
    assert found["total"] == 4
    assert json.loads(ask(address, "/api/list?view=questions&offset=0&solved=by+none")[1])["total"] >= 0
    assert ask(address, "/")[0] == 200


def test_labels_are_kept(address):
    row = json.loads(ask(address, "/api/list?view=removed&offset=0")[1])["rows"][0]
    assert ask(address, "/api/label", {"id": row["id"], "label": "right"})[0] == 200
    assert labels.read()[row["id"]] == {"id": row["id"], "rule": row["rule"], "label": "right"}
    assert json.loads(ask(address, "/api/list?view=removed&offset=0&label=right")[1])["total"] == 1
    assert ask(address, "/api/label", {"id": "no such row", "label": "right"})[0] == 400
    assert ask(address, "/api/label", {"id": row["id"], "label": None})[0] == 200 and labels.read() == {}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/list?view=nothing&offset=0", 400),
        ("/api/list?view=queries&offset=x", 400),
        ("/api/list?offset=0", 400),
        ("/nothing", 404),
        ("/report/../../params.yaml", 404),
        ("/report/%2e%2e/params.yaml", 404),
    ],
)
def test_what_is_not_there_is_refused(address, path, status):
    assert ask(address, path)[0] == status


def test_other_sites_are_refused(address):
    assert ask(address, "/", Host="evil.example")[0] == 403
    assert ask(address, "/api/label", {"id": "a", "label": "right"}, Origin="http://evil.example")[0] == 403
