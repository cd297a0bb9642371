"""Journals: JSON lines that several writers append to and all read, on any file system with atomic renames.

Each writer appends to a file of its own, ``open-<host>-<pid>-<random>.jsonl``, one line and one write per record, so that a
killed writer loses only what was in flight. On closing, the file is renamed to an immutable ``part-...``. A truncated last
line is what a kill leaves, and is skipped. Reading continues from where it stopped, so another writer's records appear while
it works.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPEN, PART = "open-", "part-"


@dataclass(frozen=True, slots=True)
class RecordLocation:
    """Where a record is: the writer's file, and the first byte and size of its line."""

    writer: str
    start: int
    size: int


class Journal:
    """The records of a folder. `refresh` yields what is new since it was last called, other writers' included."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.own = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.read_to: dict[str, int] = {}
        self.file: int | None = None

    @property
    def path(self) -> Path:
        """This writer's open file."""
        return self.folder / f"{OPEN}{self.own}.jsonl"

    def append(self, record: dict[str, Any]) -> RecordLocation:
        """Appends a record in a single write; the operating system has it when this returns."""
        if self.file is None:
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        place = RecordLocation(self.own, self.read_to.get(self.own, 0), len(line))
        self.read_to[self.own] = place.start + place.size
        while line:
            line = line[os.write(self.file, line) :]
        return place

    def refresh(self) -> Iterator[tuple[bytes, RecordLocation]]:
        """The new complete lines of every file, each with its location."""
        for path in self.files():
            writer = writer_of(path)
            start = self.read_to.get(writer, 0)
            try:
                if path.stat().st_size <= start:
                    continue
                with path.open("rb") as file:
                    file.seek(start)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        yield line, RecordLocation(writer, start, len(line))
                        start += len(line)
                        self.read_to[writer] = start
            except FileNotFoundError:  # sealed or compacted meanwhile; the next refresh finds it under its new name
                continue

    def files(self) -> list[Path]:
        """Every file of the folder, one per writer: of a file that is seen under both names, its sealed one."""
        found = {writer_of(path): path for path in sorted(self.folder.glob("*.jsonl"))}
        return [found[writer] for writer in sorted(found)]

    def path_of(self, writer: str) -> Path:
        """A writer's file, under the name that it has now."""
        part = self.folder / f"{PART}{writer}.jsonl"
        return part if part.exists() else self.folder / f"{OPEN}{writer}.jsonl"

    def fetch(self, place: RecordLocation) -> bytes:
        """A record's line."""
        try:
            return self._fetch(place)
        except FileNotFoundError:  # sealed after its name was read and before it was opened
            return self._fetch(place)

    def _fetch(self, place: RecordLocation) -> bytes:
        with self.path_of(place.writer).open("rb") as file:
            file.seek(place.start)
            return file.read(place.size)

    def others(self, within: float = 60.0) -> int:
        """How many other writers seem active: their files are open and were changed within so many seconds."""
        recent = 0
        for path in self.folder.glob(f"{OPEN}*.jsonl"):
            with suppress(FileNotFoundError):
                recent += writer_of(path) != self.own and time.time() - path.stat().st_mtime < within
        return recent

    def close(self) -> None:
        """Seals this writer's file as an immutable part."""
        if self.file is not None:
            os.fsync(self.file)
            os.close(self.file)
            self.file = None
            self.path.rename(self.folder / f"{PART}{self.own}.jsonl")

    def compact(self, lines: Iterator[bytes]) -> tuple[int, int]:
        """Replaces every file by one part that holds ``lines``; the number of files before, and of lines after.

        The caller makes sure that nobody else uses the journal.
        """
        old = self.files()
        merged = self.folder / f"{PART}{self.own}.jsonl"
        draft, count = merged.with_suffix(".tmp"), 0
        with draft.open("wb") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        draft.rename(merged)
        for path in old:
            path.unlink()
        return len(old), count


def writer_of(path: Path) -> str:
    return path.stem.removeprefix(OPEN).removeprefix(PART)


def alive(path: Path) -> bool:
    """Whether the writer of an open file may still be active: it is on another host, or its process runs on this one."""
    host, pid, _ = writer_of(path).rsplit("-", 2)
    return host != socket.gethostname() or Path("/proc", pid).exists()


def parse_record(line: bytes) -> dict[str, Any] | None:
    """A line's record; None where a kill truncated it."""
    try:
        return json.loads(line)
    except ValueError:
        return None
