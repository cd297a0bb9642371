"""A hub on loopback for the real clients: folders ``models/ORG/NAME`` and ``datasets/ORG/NAME`` are its repositories.

What lies in a folder is its branch main. Every commit, a hash of the files, is kept when it is first seen and can be asked for
after main has moved.
"""

import hashlib
import json
import re
import shutil
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_FILES = (".safetensors", ".parquet")
INFO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)/?(.*)")
PATHS = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/([^/]+)")
PREUPLOAD = re.compile(r"/api/(?:models|datasets|spaces)/[^/]+/[^/]+/preupload/[^/]+")
COMMIT = re.compile(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/commit/[^/]+")
FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose method and path match: a status, or a break after so many bytes."""

    match: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    times: int = 1


class Hub:
    """The server, on a free port. ``asked`` lists the requests that it got."""

    def __init__(self, tree: Path):
        self.tree = tree
        self.gated: set[str] = set()
        self.private: dict[str, bool] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, kind: str, name: str, revision: str) -> Path | None:
        """The folder that holds a commit; None where the repository or the revision does not exist."""
        folder, kept = self.tree / kind / name, self.tree / "commits"
        if not folder.is_dir():
            return None
        if revision not in ("main", "HEAD"):
            return kept / revision if (kept / revision).is_dir() else None
        files = [(str(path.relative_to(folder)), digest(path)) for path in files_in(folder)]
        found = kept / hashlib.sha1(json.dumps([kind, name, files]).encode()).hexdigest()
        if not found.exists():
            shutil.copytree(folder, found)
        return found

    def fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and re.search(fault.match, request):
                fault.times -= 1
                return fault
        return None


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entry(folder: Path, path: Path) -> dict[str, Any]:
    """What the hub says of a file."""
    found = {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": digest(path)[:40]}
    large = {"oid": digest(path), "size": path.stat().st_size, "pointerSize": 130}
    return found | ({"lfs": large} if path.suffix in LARGE_FILES else {})


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.cut_after: int | None = None
        self.hub.asked.append(request := f"{self.command} {self.path}")
        if fault := self.hub.fault(request):
            if fault.status:
                return self.refuse(fault.status, **fault.headers)
            self.cut_after = fault.cut_after
        at = urlsplit(self.path)
        if self.command == "POST" and self.uploaded(unquote(at.path)):
            return None
        path, query = unquote(at.path), parse_qs(at.query)
        if found := FILE.fullmatch(path):
            return self.file(found[1] or "models", *found.groups()[1:])
        if found := INFO.fullmatch(path):
            return self.info(found[1], found[2], found[3] or "main")
        if found := TREE.fullmatch(path):
            deep = query.get("recursive", [""])[0].lower() in ("true", "1")
            return self.listing(found[1], found[2], found[3], found[4], deep)
        if found := PATHS.fullmatch(path):
            return self.paths(*found.groups())
        return self.refuse(404)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def uploaded(self, path: str) -> bool:
        """Answers what uploads ask: a new repository, how files are to be sent, a commit. Whether it was one of these."""
        if path == "/api/repos/create":
            about = json.loads(self.body())
            name = f"{about['organization']}/{about['name']}"
            self.hub.private[name] = about.get("visibility", "private" if about.get("private") else "public") == "private"
            (self.hub.tree / f"{about.get('type', 'model')}s" / name).mkdir(parents=True, exist_ok=True)
            self.tell({"url": f"{self.hub.url}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self.body()
            self.tell({"errors": [], "warnings": []})
        elif PREUPLOAD.fullmatch(path):
            files = [{"path": each["path"], "uploadMode": "regular"} for each in json.loads(self.body())["files"]]
            self.tell({"files": [each | {"shouldIgnore": False, "oid": None} for each in files]})
        elif found := COMMIT.fullmatch(path):
            folder = self.hub.tree / found[1] / found[2]
            for line in map(json.loads, self.body().splitlines()):
                if line["key"] == "file":
                    to = folder / line["value"]["path"]
                    to.parent.mkdir(parents=True, exist_ok=True)
                    to.write_bytes(b64decode(line["value"]["content"]))
            self.tell({"commitOid": "0" * 40, "commitUrl": f"{self.hub.url}/{found[2]}/commit/0", "hookOutput": ""})
        else:
            return False
        return True

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, *_: Any) -> None: ...

    def repository(self, kind: str, name: str, revision: str, files: bool) -> Path | None:
        """The commit's folder; None where the answer is given here, a refusal."""
        folder = self.hub.commit(kind, name, revision)
        if folder is None:
            missing = "RevisionNotFound" if (self.hub.tree / kind / name).is_dir() else "RepoNotFound"
            self.refuse(404, **{"X-Error-Code": missing})
        elif files and name in self.hub.gated and "hf_" not in self.headers.get("Authorization", ""):
            self.refuse(401, **{"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {name} is restricted."})
        else:
            return folder
        return None

    def info(self, kind: str, name: str, revision: str) -> None:
        if folder := self.repository(kind, name, revision, files=False):
            files = [entry(folder, path) for path in files_in(folder)]
            told = [{"rfilename": each["path"], "size": each["size"], "blobId": each["oid"]} for each in files]
            for one, each in zip(told, files, strict=True):
                if large := each.get("lfs"):
                    one["lfs"] = {"sha256": large["oid"], "size": large["size"], "pointerSize": 130}
            about = {"_id": folder.name[:24], "id": name, "sha": folder.name, "private": False, "tags": [], "downloads": 0}
            self.tell(about | {"gated": "auto" if name in self.hub.gated else False, "siblings": told})

    def listing(self, kind: str, name: str, revision: str, under: str, deep: bool) -> None:
        if folder := self.repository(kind, name, revision, files=False):
            found: dict[str, dict[str, Any]] = {}
            for path in files_in(folder / under) if (folder / under).is_dir() else []:
                inner = path.relative_to(folder)
                parents = [str(each) for each in reversed(inner.parents) if str(each) not in (".", under)]
                found |= {
                    each: {"type": "directory", "path": each, "size": 0, "oid": ""} for each in parents if "/" not in each
                }
                if deep or str(inner.parent) in (".", under):
                    found[str(inner)] = entry(folder, path)
            self.tell(list(found.values()))

    def paths(self, kind: str, name: str, revision: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
        if folder := self.repository(kind, name, revision, files=False):
            folders = [{"type": "directory", "path": each, "size": 0, "oid": ""} for each in asked if (folder / each).is_dir()]
            self.tell([entry(folder, folder / each) for each in asked if (folder / each).is_file()] + folders)

    def file(self, kind: str, name: str, revision: str, path: str) -> None:
        folder = self.repository(kind, name, revision, files=True)
        if folder is None:
            return None
        if not (folder / path).is_file():
            return self.refuse(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": folder.name})
        data, told = (folder / path).read_bytes(), entry(folder, folder / path)
        name_of_content = told["lfs"]["oid"] if "lfs" in told else told["oid"]
        headers = {"X-Repo-Commit": folder.name, "ETag": f'"{name_of_content}"', "Accept-Ranges": "bytes"}
        status, wanted = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            status, headers = 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            data = data[first : last + 1]
        return self.answer(status, data, headers)

    def tell(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, **headers: str) -> None:
        self.answer(status, b'{"error": "no"}', headers)

    def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: self.cut_after])
        self.close_connection = self.close_connection or self.cut_after is not None
